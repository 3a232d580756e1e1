package com.realmeet.server.core;

import io.javalin.http.Context;
import java.time.Duration;
import org.eclipse.jetty.ee10.servlet.ServletContextRequest;
import org.eclipse.jetty.server.Request;

/**
 * Point in time until which a caller waits. It is passed down through all calls of a request, so
 * that their timeouts cannot add up (as gRPC's deadline).
 *
 * @param nanoTime that point, on the clock of {@link System#nanoTime}
 */
public record Deadline(long nanoTime) {
  /**
   * Time that a request may spend waiting, counted from its headers; also the limit of a database
   * call without a request. A response is due within 5 s: the rest is for writing it.
   */
  public static final Duration REQUEST_TIMEOUT = Duration.ofMillis(4500);

  private static final ThreadLocal<Deadline> CURRENT = new ThreadLocal<>();

  /**
   * Returns the deadline of the request that this thread handles; {@link #REQUEST_TIMEOUT} from now
   * if there is none.
   */
  public static Deadline current() {
    Deadline ofRequest = CURRENT.get();
    return ofRequest == null ? in(REQUEST_TIMEOUT) : ofRequest;
  }

  /**
   * Sets what {@link #current} returns in this thread.
   *
   * @param deadline null for none
   */
  public static void setCurrent(Deadline deadline) {
    CURRENT.set(deadline);
  }

  /** Returns the deadline of a request. */
  public static Deadline of(Context ctx) {
    return of(ServletContextRequest.getServletContextRequest(ctx.req()));
  }

  /** Returns the deadline of a request on the level of Jetty, where there is no Javalin context. */
  public static Deadline of(Request request) {
    return new Deadline(request.getHeadersNanoTime() + REQUEST_TIMEOUT.toNanos());
  }

  /** Returns the deadline that is {@code time} from now. */
  public static Deadline in(Duration time) {
    return new Deadline(System.nanoTime() + time.toNanos());
  }

  /** Returns the later one of two deadlines. */
  public static Deadline later(Deadline a, Deadline b) {
    return a.nanoTime - b.nanoTime > 0 ? a : b;
  }

  /** Returns the earlier one of two deadlines. */
  public static Deadline earlier(Deadline a, Deadline b) {
    return later(a, b) == a ? b : a;
  }

  /** Returns a deadline that is earlier by {@code time}. */
  public Deadline minus(Duration time) {
    return new Deadline(nanoTime - time.toNanos());
  }

  /** Returns the time that remains; zero if the deadline has passed. */
  public Duration remaining() {
    return Duration.ofNanos(Math.max(0, nanoTime - System.nanoTime()));
  }
}
