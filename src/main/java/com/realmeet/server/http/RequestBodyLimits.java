package com.realmeet.server.http;

import com.realmeet.server.core.Access;
import com.realmeet.server.core.Deadline;
import java.time.Duration;
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
 * Limits request bodies while handlers read them: size and time of each body, and for all together
 * the memory and the number of threads that wait for slow clients. Jetty has nothing for the last
 * two, and its SizeLimitHandler (12.1.12) does not release the chunk that exceeds the limit.
 *
 * <p>Requests without a verified token have a separate budget, so that they cannot exhaust that of
 * signed-in users. A body that no handler reads is not counted.
 */
final class RequestBodyLimits extends Handler.Wrapper {
  /** Maximum size of a body, 1 MB: webhooks and JSON requests are far smaller. */
  private static final int MAX_BODY_BYTES = 1 << 20;

  /**
   * Minimum size in bytes at which a chunk (RFC 9112 §7.1) is counted: a megabyte of one-byte
   * chunks would take a second of processor time.
   */
  private static final int MIN_CHUNK_COST = 256;

  /** Bytes by which a budget may be exceeded until the aborted requests have released theirs. */
  private static final int MAX_EXCESS_BYTES = 2 << 20;

  // A body of n bytes takes up to 5n bytes of heap in a handler.
  private final Budget anonymous = new Budget(2 << 20, 16);
  private final Budget signedIn = new Budget(6 << 20, 40);

  /**
   * Limit of memory and of slow requests for all bodies being read. When it is exhausted, the
   * oldest stalled request is aborted in favour of the new one, so that a few stalled connections
   * do not block all others.
   */
  private static final class Budget {
    final int maxBytes;
    final int maxSlow;
    final AtomicInteger bytes = new AtomicInteger();

    /** Requests whose handler is waiting, or has waited, for more of the body; oldest first. */
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

  /** Request whose body read fails when it exceeds a limit. */
  private final class Limited extends Request.Wrapper {
    /** Callback that wakes the handler while it waits for more of the body; else null. */
    private final AtomicReference<Runnable> waiting = new AtomicReference<>();

    private Budget budget;
    private int unaccounted;

    /** Bytes that count towards the maximum size: for a chunk, at least MIN_CHUNK_COST. */
    private int cost;

    private int heldBytes;
    private boolean hasWaited;
    private Scheduler.Task timeout;
    private HttpException.RuntimeException failure;
    private volatile HttpException.RuntimeException stopped;
    private final Response response;

    Limited(Request request, Response response) {
      super(request);
      this.response = response;
    }

    /**
     * Returns the next chunk, or a failure if a limit is exceeded. Called only by the handler's
     * thread, like {@link #demand}.
     */
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
        return null; // not final: a stop makes Jetty find all connections idle after 1 s
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
     * Accounts for the previously read chunk, which the handler has consumed by now: chunks that
     * are only peeked at before authentication are not counted.
     */
    private void account() {
      if (unaccounted == 0) {
        return;
      }
      cost += getLength() < 0 ? Math.max(unaccounted, MIN_CHUNK_COST) : unaccounted;
      heldBytes += unaccounted;
      int total = budget().bytes.addAndGet(unaccounted);
      unaccounted = 0;
      if (total > budget.maxBytes) {
        budget.giveUpOldest();
      }
      if (total > budget.maxBytes + MAX_EXCESS_BYTES) {
        refuse(HttpStatus.SERVICE_UNAVAILABLE_503);
      } else if (cost > MAX_BODY_BYTES) {
        refuse(HttpStatus.PAYLOAD_TOO_LARGE_413);
      } else if (Deadline.of(this).remaining().isZero()) {
        refuse(HttpStatus.REQUEST_TIMEOUT_408);
      }
    }

    private void refuse(int status) {
      failure = new HttpException.RuntimeException(status);
    }

    /** Registers a slow request: the handler waits because the rest of the body has not arrived. */
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
      }
      waiting.set(available);
      Duration left = Deadline.of(this).remaining();
      if (left.isZero() && stopWaiting(HttpStatus.REQUEST_TIMEOUT_408)) {
        return; // the timeout may have run while the handler was not waiting
      }
      if (timeout == null) {
        timeout =
            getComponents()
                .getScheduler()
                .schedule(
                    () -> stopWaiting(HttpStatus.REQUEST_TIMEOUT_408),
                    left.toNanos(),
                    TimeUnit.NANOSECONDS);
      }
      super.demand(Invocable.from(Invocable.getInvocationType(available), this::onAvailable));
    }

    private void onAvailable() {
      Runnable available = waiting.getAndSet(null);
      if (available != null) {
        available.run();
      }
    }

    /**
     * Aborts a waiting request: wakes its handler, whose next read fails. Only the handler's thread
     * may use Jetty's parser, so the pending demand stays and the connection must be closed.
     *
     * @return false if the handler is not waiting
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
      budget.bytes.addAndGet(-heldBytes);
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
