package com.realmeet.server.http;

import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.StartupException;
import com.realmeet.server.core.Threads;
import io.javalin.compression.CompressionStrategy;
import io.javalin.config.JavalinConfig;
import java.io.IOException;
import java.net.BindException;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.time.Duration;
import java.util.List;
import org.eclipse.jetty.http.HttpException;
import org.eclipse.jetty.http.HttpField;
import org.eclipse.jetty.http.HttpFields;
import org.eclipse.jetty.http.HttpHeader;
import org.eclipse.jetty.http.HttpVersion;
import org.eclipse.jetty.http.PreEncodedHttpField;
import org.eclipse.jetty.server.CustomRequestLog;
import org.eclipse.jetty.server.Handler;
import org.eclipse.jetty.server.HttpConfiguration;
import org.eclipse.jetty.server.LowResourceMonitor;
import org.eclipse.jetty.server.NetworkConnectionLimit;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.server.Slf4jRequestLogWriter;
import org.eclipse.jetty.server.handler.ConditionalHandler;
import org.eclipse.jetty.server.handler.GracefulHandler;
import org.eclipse.jetty.server.handler.QoSHandler;
import org.eclipse.jetty.util.VirtualThreads;
import org.eclipse.jetty.util.thread.QueuedThreadPool;

/**
 * Configures Jetty below the routes: threads, limits, headers of all responses, and the graceful
 * shutdown.
 */
public final class JettyServer {
  /** Bytes of a request's headers, as in Node. */
  private static final int MAX_HEADER_BYTES = 16 << 10;

  /**
   * Bytes of a response that are buffered. A response that fits is written without a thread, so
   * that clients which do not read it hold none.
   */
  private static final int RESPONSE_BUFFER_BYTES = 64 << 10;

  /** Connections that may wait to be accepted: a restart brings all clients at once. */
  private static final int BACKLOG = 1024;

  /** Platform threads, where there are no virtual ones (Java 17): handlers may block. */
  private static final int MAX_THREADS = 200;

  /**
   * Requests of the server's own routes that are handled at once; up to 112 of them may wait for
   * Clerk, see {@code ClerkApi}. With virtual threads, a request costs little more than itself.
   */
  private static final int MAX_OWN_REQUESTS = Threads.areVirtual() ? 1000 : 130;

  /**
   * Requests of an application's routes that are handled at once. The rest of the threads is for
   * health and readiness, and for Jetty itself.
   */
  private static final int MAX_APPLICATION_REQUESTS = Threads.areVirtual() ? 1000 : 60;

  /** Routes of the server's own that may wait for Clerk or the database. */
  private static final List<String> OWN_PATHS = List.of("/api/user/*", "/api/webhooks/*");

  /** Requests that wait for their turn, without a thread; more get 503 at once. */
  private static final int MAX_SUSPENDED_REQUESTS = 4000;

  /**
   * Bytes of the heap for each connection: 4096 of them with -Xmx128m. One that has sent the
   * beginning of a request takes half of it.
   */
  private static final int CONNECTION_BYTES = 32 << 10;

  /** How long a graceful shutdown waits for the requests that are under way. */
  public static final Duration STOP_TIMEOUT = Duration.ofSeconds(10);

  private static final HttpField NO_SNIFF =
      new PreEncodedHttpField("X-Content-Type-Options", "nosniff");
  private static final HttpField NO_STORE = new PreEncodedHttpField("Cache-Control", "no-store");

  private JettyServer() {}

  /**
   * For before anything is changed: a second server on the same port is the usual mistake.
   *
   * @param setting the name of the variable that chose it
   * @throws StartupException if another has the port
   */
  public static void requireFreePort(String host, int port, String setting) {
    try (ServerSocket probe = new ServerSocket()) {
      probe.setReuseAddress(true); // as the server does, to ignore connections in TIME_WAIT
      probe.bind(new InetSocketAddress(host, port));
    } catch (IOException e) {
      throw cannotListen(host, port, setting, e);
    }
  }

  /**
   * Says why a port cannot be had.
   *
   * @param setting the name of the variable that chose it
   */
  public static StartupException cannotListen(String host, int port, String setting, Exception e) {
    return new StartupException(
        "Cannot listen on %s, see %s and HOST: %s"
            .formatted(authority(host, port), setting, reason(e)));
  }

  /** Jetty's own message repeats the address. */
  private static String reason(Exception e) {
    return e.getCause() instanceof BindException cause ? cause.getMessage() : e.getMessage();
  }

  /** A host and a port as they stand in a URL: an IPv6 address in brackets (RFC 3986 §3.2.2). */
  public static String authority(String host, int port) {
    boolean bare = host.contains(":") && !host.startsWith("[");
    return (bare ? "[" + host + "]" : host) + ":" + port;
  }

