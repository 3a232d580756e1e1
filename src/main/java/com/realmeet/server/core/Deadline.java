package com.realmeet.server.core;

import io.javalin.http.Context;
import java.time.Duration;
import org.eclipse.jetty.ee10.servlet.ServletContextRequest;
import org.eclipse.jetty.server.Request;

/**
 * The moment until which somebody is willing to wait.
 *
 * @param nanoTime on the clock of {@link System#nanoTime}
 */
public record Deadline(long nanoTime) {
  /**
   * For all that a request waits for, from its headers on. The rest of the 5 s in which it is
   * answered is for writing the response.
   */
  public static final Duration REQUEST_TIMEOUT = Duration.ofMillis(4500);

  /** The deadline of a request. */
  public static Deadline of(Context ctx) {
    return of(ServletContextRequest.getServletContextRequest(ctx.req()));
  }

  /** Like {@link #of(Context)}, below Javalin. */
  public static Deadline of(Request request) {
    return new Deadline(request.getHeadersNanoTime() + REQUEST_TIMEOUT.toNanos());
  }

  public static Deadline in(Duration time) {
    return new Deadline(System.nanoTime() + time.toNanos());
  }

  public Deadline minus(Duration time) {
    return new Deadline(nanoTime - time.toNanos());
  }

  /** What is left, never negative. */
  public Duration remaining() {
    return Duration.ofNanos(Math.max(0, nanoTime - System.nanoTime()));
  }
}
