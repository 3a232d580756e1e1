package com.realmeet.server.http;

import com.realmeet.server.core.LogRateLimiter;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.server.handler.ConditionalHandler;
import org.eclipse.jetty.util.Callback;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Limits the number of handlers that wait until a slow client has read more of a response: each
 * takes a thread. A response that fits into JettyServer's buffer needs none.
 */
final class SlowReaderLimit extends ConditionalHandler.ElseNext {
  private static final Logger log = LoggerFactory.getLogger(SlowReaderLimit.class);

  /** Leaves a third of the threads of an application's routes to other clients. */
  private static final int MAX_WAITING = 40;

  /** Time without any progress after which a client may be given up in favour of others. */
  private static final Duration STALL = Duration.ofSeconds(1);

  /** Requests with a pending write, and when ({@link System#nanoTime}) it began. */
  private final Map<Request, Long> waiting = new ConcurrentHashMap<>();

  /** True while a check is scheduled. */
  private final AtomicBoolean isScheduled = new AtomicBoolean();

  private final LogRateLimiter warnings = new LogRateLimiter();

  @Override
  protected boolean onConditionsMet(Request request, Response response, Callback callback)
      throws Exception {
    try {
      return nextHandler(request, limited(request, response), callback);
    } finally {
      waiting.remove(request); // a write that is still pending takes no thread
    }
  }

  private Response limited(Request request, Response response) {
    return new Response.Wrapper(request, response) {
      @Override
      public void write(boolean last, ByteBuffer content, Callback callback) {
        waiting.put(request, System.nanoTime());
        super.write(last, content, Callback.from(() -> waiting.remove(request), callback));
        checkLater();
      }
    };
  }

  /** Looks again after the time of a stall, and then again, as long as too many wait. */
  private void checkLater() {
    if (waiting.size() > MAX_WAITING && isScheduled.compareAndSet(false, true)) {
      getServer()
          .getScheduler()
          .schedule(this::closeStalled, STALL.toMillis(), TimeUnit.MILLISECONDS);
    }
  }

  /** Closes the connections that have waited longest, as far as there are too many. */
  private void closeStalled() {
    isScheduled.set(false);
    waiting.entrySet().stream()
        .map(each -> Map.entry(each.getKey(), stall(each.getKey(), each.getValue())))
        .sorted(Map.Entry.<Request, Long>comparingByValue().reversed())
        .limit(Math.max(0, waiting.size() - MAX_WAITING))
        .filter(each -> each.getValue() >= STALL.toNanos())
        .forEach(each -> close(each.getKey()));
    checkLater();
  }

  /** Returns the time in nanoseconds in which the client has read nothing. */
  private static long stall(Request request, long beganNanos) {
    long now = System.nanoTime();
    return Math.min(now - beganNanos, now - JettyWorkarounds.lastSentNanos(request));
  }

  private void close(Request request) {
    if (warnings.allows("close")) {
      log.warn("Responses are aborted: more than {} clients do not read theirs", MAX_WAITING);
    }
    JettyWorkarounds.close(request, "the client does not read");
  }
}
