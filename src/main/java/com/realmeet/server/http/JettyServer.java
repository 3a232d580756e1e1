package com.realmeet.server.http;

import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.RequestId;
import com.realmeet.server.core.StartupException;
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
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.server.Slf4jRequestLogWriter;
import org.eclipse.jetty.server.handler.ConditionalHandler;
import org.eclipse.jetty.server.handler.GracefulHandler;
import org.eclipse.jetty.server.handler.QoSHandler;
import org.eclipse.jetty.util.Callback;
import org.eclipse.jetty.util.VirtualThreads;
import org.eclipse.jetty.util.thread.QueuedThreadPool;

/**
 * Configures Jetty below the routes: threads, limits, headers of all responses, and the graceful
 * shutdown.
 */
public final class JettyServer {
  /**
   * Maximum size of a request's URL and of its headers, 16 KB each; Node limits headers to the
   * same.
   */
  private static final int MAX_HEADER_BYTES = 16 << 10;

  /**
   * Buffer of a response. A response that fits is written asynchronously, so that a client which
   * does not read it occupies no thread.
   */
  static final int RESPONSE_BUFFER_BYTES = 64 << 10;

  /** TCP backlog: after a restart all clients connect at once. */
  private static final int BACKLOG = 1024;

  /**
   * Maximum number of Jetty's platform threads. Before Java 24 all handlers run on them: those of
   * 125 own routes and 60 others, up to five of Jetty, eight that wait for readiness, and health.
   * Since Java 24, own routes run on virtual threads, for which neither {@link #MAX_OWN_REQUESTS}
   * nor the limits for platform threads of ClerkApi and SingleFlight hold.
   */
  private static final int MAX_THREADS = 200;

  /**
   * Maximum number of the threads above that only wait for input. Jetty would take one for every
   * two processors, and with many of them leave none to health and readiness.
   */
  private static final int MAX_SELECTORS = 4;

  /**
   * Whether the server's own routes, health and readiness run on virtual threads, which serve a
   * fifth more known users at full load. Before Java 24, a virtual thread that waits for a monitor
   * blocks the platform thread that carries it.
   */
  private static final boolean USES_VIRTUAL_THREADS = Runtime.version().feature() >= 24;

  /**
   * Concurrency limit of the server's own routes on platform threads. While Clerk hangs, up to 32
   * calls, 32 refreshes that wait for the end of one, and 60 requests that share one take a thread
   * for long; 80 that wait for a call take one for 0.5 s, until the outage is known (see ClerkApi,
   * SingleFlight).
   */
  private static final int MAX_OWN_REQUESTS = 125;

  /**
   * Concurrency limit of all other routes but health and readiness: those of an application, the
   * API document, and unknown paths.
   */
  private static final int MAX_APPLICATION_REQUESTS = 60;

  /** The server's own routes that may wait for Clerk or the database. */
  private static final List<String> OWN_PATHS =
      List.of("/api/user/sync", "/api/user/refresh", "/api/webhooks/clerk");

  /**
   * Maximum requests per bulkhead that are queued, without a thread; further ones get 503 at once.
   */
  private static final int MAX_SUSPENDED_REQUESTS = 4000;

  /**
   * Heap per connection, which limits their number: 2048 with -Xmx128m. One with a head of 8 KB
   * takes about half of it; buffers outside of the heap come in addition.
   */
  private static final int CONNECTION_BYTES = 64 << 10;

  /** Graceful shutdown timeout: how long a stop waits for requests in flight. */
  public static final Duration STOP_TIMEOUT = Duration.ofSeconds(10);

  private static final HttpField NO_SNIFF =
      new PreEncodedHttpField("X-Content-Type-Options", "nosniff");
  private static final HttpField NO_STORE = new PreEncodedHttpField("Cache-Control", "no-store");

  private JettyServer() {}

  /**
   * Checks that a port is free. Called before the start changes anything, since a second server on
   * the same port is a common mistake.
   *
   * @param setting name of the variable that sets the port
   * @throws StartupException if another process has the port
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
   * Returns an exception that explains why the server cannot listen on a port.
   *
   * @param setting name of the variable that sets the port
   */
  public static StartupException cannotListen(String host, int port, String setting, Exception e) {
    return new StartupException(
        "Cannot listen on %s, see %s and HOST: %s"
            .formatted(authority(host, port), setting, reason(e)));
  }

  /** Returns the cause's message, since Jetty's own repeats the address. */
  private static String reason(Exception e) {
    return e.getCause() instanceof BindException cause ? cause.getMessage() : e.getMessage();
  }

  /**
   * Returns a host and a port in the form of a URL, an IPv6 address in brackets (RFC 3986 §3.2.2).
   */
  public static String authority(String host, int port) {
    boolean bare = host.contains(":") && !host.startsWith("[");
    return (bare ? "[" + host + "]" : host) + ":" + port;
  }

