package com.realmeet.server;

import io.javalin.compression.CompressionStrategy;
import io.javalin.config.JavalinConfig;
import io.javalin.http.Context;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.net.BindException;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import org.eclipse.jetty.ee10.servlet.HttpInput;
import org.eclipse.jetty.ee10.servlet.HttpOutput;
import org.eclipse.jetty.ee10.servlet.ServletContextRequest;
import org.eclipse.jetty.ee10.servlet.SessionHandler;
import org.eclipse.jetty.http.HttpException;
import org.eclipse.jetty.http.HttpField;
import org.eclipse.jetty.http.HttpFields;
import org.eclipse.jetty.http.HttpMethod;
import org.eclipse.jetty.http.PreEncodedHttpField;
import org.eclipse.jetty.io.ManagedSelector;
import org.eclipse.jetty.io.SocketChannelEndPoint;
import org.eclipse.jetty.server.Handler;
import org.eclipse.jetty.server.HttpConfiguration;
import org.eclipse.jetty.server.HttpConnectionFactory;
import org.eclipse.jetty.server.LowResourceMonitor;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.server.handler.ConditionalHandler;
import org.eclipse.jetty.server.handler.GracefulHandler;
import org.eclipse.jetty.util.Callback;
import org.eclipse.jetty.util.NanoTime;
import org.eclipse.jetty.util.thread.QueuedThreadPool;
import org.eclipse.jetty.util.thread.Scheduler;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** How Jetty is set below the routes: limits, threads, headers of all answers, and a soft stop. */
final class HttpServer {
  private static final Logger log = LoggerFactory.getLogger(HttpServer.class);

  /** Bytes of a request's headers, as in Node. */
  private static final int MAX_HEADERS = 16 << 10;

  /** So many are read nevertheless: what Jetty itself refuses has no Origin to answer to. */
  private static final int READ_HEADERS = 4 * MAX_HEADERS;

  private static final int MAX_BODY = 1 << 20;

  /** Connections that may wait to be accepted: a restart brings all clients at once. */
  private static final int BACKLOG = 1024;

  /** After so long without a request or an answer, a connection is closed. */
  private static final Duration IDLE = Duration.ofSeconds(25);

  /**
   * Between the headers of a request and its answer; a little less than the 5 s of the contract.
   */
  private static final Duration ANSWER_TIME = Duration.ofMillis(4900);

  /** How long a stop waits for the requests that are under way. */
  static final Duration STOP_WAIT = Duration.ofSeconds(10);

  private static final HttpField NO_SNIFF =
      new PreEncodedHttpField("X-Content-Type-Options", "nosniff");
  private static final HttpField NO_STORE = new PreEncodedHttpField("Cache-Control", "no-store");

  private static final String METHOD_OVERRIDE = "X-HTTP-Method-Override";

  private HttpServer() {}

  /**
   * For before anything is changed: a second server on the same port is the usual mistake.
   *
   * @throws StartFailure if another has the port
   */
  static void requireFreePort(Config config) {
    try (ServerSocket probe = new ServerSocket()) {
      probe.setReuseAddress(true); // as the server does, to ignore connections in TIME_WAIT
      probe.bind(new InetSocketAddress(config.host(), config.port()));
    } catch (IOException e) {
      throw cannotListen(config, e);
    }
  }

  static StartFailure cannotListen(Config config, Exception e) {
    return cannotListen(config.host(), config.port(), "PORT", e);
  }

  /**
   * Says why a port cannot be had.
   *
   * @param setting the name of the variable that chose it
   */
  static StartFailure cannotListen(String host, int port, String setting, Exception e) {
    return new StartFailure(
        "Cannot listen on %s, see %s and HOST: %s"
            .formatted(Config.authority(host, port), setting, reason(e)));
  }

  /** Jetty's own message repeats the address. */
  private static String reason(Exception e) {
    return e.getCause() instanceof BindException cause ? cause.getMessage() : e.getMessage();
  }

