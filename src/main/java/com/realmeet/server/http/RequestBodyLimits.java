package com.realmeet.server.http;

import com.realmeet.server.core.Access;
import com.realmeet.server.core.Deadline;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.eclipse.jetty.http.HttpException;
import org.eclipse.jetty.http.HttpFields;
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
  private static final int MAX_BODY_BYTES = 1 << 20;

  /**
   * Bytes that a chunk (RFC 9112 §7.1) counts at least: a megabyte of one-byte chunks would take a
   * second of processor time.
   */
  private static final int MIN_CHUNK_COST = 256;

  /** Bytes by which a budget may be exceeded until the bodies that are given up have ended. */
  private static final int MAX_EXCESS_BYTES = 2 << 20;

  // Handlers need up to five times as much of the heap.
  private final Budget anonymous = new Budget(2 << 20, 16);
  private final Budget signedIn = new Budget(6 << 20, 40);

  /**
   * What the bodies that are being read may hold. If it is used up, the oldest body that has
   * stalled is given up in favour of the new one, so that a few connections that send nothing do
   * not keep everybody else's bodies out.
   */
  private static final class Budget {
    final int maxBytes;
    final int maxSlow;
    final AtomicInteger bytes = new AtomicInteger();

    /** Requests whose handler waits, or has waited, for more of the body; oldest first. */
    final Queue<Limited> slow = new ConcurrentLinkedQueue<>();

    final AtomicInteger slowCount = new AtomicInteger();

    Budget(int maxBytes, int maxSlow) {
      this.maxBytes = maxBytes;
      this.maxSlow = maxSlow;
    }

    void giveUpOldest() {
      for (Limited limited : slow) {
        if (limited.stopWaiting(HttpStatus.SERVICE_UNAVAILABLE_503)) {
          return;
        }
      }
    }
  }

  @Override
  public boolean handle(Request request, Response response, Callback callback) throws Exception {
    if (!hasBody(request)) {
      return super.handle(request, response, callback);
    }
    if (request.getLength() > MAX_BODY_BYTES) {
      Response.writeError(request, response, callback, HttpStatus.PAYLOAD_TOO_LARGE_413);
      return true;
    }
    Limited limited = new Limited(request, response);
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
    private volatile HttpException.RuntimeException stopped;
    private final Response response;

    Limited(Request request, Response response) {
      super(request);
      this.response = response;
    }

    /** Called only by the handler's thread, like {@link #demand}. */
    @Override
    public Content.Chunk read() {
      if (stopped != null) {
        failure = stopped;
        response.getHeaders().put(HttpFields.CONNECTION_CLOSE);
      } else if (failure == null) {
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
      size += getLength() < 0 ? Math.max(unaccounted, MIN_CHUNK_COST) : unaccounted;
      bytes += unaccounted;
      int total = budget().bytes.addAndGet(unaccounted);
      if (total > budget.maxBytes) {
        budget.giveUpOldest();
      }
      if (total > budget.maxBytes + MAX_EXCESS_BYTES) {
        refuse(HttpStatus.SERVICE_UNAVAILABLE_503);
      } else if (size > MAX_BODY_BYTES) {
        refuse(HttpStatus.PAYLOAD_TOO_LARGE_413);
      } else if (Deadline.of(this).remaining().isZero()) {
        refuse(HttpStatus.REQUEST_TIMEOUT_408);
      }
    }

    private void refuse(int status) {
      failure = new HttpException.RuntimeException(status);
    }

    /** Called when the handler waits, since the rest of the body has not arrived. */
    @Override
    public void demand(Runnable available) {
      if (!hasWaited) {
        hasWaited = true;
        budget().slow.add(this);
        int slow = budget.slowCount.incrementAndGet();
        if (slow > 2 * budget.maxSlow) {
          refuse(HttpStatus.SERVICE_UNAVAILABLE_503);
          available.run();
          return;
        }
        if (slow > budget.maxSlow) {
          budget.giveUpOldest();
        }
        timeout =
            getComponents()
                .getScheduler()
                .schedule(
                    () -> stopWaiting(HttpStatus.REQUEST_TIMEOUT_408),
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

    /**
     * Wakes the handler, whose next read fails; false if it does not wait just now. Only the
     * handler's thread may touch Jetty's parser, so that its demand stays and the connection has to
     * be closed.
     */
    boolean stopWaiting(int status) {
      Runnable available = waiting.getAndSet(null);
      if (available == null) {
        return false;
      }
      stopped = new HttpException.RuntimeException(status);
      available.run();
      return true;
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
        budget.slow.remove(this);
        budget.slowCount.decrementAndGet();
      }
    }
  }
}
