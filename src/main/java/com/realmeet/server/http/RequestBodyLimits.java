package com.realmeet.server.http;

import com.realmeet.server.core.Access;
import com.realmeet.server.core.Deadline;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.eclipse.jetty.http.HttpException;
import org.eclipse.jetty.http.HttpHeader;
import org.eclipse.jetty.http.HttpStatus;
import org.eclipse.jetty.io.Content;
import org.eclipse.jetty.server.Handler;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.util.Callback;
import org.eclipse.jetty.util.thread.Scheduler;

/**
 * Limits what request bodies cost while handlers read them: the time of each, and for all together
 * the memory and the threads that wait for slow clients. Nothing in Jetty does the last two.
 *
 * <p>Requests without a good token have a budget of their own, so that they cannot use up that of
 * users who are signed in. A body that no handler reads costs nothing.
 */
final class RequestBodyLimits extends Handler.Wrapper {
  private final Budget anonymous = new Budget(4 << 20, 16);
  private final Budget signedIn = new Budget(16 << 20, 64);

  /** What the bodies that are being read may hold. */
  private static final class Budget {
    final int maxBytes;
    final int maxWaiting;
    final AtomicInteger bytes = new AtomicInteger();

    /** Requests whose handler waits, or has waited, for more of the body. */
    final AtomicInteger waiting = new AtomicInteger();

    Budget(int maxBytes, int maxWaiting) {
      this.maxBytes = maxBytes;
      this.maxWaiting = maxWaiting;
    }
  }

  @Override
  public boolean handle(Request request, Response response, Callback callback) throws Exception {
    return super.handle(hasBody(request) ? new Limited(request) : request, response, callback);
  }

  private static boolean hasBody(Request request) {
    return request.getLength() > 0 || request.getHeaders().contains(HttpHeader.TRANSFER_ENCODING);
  }

  /** A request that fails when its body exceeds a limit. */
  private final class Limited extends Request.Wrapper {
    private final AtomicReference<Runnable> demand = new AtomicReference<>();
    private Budget budget;
    private int bytes;
    private Scheduler.Task timeout;
    private volatile HttpException.RuntimeException failure;

    Limited(Request request) {
      super(request);
    }

    @Override
    public Content.Chunk read() {
      if (failure != null) {
        return Content.Chunk.from(failure);
      }
      Content.Chunk chunk = super.read();
      if (Content.Chunk.isFailure(chunk, false)) {
        return null; // a graceful shutdown makes Jetty find all connections idle after 1 s
      }
      if (chunk == null || !chunk.hasRemaining()) {
        return chunk;
      }
      bytes += chunk.remaining();
      if (budget().bytes.addAndGet(chunk.remaining()) <= budget.maxBytes) {
        return chunk;
      }
      chunk.release();
      failure = new HttpException.RuntimeException(HttpStatus.SERVICE_UNAVAILABLE_503);
      return Content.Chunk.from(failure);
    }

    /** Called when the handler waits, since the rest of the body has not arrived. */
    @Override
    public void demand(Runnable available) {
      demand.set(available);
      if (timeout == null) {
        if (budget().waiting.incrementAndGet() > budget.maxWaiting) {
          fail(HttpStatus.SERVICE_UNAVAILABLE_503);
        }
        long nanos = Deadline.of(this).remaining().toNanos();
        timeout =
            getComponents()
                .getScheduler()
                .schedule(() -> fail(HttpStatus.REQUEST_TIMEOUT_408), nanos, TimeUnit.NANOSECONDS);
      }
      super.demand(this::onAvailable);
    }

    private void fail(int status) {
      failure = new HttpException.RuntimeException(status);
      onAvailable();
    }

    /** Wakes the handler once for each demand. */
    private void onAvailable() {
      Runnable available = demand.getAndSet(null);
      if (available != null) {
        available.run();
      }
    }

    private Budget budget() {
      if (budget == null) {
        budget = getAttribute(Access.USER_ID_ATTRIBUTE) == null ? anonymous : signedIn;
        Request.addCompletionListener(this, end -> release());
      }
      return budget;
    }

    private void release() {
      budget.bytes.addAndGet(-bytes);
      if (timeout != null) {
        timeout.cancel();
        budget.waiting.decrementAndGet();
      }
    }
  }
}