  /** Applies all this to a Javalin app that is being made. */
  static void configure(JavalinConfig javalin, Config config, Cors cors, Errors errors) {
    javalin.startup.showJavalinBanner = false;
    javalin.startup.showOldJavalinVersionWarning = false;
    javalin.startup.startupWatcherEnabled = false;
    javalin.http.compressionStrategy = CompressionStrategy.NONE; // answers fit into one packet
    javalin.http.maxRequestSize = (long) MAX_BODY;
    javalin.jetty.threadPool = threadPool();
    javalin.jetty.modifyHttpConfiguration(
        http -> {
          http.setRequestHeaderSize(READ_HEADERS);
          // A token fills a connection's cache of headers, and each clears its 100 kB for the next.
          http.setHeaderCacheSize(0);
          http.addCustomizer(
              (request, headers) -> {
                restartIdleTime(request);
                refuseLarge(request);
                addHeaders(cors, request.getHeaders(), headers);
                return isPlain(request) ? request : new PlainRequest(request);
              });
        });
    javalin.jetty.addConnector(
        (server, http) -> {
          ServerConnector connector = new Connector(server, http);
          connector.setHost(config.host());
          connector.setPort(config.port());
          connector.setAcceptQueueSize(BACKLOG);
          connector.setIdleTimeout(IDLE.toMillis());
          if (config.environment() == Config.Environment.DEVELOPMENT) {
            connector.setShutdownIdleTimeout(10); // ms: a reload does not wait for browsers
          }
          return connector;
        });
    javalin.jetty.modifyServer(
        server -> {
          server.setErrorHandler(errors.jetty());
          server.setStopTimeout(STOP_WAIT.toMillis());
          server.removeBean(server.getBean(LowResourceMonitor.class));
          server.setHandler((Handler) null); // Javalin's statistics
          server.insertHandler(new FirstAlone());
          if (!config.webhookSecrets().isEmpty()) {
            server.insertHandler(webhookBodies());
          }
          server.insertHandler(new GracefulHandler());
          server.insertHandler(readinessEvenWhileStopping());
          if (config.environment() == Config.Environment.DEVELOPMENT) {
            server.setRequestLog(HttpServer::logRequest);
          }
        });
    javalin.jetty.modifyServletContextHandler(
        context -> {
          context.setErrorHandler(errors.jetty());
          context.setSessionHandler(new NoSessions());
        });
  }

  /** Clerk's webhooks are the only requests of which the body is read. */
  private static WholeBodies webhookBodies() {
    WholeBodies bodies = new WholeBodies(MAX_BODY, IDLE);
    bodies.includePath("/api/webhooks/*");
    return bodies;
  }

  /** Adds what every answer carries. */
  static void addHeaders(Cors cors, HttpFields request, HttpFields.Mutable response) {
    response.put(NO_SNIFF).put(NO_STORE);
    cors.addHeaders(request, response);
  }

  /** The handler below answers 503 while stopping; readiness has a body of its own for that. */
  private static Handler.Singleton readinessEvenWhileStopping() {
    ConditionalHandler.SkipNext skip = new ConditionalHandler.SkipNext();
    skip.includePath("/api/ready");
    return skip;
  }

  /** Few threads, since no request waits on one: they accept, select, and verify tokens. */
  private static QueuedThreadPool threadPool() {
    int threads = 2 + 2 * Math.max(2, Runtime.getRuntime().availableProcessors());
    QueuedThreadPool pool = new QueuedThreadPool(threads, threads);
    pool.setName("http");
    pool.setReservedThreads(0); // with them, each request wakes one more thread
    return pool;
  }

  /** Until when a request is to be answered, whatever happens. */
  static Deadline deadline(Context ctx) {
    Request request = ServletContextRequest.getServletContextRequest(ctx.req());
    return new Deadline(request.getHeadersNanoTime() + ANSWER_TIME.toNanos());
  }

  /** Answers in one piece, and does not wait until the client has taken it. */
  static void answer(Context ctx, int status, String contentType, byte[] body) {
    HttpServletResponse response = ctx.res();
    response.setStatus(status);
    response.setContentType(contentType);
    response.setContentLength(body.length);
    try {
      ((HttpOutput) response.getOutputStream()).sendContent(ByteBuffer.wrap(body), Callback.NOOP);
    } catch (IOException e) {
      log.debug("The client has gone: {}", e.getMessage());
    }
  }

  private static void logRequest(Request request, Response response) {
    log.info(
        "{} {} {} {} ms",
        request.getMethod(),
        request.getHttpURI().getPath(),
        response.getStatus(),
        NanoTime.millisSince(request.getHeadersNanoTime()));
  }

  private static void refuseLarge(Request request) {
    if (request.getHttpURI().asString().length() > MAX_HEADERS) {
      throw new HttpException.RuntimeException(414);
    }
    int length = 0;
    for (HttpField header : request.getHeaders()) {
      length += length(header);
    }
    if (length > MAX_HEADERS) {
      throw new HttpException.RuntimeException(431);
    }
    if (request.getLength() > MAX_BODY) {
      throw new HttpException.RuntimeException(413);
    }
  }