  /**
   * Configures Jetty within a Javalin app.
   *
   * @param development true to log requests and to stop without waiting for idle connections
   */
  public static void configure(
      JavalinConfig javalin, String host, int port, boolean development, Cors cors, Errors errors) {
    javalin.startup.showJavalinBanner = false;
    javalin.startup.showOldJavalinVersionWarning = false;
    javalin.startup.startupWatcherEnabled = false;
    javalin.http.compressionStrategy = CompressionStrategy.NONE; // a user fits into one packet
    javalin.http.responseBufferSize = 2048; // Javalin's own, allocated anew for each response
    javalin.http.maxRequestSize = Long.MAX_VALUE; // RequestBodyLimits has the limit
    javalin.http.asyncTimeout = Deadline.REQUEST_TIMEOUT.toMillis(); // of a handler's future
    javalin.routes.after(Cors::keepVary);
    javalin.jetty.threadPool = threadPool();
    javalin.jetty.modifyHttpConfiguration(http -> configure(http, cors));
    javalin.jetty.addConnector(
        (server, http) -> {
          int processors = Runtime.getRuntime().availableProcessors();
          int selectors = Math.min(MAX_SELECTORS, Math.max(1, processors / 2));
          ServerConnector connector = JettyWorkarounds.connector(server, selectors, http);
          connector.setHost(host);
          connector.setPort(port);
          connector.setAcceptQueueSize(BACKLOG);
          if (development) {
            connector.setShutdownIdleTimeout(
                10); // ms: a reload does not wait for idle connections of browsers
          }
          return connector;
        });
    javalin.jetty.modifyServer(
        server -> {
          server.setErrorHandler(errors.jetty());
          server.setStopTimeout(STOP_TIMEOUT.toMillis());
          server.removeBean(server.getBean(LowResourceMonitor.class));
          server.addBean(connectionLimit(server));
          server.setHandler(handlers());
          if (development) {
            Slf4jRequestLogWriter requestLog = new Slf4jRequestLogWriter();
            requestLog.setLoggerName("RequestLog");
            server.setRequestLog(
                new CustomRequestLog(
                    requestLog, "%m %U %s %{ms}T ms %{" + RequestId.HEADER + "}o"));
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
    http.setUseOutputDirectByteBuffers(false); // those of many slow readers would fragment malloc's
    http.addCustomizer(
        (request, headers) -> {
          JettyWorkarounds.onHeaders(request, headers);
          refuseLargeHead(request);
          addHeaders(cors, request.getHeaders(), headers);
          closeFaultyFraming(request, headers);
          return JettyWorkarounds.plain(request);
        });
  }

  /** Returns the chain of handlers that a request passes before Javalin's. */
  private static Handler.Singleton handlers() {
    ConditionalHandler.SkipNext readinessEvenWhileStopping = new ConditionalHandler.SkipNext();
    readinessEvenWhileStopping.includePath("/api/ready"); // readiness responds with its own body
    // Each request passes at most one of the two bulkheads, so slow routes of an application do not
    // delay sync.
    QoSHandler own = bulkhead(MAX_OWN_REQUESTS);
    OWN_PATHS.forEach(path -> own.includePath(path, path + "/"));
    // Virtual threads need no limit but that of the connections. It still matters then: after a
    // response that another thread has completed, Jetty runs the next requests of the connection on
    // platform threads.
    own.exclude(request -> VirtualThreads.isVirtualThread());
    Handler.Singleton[] chain = {
      readinessEvenWhileStopping,
      new GracefulHandler(),
      own,
      ofApplication(new OnPlatformThread()),
      ofApplication(bulkhead(MAX_APPLICATION_REQUESTS)),
      ofApplication(new OnPlatformThread()), // QoSHandler resumes requests on virtual threads
      new RequestBodyLimits(),
      new WithDeadline()
    };
    for (int i = 1; i < chain.length; i++) {
      chain[i - 1].setHandler(chain[i]);
    }
    return chain[0];
  }

  /** Lets a handler handle only what {@link #MAX_APPLICATION_REQUESTS} counts. */
  private static Handler.Singleton ofApplication(ConditionalHandler handler) {
    OWN_PATHS.forEach(path -> handler.excludePath(path, path + "/"));
    handler.excludePath("/api/health", "/api/health/", "/api/ready", "/api/ready/");
    return handler;
  }

  /** Sets the deadline of the thread, so that a handler of an application need not pass it on. */
  private static final class WithDeadline extends Handler.Wrapper {
    @Override
    public boolean handle(Request request, Response response, Callback callback) throws Exception {
      Deadline.setCurrent(Deadline.of(request));
      try {
        return super.handle(request, response, callback);
      } finally {
        Deadline.setCurrent(null);
      }
    }
  }

  /**
   * Limits the connections. At the limit, idle ones are closed after 1 s and new ones wait in the
   * backlog.
   */
  private static NetworkConnectionLimit connectionLimit(Server server) {
    long max = Runtime.getRuntime().maxMemory() / CONNECTION_BYTES;
    NetworkConnectionLimit limit =
        new NetworkConnectionLimit((int) Math.min(max, Integer.MAX_VALUE), server);
    limit.setEndPointIdleTimeout(Duration.ofSeconds(1).toMillis());
    return limit;
  }

  /**
   * Returns a handler that limits concurrent requests, so that threads remain for health checks.
   */
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
    if (USES_VIRTUAL_THREADS) {
      pool.setVirtualThreadsExecutor(VirtualThreads.getNamedVirtualThreadsExecutor("http"));
    }
    pool.setReservedThreads(0); // reserved threads: each request would wake one more thread
    return pool;
  }

  /** Adds the headers of every response. */
  static void addHeaders(Cors cors, HttpFields request, HttpFields.Mutable response) {
    response.put(NO_SNIFF).put(NO_STORE);
    if (!response.contains(RequestId.HEADER)) {
      RequestId.addHeader(request, response);
    }
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

  /**
   * Closes the connection after an HTTP/1.0 request with Transfer-Encoding, whose framing is faulty
   * (RFC 9112 §6.1).
   */
  private static void closeFaultyFraming(Request request, HttpFields.Mutable response) {
    if (request.getConnectionMetaData().getHttpVersion() == HttpVersion.HTTP_1_0
        && request.getHeaders().contains(HttpHeader.TRANSFER_ENCODING)) {
      response.put(HttpFields.CONNECTION_CLOSE);
    }
  }
}
