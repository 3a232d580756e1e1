package com.realmeet.server;

import io.javalin.config.JavalinConfig;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Timer;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReferenceArray;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.RequestLog;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.util.NanoTime;

/**
 * How long requests take, from their headers to the end of the answer, by route and status: also
 * those that Jetty answers itself. Whatever path is no route's counts as "other", since anybody may
 * make up any number of paths.
 */
final class RequestTimes implements RequestLog {
  private static final String OTHER = "other";

  /** A request ends in 5 s. */
  private static final Duration[] BUCKETS = {
    Duration.ofMillis(5),
    Duration.ofMillis(10),
    Duration.ofMillis(25),
    Duration.ofMillis(50),
    Duration.ofMillis(100),
    Duration.ofMillis(250),
    Duration.ofMillis(500),
    Duration.ofSeconds(1),
    Duration.ofMillis(2500),
    Duration.ofSeconds(5)
  };

  private final MeterRegistry meters;

  /** By path, then by status. To look a timer up by its labels would take longer than to use it. */
  private final Map<String, AtomicReferenceArray<Timer>> timers = new HashMap<>();

  RequestTimes(MeterRegistry meters) {
    this.meters = meters;
    addRoute(OTHER);
  }

  /** Measures the requests of an app; to be called before its routes are declared. */
  void observe(JavalinConfig javalin) {
    javalin.events.handlerAdded(
        handler -> {
          if (handler.getHttpMethod().isHttpMethod()) {
            addRoute(handler.getPath());
          }
        });
    javalin.jetty.modifyServer(
        server -> {
          RequestLog other = server.getRequestLog();
          server.setRequestLog(other == null ? this : new RequestLog.Collection(other, this));
        });
  }

  private void addRoute(String path) {
    timers.putIfAbsent(path, new AtomicReferenceArray<>(600));
  }

  @Override
  public void log(Request request, Response response) {
    long nanos = NanoTime.since(request.getHeadersNanoTime());
    String route = route(request.getHttpURI().getPath());
    int status = response.getStatus();
    Timer timer = timers.get(route).get(status);
    if (timer == null) {
      timer = timer(route, status);
      timers.get(route).set(status, timer);
    }
    timer.record(nanos, TimeUnit.NANOSECONDS);
  }

  /** Javalin's routes have no parameters here, and one slash more at the end. */
  private String route(String path) {
    if (path == null || timers.containsKey(path)) {
      return path == null ? OTHER : path;
    }
    String shorter = path.endsWith("/") ? path.substring(0, path.length() - 1) : path;
    return timers.containsKey(shorter) ? shorter : OTHER;
  }

  private Timer timer(String route, int status) {
    return Timer.builder("http.server.requests")
        .description("Time from a request's headers to the end of its answer")
        .tag("route", route)
        .tag("status", String.valueOf(status))
        .serviceLevelObjectives(BUCKETS)
        .register(meters);
  }
}
