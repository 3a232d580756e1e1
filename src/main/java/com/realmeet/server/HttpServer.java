package com.realmeet.server;

import io.javalin.compression.CompressionStrategy;
import io.javalin.config.JavalinConfig;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import org.eclipse.jetty.http.HttpException;
import org.eclipse.jetty.http.HttpField;
import org.eclipse.jetty.http.HttpMethod;
import org.eclipse.jetty.http.PreEncodedHttpField;
import org.eclipse.jetty.io.AbstractEndPoint;
import org.eclipse.jetty.io.ManagedSelector;
import org.eclipse.jetty.io.SocketChannelEndPoint;
import org.eclipse.jetty.server.HttpConfiguration;
import org.eclipse.jetty.server.HttpConnectionFactory;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.server.handler.EagerContentHandler;
import org.eclipse.jetty.server.handler.EagerContentHandler.RetainedContentLoaderFactory;
import org.eclipse.jetty.server.handler.GracefulHandler;
import org.eclipse.jetty.server.handler.SizeLimitHandler;
import org.eclipse.jetty.util.NanoTime;
import org.eclipse.jetty.util.VirtualThreads;
import org.eclipse.jetty.util.thread.QueuedThreadPool;
import org.eclipse.jetty.util.thread.Scheduler;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** How Jetty is set below the routes: limits, threads, headers of all answers, and a soft stop. */
final class HttpServer {
  private static final Logger log = LoggerFactory.getLogger(HttpServer.class);

  /** Bytes of a request's headers, as in Node. */
  private static final int MAX_HEADERS = 16 << 10;

  private static final int MAX_BODY = 1 << 20;

  /** Bytes that a chunk of a body holds in memory beside its own: a whole input buffer of Jetty. */
  private static final int CHUNK_OVERHEAD = 8 << 10;

  /** Connections that may wait to be accepted: a restart brings all clients at once. */
  private static final int BACKLOG = 1024;

  /** After so long without a request or an answer, a connection is closed. */
  private static final Duration IDLE = Duration.ofSeconds(25);

  /** How long a stop waits for the requests that are under way. */
  static final Duration STOP_WAIT = Duration.ofSeconds(10);

  private static final HttpField NO_SNIFF =
      new PreEncodedHttpField("X-Content-Type-Options", "nosniff");
  private static final HttpField NO_STORE = new PreEncodedHttpField("Cache-Control", "no-store");

  private HttpServer() {}

  /** Applies all this to a Javalin app that is being made. */
  static void configure(JavalinConfig javalin, Config config, Cors cors, Errors errors) {
    javalin.startup.showJavalinBanner = false;
    javalin.startup.showOldJavalinVersionWarning = false;
    javalin.startup.startupWatcherEnabled = false;
    javalin.http.compressionStrategy = CompressionStrategy.NONE; // answers fit into one packet
    javalin.jetty.threadPool = threadPool();
    javalin.jetty.modifyHttpConfiguration(
        http -> {
          http.setRequestHeaderSize(MAX_HEADERS);
          http.addCustomizer(
              (request, headers) -> {
                restartIdleTime(request);
                refuseUnknownMethod(request);
                headers.put(NO_SNIFF).put(NO_STORE);
                cors.addHeaders(request.getHeaders(), headers);
                return request;
              });
        });
    javalin.jetty.addConnector(
        (server, http) -> {
          ServerConnector connector = new PatientConnector(server, http);
          connector.setHost(config.host());
          connector.setPort(config.port());
          connector.setAcceptQueueSize(BACKLOG);
          connector.setIdleTimeout(IDLE.toMillis());
          return connector;
        });
    javalin.jetty.modifyServer(
        server -> {
          server.setErrorHandler(errors.jetty());
          server.setStopTimeout(STOP_WAIT.toMillis());
          server.insertHandler(webhookBodies());
          server.insertHandler(new SizeLimitHandler(MAX_BODY, -1));
          server.insertHandler(new GracefulHandler());
          if (config.environment() == Config.Environment.DEVELOPMENT) {
            server.setRequestLog(HttpServer::logRequest);
          }
        });
    javalin.jetty.modifyServletContextHandler(context -> context.setErrorHandler(errors.jetty()));
  }

  /** Holds a webhook back until its body is here, so that a slow one has no thread wait for it. */
  private static EagerContentHandler webhookBodies() {
    EagerContentHandler handler =
        new EagerContentHandler(
            new RetainedContentLoaderFactory(8 * MAX_BODY, CHUNK_OVERHEAD, true));
    handler.includePath("/api/webhooks/*");
    return handler;
  }

  /** From Java 21 on, requests run on virtual threads. */
  private static QueuedThreadPool threadPool() {
    QueuedThreadPool pool = new QueuedThreadPool();
    pool.setName("http");
    if (VirtualThreads.areSupported()) {
      pool.setVirtualThreadsExecutor(VirtualThreads.getNamedVirtualThreadsExecutor("http-"));
    }
    return pool;
  }

  private static void logRequest(Request request, Response response) {
    log.info(
        "{} {} {} {} ms",
        request.getMethod(),
        request.getHttpURI().getPath(),
        response.getStatus(),
        NanoTime.millisSince(request.getHeadersNanoTime()));
  }

  /** Javalin keeps a list of all methods it ever met, and lets those with odd letters fail. */
  private static void refuseUnknownMethod(Request request) {
    if (HttpMethod.CACHE.get(request.getMethod()) == null) {
      throw new HttpException.RuntimeException(501, "Unknown method");
    }
  }

  private static void restartIdleTime(Request request) {
    if (request.getConnectionMetaData().getConnection().getEndPoint()
        instanceof AbstractEndPoint end) {
      end.notIdle();
    }
  }

  /**
   * Counts a connection as idle while it only receives: one that drips its headers, byte by byte,
   * is closed like a silent one. A request, once its headers are here, and each answer restart the
   * time.
   */
  private static final class PatientConnector extends ServerConnector {
    PatientConnector(Server server, HttpConfiguration http) {
      super(server, new HttpConnectionFactory(http));
    }

    @Override
    protected SocketChannelEndPoint newEndPoint(
        SocketChannel channel, ManagedSelector selector, SelectionKey key) {
      SocketChannelEndPoint endPoint = new EndPoint(channel, selector, key, getScheduler());
      endPoint.setIdleTimeout(getIdleTimeout());
      return endPoint;
    }

    private static final class EndPoint extends SocketChannelEndPoint {
      private boolean filling;

      EndPoint(
          SocketChannel channel, ManagedSelector selector, SelectionKey key, Scheduler scheduler) {
        super(channel, selector, key, scheduler);
      }

      @Override
      public int fill(ByteBuffer buffer) throws IOException {
        filling = true;
        try {
          return super.fill(buffer);
        } finally {
          filling = false;
        }
      }

      @Override
      public void notIdle() {
        if (!filling) {
          super.notIdle();
        }
      }
    }
  }
}
