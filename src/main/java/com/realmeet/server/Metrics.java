package com.realmeet.server;

import com.realmeet.server.core.Threads;
import com.realmeet.server.http.JettyServer;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import io.javalin.config.JavalinConfig;
import io.javalin.http.Context;
import io.javalin.router.Endpoint;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Timer;
import io.micrometer.core.instrument.binder.jvm.JvmGcMetrics;
import io.micrometer.core.instrument.binder.jvm.JvmMemoryMetrics;
import io.micrometer.core.instrument.binder.jvm.JvmThreadMetrics;
import io.micrometer.core.instrument.binder.system.FileDescriptorMetrics;
import io.micrometer.core.instrument.binder.system.ProcessorMetrics;
import io.micrometer.core.instrument.binder.system.UptimeMetrics;
import io.micrometer.core.instrument.composite.CompositeMeterRegistry;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import java.util.stream.LongStream;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.RequestLog;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.util.NanoTime;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Measures requests and the JVM, and serves the page that Prometheus scrapes. It has its own port,
 * since metrics are not public. Without METRICS_PORT nothing is measured and no port is opened.
 *
 * @see <a href="https://prometheus.io/docs/instrumenting/exposition_formats/">The text format</a>
 */
public final class Metrics implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(Metrics.class);

  private static final String CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

  /**
   * Label of all paths without a route: clients can invent any number of them, and each label costs
   * memory.
   */
  private static final String OTHER = "other";

  private static final String ROUTE_ATTRIBUTE = "route";

  /** Histogram buckets, up to the 5 s in which a request ends. */
  private static final Duration[] BUCKETS =
      LongStream.of(5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)
          .mapToObj(Duration::ofMillis)
          .toArray(Duration[]::new);

  /** Registry to which the parts of the server add their metrics. */
  final MeterRegistry meters;

  private final Runnable stop;

  private Metrics(MeterRegistry meters, Runnable stop) {
    this.meters = meters;
    this.stop = stop;
  }

  /** Returns a registry that discards all measurements. */
  public static MeterRegistry noMeters() {
    return new CompositeMeterRegistry();
  }

  /**
   * Starts measuring, and listens on METRICS_PORT if that is set.
   *
   * @throws StartupException if another process has the port
   */
  static Metrics start(Config config) {
    if (config.metricsPort() == null) {
      return new Metrics(noMeters(), () -> {});
    }
    PrometheusMeterRegistry meters = new PrometheusMeterRegistry(PrometheusConfig.DEFAULT);
    HttpServer server = listen(config);
    ExecutorService threads = Executors.newCachedThreadPool(Threads.named("metrics"));
    server.setExecutor(threads);
    server.createContext("/", exchange -> respond(exchange, meters));
    server.start();
    int port = server.getAddress().getPort();
    log.info("Metrics on http://{}/metrics", JettyServer.authority(config.host(), port));
    JvmGcMetrics gcMetrics = measureJvm(meters);
    return new Metrics(
        meters,
        () -> {
          server.stop(0);
          threads.shutdownNow();
          gcMetrics.close();
        });
  }

  private static HttpServer listen(Config config) {
    try {
      return HttpServer.create(new InetSocketAddress(config.host(), config.metricsPort()), 0);
    } catch (IOException e) {
      throw JettyServer.cannotListen(config.host(), config.metricsPort(), "METRICS_PORT", e);
    }
  }

  private static void respond(HttpExchange exchange, PrometheusMeterRegistry meters)
      throws IOException {
    try (exchange) {
      exchange
          .getResponseHeaders()
          .set("Connection", "close"); // Prometheus scrapes about once a minute
      if (!exchange.getRequestURI().getPath().equals("/metrics")) {
        exchange.sendResponseHeaders(404, -1);
        return;
      }
      byte[] page = meters.scrape(CONTENT_TYPE).getBytes(StandardCharsets.UTF_8);
      exchange.getResponseHeaders().set("Content-Type", CONTENT_TYPE);
      exchange.sendResponseHeaders(200, page.length);
      exchange.getResponseBody().write(page);
    }
  }

  /**
   * Registers the metrics of the JVM; the returned one receives garbage collection events until it
   * is closed.
   */
  private static JvmGcMetrics measureJvm(MeterRegistry meters) {
    new JvmMemoryMetrics().bindTo(meters);
    new JvmThreadMetrics().bindTo(meters);
    new UptimeMetrics().bindTo(meters);
    new ProcessorMetrics().bindTo(meters);
    new FileDescriptorMetrics().bindTo(meters);
    JvmGcMetrics gcMetrics = new JvmGcMetrics();
    gcMetrics.bindTo(meters);
    return gcMetrics;
  }

  /** Measures the requests of an app. Must be called before its routes are declared. */
  void observe(JavalinConfig javalin) {
    if (!(meters instanceof PrometheusMeterRegistry)) {
      return;
    }
    RequestTimes times = new RequestTimes(meters);
    javalin.events.handlerAdded(
        handler -> {
          if (handler.getHttpMethod().isHttpMethod()) {
            times.addRoute(handler.getPath());
          }
        });
    javalin.routes.beforeMatched(Metrics::storeRoute);
    javalin.jetty.modifyServer(
        server -> {
          RequestLog other = server.getRequestLog();
          if (other != null) {
            server.addBean(other); // else the server, whose request log it no longer is, ends it
          }
          server.setRequestLog(other == null ? times : new RequestLog.Collection(other, times));
        });
  }

  private static void storeRoute(Context ctx) {
    Endpoint matched = ctx.endpoints().matchedHttpEndpoint();
    if (matched != null) { // else it is a static file
      ctx.attribute(ROUTE_ATTRIBUTE, matched.path);
    }
  }

  /**
   * Measures the time from the headers of a request to the end of its response, by route pattern
   * and status. It is a Jetty request log because Jetty itself responds to some requests.
   */
  private static final class RequestTimes implements RequestLog {
    private final MeterRegistry meters;

    /** Timers by route and status: the registry's lookup takes longer than the measurement. */
    private final Map<String, Timer> timers = new ConcurrentHashMap<>();

    /** Pattern of the paths that a route matches, by route. */
    private final Map<String, Pattern> patterns = new HashMap<>();

    RequestTimes(MeterRegistry meters) {
      this.meters = meters;
    }

    /** Adds a route, whose parameters are {@code {name}}, or {@code <name>} with slashes. */
    void addRoute(String path) {
      String quoted = "\\Q" + path + "\\E";
      patterns.put(
          path,
          Pattern.compile(
              quoted
                  .replaceAll("\\{[^}]*}", "\\\\E[^/]+\\\\Q")
                  .replaceAll("<[^>]*>", "\\\\E.+\\\\Q")));
    }

    @Override
    public void log(Request request, Response response) {
      long nanos = NanoTime.since(request.getHeadersNanoTime());
      String route = route(request);
      String status = String.valueOf(response.getStatus());
      timers
          .computeIfAbsent(status + route, key -> timer(route, status))
          .record(nanos, TimeUnit.NANOSECONDS);
    }

    /** Returns the matched route; if only the method did not match, a route with this path. */
    private String route(Request request) {
      if (request.getAttribute(ROUTE_ATTRIBUTE) instanceof String matched) {
        return matched;
      }
      String path = String.valueOf(request.getHttpURI().getPath()).replaceFirst("(?<=.)/$", "");
      return patterns.entrySet().stream()
          .filter(pattern -> pattern.getValue().matcher(path).matches())
          .map(Map.Entry::getKey)
          .findFirst()
          .orElse(OTHER);
    }

    private Timer timer(String route, String status) {
      return Timer.builder("http.server.requests")
          .description("Time from a request's headers to the end of its response")
          .tag("route", route)
          .tag("status", status)
          .serviceLevelObjectives(BUCKETS)
          .register(meters);
    }
  }

  /** Stops listening and measuring. */
  @Override
  public void close() {
    stop.run();
    meters.close();
  }
}
