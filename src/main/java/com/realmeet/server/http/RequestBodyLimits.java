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
import org.eclipse.jetty.util.thread.Invocable;
import org.eclipse.jetty.util.thread.Scheduler;

/**
 * Limits what request bodies cost while handlers read them: the size and the time of each, and for
 * all together the memory and the threads that wait for slow clients. Nothing in Jetty does the
 * last two, and its SizeLimitHandler (12.1.12) does not release the chunk that is too much.
 *
 * <p>Requests without a good token have a budget of their own, so that they cannot use up that of
 * users who are signed in. A body that no handler reads costs nothing.
 */
final class RequestBodyLimits extends Handler.Wrapper {
  private static final int MAX_BODY = 1 << 20;

  /**
   * Bytes that a chunk (RFC 9112 §7.1) counts at least: a megabyte of one-byte chunks would take a
   * second of processor time.
   */
  private static final int MIN_CHUNK = 256;

  // Their handlers need up to five times as much of the heap.
  private final Budget anonymous = new Budget(4 << 20, 16);
  private final Budget signedIn = new Budget(8 << 20, 64);

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
    if (!hasBody(request)) {
      return super.handle(request, response, callback);
    }
    if (request.getLength() > MAX_BODY) {
      Response.writeError(request, response, callback, HttpStatus.PAYLOAD_TOO_LARGE_413);
      return true;
    }
    Limited limited = new Limited(request);
    return super.handle(limited, JettyWorkarounds.announceClose(limited, response), callback);
  }

  private static boolean hasBody(Request request) {
    return request.getLength() > 0 || request.getHeaders().contains(HttpHeader.TRANSFER_ENCODING);
  }

  /** A request that fails when its body exceeds a limit. */
  private final class Limited extends Request.Wrapper {
    /** What wakes the handler while it waits for more of the body. */
    private final AtomicReference<Runnable> waiting = new AtomicReference<>();

    private Budget budget;
    private int unaccounted;
    private int size;
    private int bytes;
    private boolean hasWaited;
    private Scheduler.Task timeout;
    private HttpException.RuntimeException failure;

    Limited(Request request) {
      super(request);
    }

    /** Called only by the handler's thread, like {@link #demand}. */
    @Override
    public Content.Chunk read() {
      if (failure == null) {
        account();
      }
      Content.Chunk chunk = failure == null ? super.read() : Content.Chunk.from(failure);
      if (Content.Chunk.isFailure(chunk, false)) {
        return null; // a graceful shutdown makes Jetty find all connections idle after 1 s
      }
      if (Content.Chunk.isFailure(chunk)
          && !(chunk.getFailure() instanceof HttpException.RuntimeException)) {
        failure = new HttpException.RuntimeException(400, "Request body is incomplete");
        return Content.Chunk.from(failure); // the client has gone
      }
      unaccounted = chunk == null ? 0 : chunk.remaining();
      return chunk;
    }

    /**
     * Accounts for the chunk that was read last. It is in the handler's hands only now: what was
     * looked at before authentication, and not taken, costs nothing.
     */
    private void account() {
      if (unaccounted == 0) {
        return;
      }
      size += getLength() < 0 ? Math.max(unaccounted, MIN_CHUNK) : unaccounted;
      bytes += unaccounted;
      if (budget().bytes.addAndGet(unaccounted) > budget.maxBytes) {
        fail(HttpStatus.SERVICE_UNAVAILABLE_503);
      } else if (size > MAX_BODY) {
        fail(HttpStatus.PAYLOAD_TOO_LARGE_413);
      } else if (Deadline.of(this).remaining().isZero()) {
        fail(HttpStatus.REQUEST_TIMEOUT_408);
      }
    }

    private void fail(int status) {
      failure = new HttpException.RuntimeException(status);
    }

    /** Called when the handler waits, since the rest of the body has not arrived. */
    @Override
    public void demand(Runnable available) {
      if (!hasWaited) {
        hasWaited = true;
        if (budget().waiting.incrementAndGet() > budget.maxWaiting) {
          fail(HttpStatus.SERVICE_UNAVAILABLE_503);
          available.run();
          return;
        }
        timeout =
            getComponents()
                .getScheduler()
                .schedule(
                    this::stopWaiting,
                    Deadline.of(this).remaining().toNanos(),
                    TimeUnit.NANOSECONDS);
      }
      waiting.set(available);
      super.demand(Invocable.from(Invocable.getInvocationType(available), this::onAvailable));
    }

    private void onAvailable() {
      Runnable available = waiting.getAndSet(null);
      if (available != null) {
        available.run();
      }
    }

    private void stopWaiting() {
      if (waiting.get() != null) {
        super.fail(new HttpException.RuntimeException(HttpStatus.REQUEST_TIMEOUT_408));
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
      }
      if (hasWaited) {
        budget.waiting.decrementAndGet();
      }
    }
  }
}
