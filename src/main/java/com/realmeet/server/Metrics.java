package com.realmeet.server;

import io.javalin.config.JavalinConfig;
import io.micrometer.core.instrument.MeterRegistry;
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
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import org.eclipse.jetty.http.HttpFields;
import org.eclipse.jetty.http.HttpHeader;
import org.eclipse.jetty.http.HttpStatus;
import org.eclipse.jetty.server.Handler;
import org.eclipse.jetty.server.HttpConfiguration;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.util.Callback;
import org.eclipse.jetty.util.component.LifeCycle;
import org.eclipse.jetty.util.thread.QueuedThreadPool;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * What the server counts and measures, and the page on which a Prometheus reads it: on a port of
 * its own, since it is not for everybody. Without METRICS_PORT nothing is measured or opened.
 *
 * @see <a href="https://prometheus.io/docs/instrumenting/exposition_formats/">The text format</a>
 */
final class Metrics implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(Metrics.class);

  private static final String CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

  /** One to accept, one to select, some to answer. */
  private static final int THREADS = 6;

  /** After so long without a request or an answer, a connection is closed. */
  private static final Duration IDLE = Duration.ofSeconds(10);

  /** Where the parts of the server keep their meters. */
  final MeterRegistry meters;

  private final boolean shown;
  private final Runnable stop;

  private Metrics(MeterRegistry meters, boolean shown, Runnable stop) {
    this.meters = meters;
    this.shown = shown;
    this.stop = stop;
  }

  /** Meters that measure nothing. */
  static MeterRegistry none() {
    return new CompositeMeterRegistry();
  }

  /**
   * Begins to measure, and listens on METRICS_PORT, if that is set.
   *
   * @throws StartFailure if another has the port
   */
  static Metrics start(Config config) {
    if (config.metricsPort() == null) {
      return new Metrics(none(), false, () -> {});
    }
    PrometheusMeterRegistry meters = new PrometheusMeterRegistry(PrometheusConfig.DEFAULT);
    Server server = new Server(new QueuedThreadPool(THREADS, 1));
    ServerConnector connector = connector(server, config);
    server.addConnector(connector);
    server.setHandler(new Page(meters));
    server.setErrorHandler(Metrics::answerEmpty);
    try {
      connector.open();
    } catch (IOException e) {
      throw HttpServer.cannotListen(config.host(), config.metricsPort(), "METRICS_PORT", e);
    }
    LifeCycle.start(server);
    log.info(
        "Metrics on http://{}/metrics", Config.authority(config.host(), connector.getLocalPort()));
    JvmGcMetrics collections = measureJvm(meters);
    return new Metrics(
        meters,
        true,
        () -> {
          LifeCycle.stop(server);
          collections.close();
        });
  }

  private static ServerConnector connector(Server server, Config config) {
    HttpConfiguration http = new HttpConfiguration();
    http.setSendServerVersion(false);
    ServerConnector connector = new HttpServer.Connector(server, http);
    connector.setHost(config.host());
    connector.setPort(config.metricsPort());
    connector.setIdleTimeout(IDLE.toMillis());
    return connector;
  }

  /** What is returned listens to the JVM until it is closed. */
  private static JvmGcMetrics measureJvm(MeterRegistry meters) {
    new JvmMemoryMetrics().bindTo(meters);
    new JvmThreadMetrics().bindTo(meters);
    new UptimeMetrics().bindTo(meters);
    new ProcessorMetrics().bindTo(meters);
    new FileDescriptorMetrics().bindTo(meters);
    JvmGcMetrics collections = new JvmGcMetrics();
    collections.bindTo(meters);
    return collections;
  }

  /** Measures the requests of an app; to be called before its routes are declared. */
  void observe(JavalinConfig javalin) {
    if (shown) {
      new RequestTimes(meters).observe(javalin);
    }
  }

  private static boolean answerEmpty(Request request, Response response, Callback callback) {
    callback.succeeded();
    return true;
  }

  private static final class Page extends Handler.Abstract {
    private final PrometheusMeterRegistry meters;

    Page(PrometheusMeterRegistry meters) {
      this.meters = meters;
    }

    @Override
    public boolean handle(Request request, Response response, Callback callback) {
      HttpFields.Mutable headers = response.getHeaders();
      headers.put(HttpFields.CONNECTION_CLOSE); // else one might go idle just as it is used again
      if (!"/metrics".equals(request.getHttpURI().getPath())) {
        response.setStatus(HttpStatus.NOT_FOUND_404);
        callback.succeeded();
        return true;
      }
      headers.put(HttpHeader.CONTENT_TYPE, CONTENT_TYPE);
      byte[] text = meters.scrape(CONTENT_TYPE).getBytes(StandardCharsets.UTF_8);
      response.write(true, ByteBuffer.wrap(text), callback);
      return true;
    }
  }

  /** Stops listening and measuring. */
  @Override
  public void close() {
    stop.run();
    meters.close();
  }
}