  /** Applies all this to a Javalin app that is being made. */
  public static void configure(
      JavalinConfig javalin, String host, int port, boolean development, Cors cors, Errors errors) {
    JettyWorkarounds.SerializedFirstRequest firstRequest =
        new JettyWorkarounds.SerializedFirstRequest();
    javalin.routes.before(firstRequest::onPrepared);
    javalin.startup.showJavalinBanner = false;
    javalin.startup.showOldJavalinVersionWarning = false;
    javalin.startup.startupWatcherEnabled = false;
    javalin.http.compressionStrategy = CompressionStrategy.NONE; // responses fit into one packet
    javalin.http.responseBufferSize = 2048; // allocated anew for each response
    javalin.http.maxRequestSize = Long.MAX_VALUE; // RequestBodyLimits has the limit
    javalin.jetty.threadPool = threadPool();
    javalin.jetty.modifyHttpConfiguration(http -> configure(http, cors));
    javalin.jetty.addConnector(
        (server, http) -> {
          ServerConnector connector = JettyWorkarounds.connector(server, http);
          connector.setHost(host);
          connector.setPort(port);
          connector.setAcceptQueueSize(BACKLOG);
          if (development) {
            connector.setShutdownIdleTimeout(10); // ms: a reload does not wait for browsers
          }
          return connector;
        });
    javalin.jetty.modifyServer(
        server -> {
          server.setErrorHandler(errors.jetty());
          server.setStopTimeout(STOP_TIMEOUT.toMillis());
          server.removeBean(server.getBean(LowResourceMonitor.class));
          server.addBean(connectionLimit(server));
          server.setHandler(handlers(firstRequest));
          if (development) {
            Slf4jRequestLogWriter requestLog = new Slf4jRequestLogWriter();
            requestLog.setLoggerName("RequestLog");
            server.setRequestLog(new CustomRequestLog(requestLog, "%m %U %s %{ms}T ms"));
          }
        });
    javalin.jetty.modifyServletContextHandler(
        context -> {
          context.setErrorHandler(errors.jetty());
          context.setSessionHandler(new JettyWorkarounds.NoSessions());
        });
  }

  private static void configure(HttpConfiguration http, Cors cors) {
    JettyWorkarounds.configure(http, MAX_HEADER_BYTES);
    http.setOutputBufferSize(RESPONSE_BUFFER_BYTES);
    http.setOutputAggregationSize(RESPONSE_BUFFER_BYTES);
    http.addCustomizer(
        (request, headers) -> {
          JettyWorkarounds.onHeaders(request);
          refuseLargeHead(request);
          addHeaders(cors, request.getHeaders(), headers);
          closeFaultyFraming(request, headers);
          return JettyWorkarounds.withPlainMethod(request);
        });
  }

  /** The way of a request, from the first handler to Javalin's. */
  private static Handler.Singleton handlers(Handler.Singleton last) {
    ConditionalHandler.SkipNext readinessEvenWhileStopping = new ConditionalHandler.SkipNext();
    readinessEvenWhileStopping.includePath("/api/ready"); // it has a body of its own for that
    // A request passes one of the two bulkheads: slow routes of an application do not delay sync.
    QoSHandler own = bulkhead(MAX_OWN_REQUESTS);
    OWN_PATHS.forEach(own::includePath);
    QoSHandler others = bulkhead(MAX_APPLICATION_REQUESTS);
    OWN_PATHS.forEach(others::excludePath);
    others.excludePath("/api/health");
    others.excludePath("/api/ready");
    Handler.Singleton[] chain = {
      readinessEvenWhileStopping, new GracefulHandler(), own, others, new RequestBodyLimits(), last
    };
    for (int i = 1; i < chain.length; i++) {
      chain[i - 1].setHandler(chain[i]);
    }
    return chain[0];
  }

  /** Beyond it, idle connections are closed soon, and new ones wait until others have ended. */
  private static NetworkConnectionLimit connectionLimit(Server server) {
    long max = Runtime.getRuntime().maxMemory() / CONNECTION_BYTES;
    NetworkConnectionLimit limit =
        new NetworkConnectionLimit((int) Math.min(max, Integer.MAX_VALUE), server);
    limit.setEndPointIdleTimeout(Duration.ofSeconds(1).toMillis());
    return limit;
  }

  /** Keeps threads free for health checks, whatever the other requests wait for. */
  private static QoSHandler bulkhead(int maxRequests) {
    QoSHandler bulkhead = new QoSHandler();
    bulkhead.setMaxRequestCount(maxRequests);
    bulkhead.setMaxSuspendedRequestCount(MAX_SUSPENDED_REQUESTS);
    bulkhead.setMaxSuspend(Deadline.REQUEST_TIMEOUT);
    return bulkhead;
  }

  private static QueuedThreadPool threadPool() {
    QueuedThreadPool pool = new QueuedThreadPool(MAX_THREADS);
    pool.setName("http");
    pool.setReservedThreads(0); // with them, each request wakes one more thread
    if (Threads.areVirtual()) {
      pool.setVirtualThreadsExecutor(VirtualThreads.getNamedVirtualThreadsExecutor("http-"));
    }
    return pool;
  }

  /** Adds what every response carries. */
  static void addHeaders(Cors cors, HttpFields request, HttpFields.Mutable response) {
    response.put(NO_SNIFF).put(NO_STORE);
    cors.addHeaders(request, response);
  }

  private static void refuseLargeHead(Request request) {
    if (request.getHttpURI().asString().length() > MAX_HEADER_BYTES) {
      throw new HttpException.RuntimeException(414);
    }
    int length = 0;
    for (HttpField header : request.getHeaders()) {
      length += length(header);
    }
    if (length > MAX_HEADER_BYTES) {
      throw new HttpException.RuntimeException(431);
    }
  }

  private static int length(HttpField header) {
    return header.getName().length() + String.valueOf(header.getValue()).length() + 4; // ": \r\n"
  }

  /** HTTP/1.0 has no chunks: its connection must not be used again (RFC 9112 §6.1). */
  private static void closeFaultyFraming(Request request, HttpFields.Mutable response) {
    if (request.getConnectionMetaData().getHttpVersion() == HttpVersion.HTTP_1_0
        && request.getHeaders().contains(HttpHeader.TRANSFER_ENCODING)) {
      response.put(HttpFields.CONNECTION_CLOSE);
    }
  }
}