  private static int length(HttpField header) {
    return header.getName().length() + String.valueOf(header.getValue()).length() + 4; // ": \r\n"
  }

  /**
   * Answers 400 if the chunks of a body are malformed in what has already arrived. It waits for no
   * byte, and does not make a client send its body that waits for the word.
   */
  static void refuseMalformedChunks(Context ctx) throws IOException {
    if (ctx.header("Transfer-Encoding") != null
        && ctx.header("Expect") == null
        && ctx.req().getInputStream() instanceof HttpInput body
        && body.available() == 0
        && body.isError()) {
      throw new HttpException.RuntimeException(400, "Malformed chunks in the body");
    }
  }

  private static boolean isPlain(Request request) {
    return HttpMethod.CACHE.get(request.getMethod()) != null
        && !request.getHeaders().contains(METHOD_OVERRIDE);
  }

  /**
   * Javalin takes the method from a header if there is one, and a method may name its inner
   * handlers, such as BEFORE_MATCHED. Here the header is dropped, and a method that HTTP does not
   * know becomes one that no route has.
   */
  private static final class PlainRequest extends Request.Wrapper {
    private final String method;
    private final HttpFields headers;

    PlainRequest(Request request) {
      super(request);
      method = HttpMethod.CACHE.get(request.getMethod()) == null ? "TRACE" : request.getMethod();
      headers = HttpFields.build(request.getHeaders()).remove(METHOD_OVERRIDE).asImmutable();
    }

    @Override
    public String getMethod() {
      return method;
    }

    @Override
    public HttpFields getHeaders() {
      return headers;
    }
  }

  /**
   * Lets the first request in alone. Javalin's servlet (7.2.3) prepares itself in it without a
   * lock, and may give another one that comes at the same moment an empty 500.
   */
  private static final class FirstAlone extends Handler.Wrapper {
    private volatile boolean prepared;

    @Override
    public boolean handle(Request request, Response response, Callback callback) throws Exception {
      if (prepared) {
        return super.handle(request, response, callback);
      }
      synchronized (this) {
        boolean handled = super.handle(request, response, callback);
        prepared |= handled; // not by OPTIONS *, which no servlet gets
        return handled;
      }
    }
  }

  /** Javalin cannot do without a session handler; Jetty's looks for a session in each request. */
  private static final class NoSessions extends SessionHandler {
    @Override
    public boolean handle(Request request, Response response, Callback callback) throws Exception {
      return getHandler().handle(request, response, callback);
    }
  }

  private static void restartIdleTime(Request request) {
    if (request.getConnectionMetaData().getConnection().getEndPoint()
        instanceof EndPoint endPoint) {
      endPoint.restartIdleTime();
    }
  }

  /** Of connections that end after their idle time, however slowly something comes in. */
  static final class Connector extends ServerConnector {
    Connector(Server server, HttpConfiguration http) {
      super(server, new HttpConnectionFactory(http));
    }

    @Override
    protected SocketChannelEndPoint newEndPoint(
        SocketChannel channel, ManagedSelector selector, SelectionKey key) {
      SocketChannelEndPoint endPoint = new EndPoint(channel, selector, key, getScheduler());
      endPoint.setIdleTimeout(getIdleTimeout());
      return endPoint;
    }
  }

  /**
   * A connection that is idle while it only receives: one that drips its headers, byte by byte, is
   * closed like a silent one. A request, once its headers are here, and each answer restart the
   * time.
   *
   * <p>After each answer it lets the other connections have their turn. By itself, Jetty goes on
   * with one as long as it has a request, and a few that always have would keep all threads.
   */
  private static final class EndPoint extends SocketChannelEndPoint {
    private volatile boolean answered;

    EndPoint(
        SocketChannel channel, ManagedSelector selector, SelectionKey key, Scheduler scheduler) {
      super(channel, selector, key, scheduler);
    }

    void restartIdleTime() {
      super.notIdle();
    }

    /** What Jetty calls for every byte that comes in. */
    @Override
    public void notIdle() {}

    @Override
    public int fill(ByteBuffer buffer) throws IOException {
      return answered ? 0 : super.fill(buffer);
    }

    /** Jetty has nothing more to read, and waits until this connection is selected. */
    @Override
    protected void needsFillInterest() {
      answered = false;
      super.needsFillInterest();
    }

    @Override
    public boolean flush(ByteBuffer... buffers) throws IOException {
      answered = true;
      restartIdleTime();
      return super.flush(buffers);
    }
  }
}
