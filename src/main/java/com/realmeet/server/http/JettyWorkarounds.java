package com.realmeet.server.http;

import com.realmeet.server.core.LogRateLimiter;
import io.javalin.Javalin;
import io.javalin.http.Context;
import io.javalin.http.servlet.JavalinServlet;
import java.io.IOException;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.Comparator;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.eclipse.jetty.ee10.servlet.HttpInput;
import org.eclipse.jetty.ee10.servlet.SessionHandler;
import org.eclipse.jetty.http.HttpException;
import org.eclipse.jetty.http.HttpField;
import org.eclipse.jetty.http.HttpFields;
import org.eclipse.jetty.http.HttpHeader;
import org.eclipse.jetty.http.HttpMethod;
import org.eclipse.jetty.http.HttpVersion;
import org.eclipse.jetty.io.Connection;
import org.eclipse.jetty.io.EofException;
import org.eclipse.jetty.io.ManagedSelector;
import org.eclipse.jetty.io.SocketChannelEndPoint;
import org.eclipse.jetty.server.HttpConfiguration;
import org.eclipse.jetty.server.HttpConnectionFactory;
import org.eclipse.jetty.server.HttpStream;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.server.internal.HttpConnection;
import org.eclipse.jetty.util.BufferUtil;
import org.eclipse.jetty.util.Callback;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Workarounds for Jetty 12.1.12 and Javalin 7.2.3. Each names its reason and when to delete it. */
public final class JettyWorkarounds {
  private static final Logger log = LoggerFactory.getLogger(JettyWorkarounds.class);

  private static final String METHOD_OVERRIDE = "X-HTTP-Method-Override";

  private JettyWorkarounds() {}

  /**
   * Changes two limits from their defaults.
   *
   * @param maxHeaders bytes of headers above which {@link JettyServer} responds 431
   */
  static void configure(HttpConfiguration http, int maxHeaders) {
    // Jetty's own limit is higher than ours: a request that Jetty rejects has no parsed Origin, so
    // that its 431 could not carry CORS headers. Delete when its 431 keeps the parsed headers.
    http.setRequestHeaderSize(maxHeaders * 3 / 2);
    // Jetty 12.1 reallocates its cache of header fields, 100 kB, for each new bearer token. Delete
    // when the cache excludes Authorization.
    http.setHeaderCacheSize(0);
  }

  /**
   * Initializes Javalin's servlet. Otherwise the first request does so, without a lock, and a
   * concurrent one may get an empty 500. Delete when JavalinServlet.servletContextConfig is a
   * synchronized lazy value.
   */
  public static void initializeServlet(Javalin app) {
    try {
      Method initialize = JavalinServlet.class.getDeclaredMethod("getServletContextConfig");
      initialize.setAccessible(true);
      initialize.invoke(app.javalinServlet());
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException("Javalin has changed: is this still necessary?", e);
    }
  }

  /**
   * Replaces Jetty's session handler, which Javalin requires and which looks up a session for each
   * request, by one that does nothing. Delete when Javalin starts without one.
   */
  static final class NoSessions extends SessionHandler {
    @Override
    public boolean handle(Request request, Response response, Callback callback) throws Exception {
      return getHandler().handle(request, response, callback);
    }
  }

  /**
   * Returns the request in a form that is safe for Javalin: without X-HTTP-Method-Override, which
   * Javalin obeys; with TRACE instead of a method unknown to HTTP, which could be the name of an
   * internal handler type of Javalin such as BEFORE_MATCHED; and with GET instead of HEAD, to which
   * Javalin responds 200 before the token is verified (Jetty omits the body). Delete when Javalin
   * has a setting for the first, rejects the second and runs the handler for the third.
   *
   * <p>Also without Range, which a server may ignore (RFC 9110 §14.2): ctx.writeSeekableStream
   * never ends for a range behind the end, and sends wrong parts for others. Delete when Javalin's
   * SeekableWriter responds 416 to the first.
   */
  static Request plain(Request request) {
    String method = request.getMethod();
    String plain =
        HttpMethod.HEAD.is(method)
            ? "GET"
            : HttpMethod.CACHE.get(method) == null ? "TRACE" : method;
    HttpFields headers = request.getHeaders();
    return plain.equals(method)
            && !headers.contains(METHOD_OVERRIDE)
            && !headers.contains(HttpHeader.RANGE)
        ? request
        : new PlainRequest(request, plain);
  }

  private static final class PlainRequest extends Request.Wrapper {
    private final String method;
    private final HttpFields headers;

    PlainRequest(Request request, String method) {
      super(request);
      this.method = method;
      headers =
          HttpFields.build(request.getHeaders())
              .remove(METHOD_OVERRIDE)
              .remove(HttpHeader.RANGE)
              .asImmutable();
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
   * Responds 400 if the part of a chunked body that has arrived is malformed. Never blocks, and
   * does not trigger "100 Continue". Jetty detects this only when a handler reads the body, which
   * the handler of sync does not. Delete when Jetty itself responds 400.
   *
   * @throws HttpException.RuntimeException with status 400
   */
  public static void refuseMalformedChunks(Context ctx) throws IOException {
    if (ctx.header("Transfer-Encoding") != null
        && ctx.header("Expect") == null
        && ctx.req().getInputStream() instanceof HttpInput body
        && body.available() == 0
        && body.isError()) {
      throw new HttpException.RuntimeException(400, "Malformed chunks in the body");
    }
  }

  /**
   * Returns a response that carries {@code Connection: close} unless the whole request body has
   * arrived. Jetty adds that only to responses that it commits itself, and Javalin commits all of
   * them. Delete when Jetty adds it to all.
   */
  static Response announceClose(Request request, Response response) {
    return new Response.Wrapper(request, response) {
      @Override
      public void write(boolean last, ByteBuffer content, Callback callback) {
        if (!isCommitted()) {
          request.consumeAvailable();
        }
        super.write(last, content, callback);
      }
    };
  }

  /**
   * Returns a connector whose idle timeout is not extended by single bytes (slowloris protection).
   * Delete when Jetty has a timeout for the head of a request.
   */
  static ServerConnector connector(Server server, int selectors, HttpConfiguration http) {
    return new Connector(server, selectors, http);
  }

  /**
   * Restarts the idle timeout when the headers of a request are complete, so that its handler has
   * the full time, and limits the memory of large heads.
   *
   * @throws HttpException.RuntimeException with status 503 if too many requests have a large head
   */
  static void onHeaders(Request request, HttpFields.Mutable response) {
    if (request.getConnectionMetaData().getConnection().getEndPoint() instanceof EndPoint own) {
      request.addHttpStreamWrapper(stream -> new LingeringStream(stream, own));
      own.onHeaders(response);
    }
  }

  /**
   * Closes the connection of a request although a part of its response is sent. Delete when Javalin
   * lets an exception handler abort a response.
   *
   * @param reason which a pending write reports
   */
  static void close(Request request, String reason) {
    request.getConnectionMetaData().getConnection().getEndPoint().close(new EofException(reason));
  }

  /**
   * Keeps a connection open after an early response, and discards the rest of the request body
   * until the client closes or the connection is idle (lingering close). Jetty closes at once: the
   * client's next bytes then cause a reset, which may discard the response before the client has
   * read it (RFC 9112 §9.6). Delete when Jetty does not fail the stream of a response that is
   * complete.
   */
  private static final class LingeringStream extends HttpStream.Wrapper {
    private final EndPoint endPoint;

    LingeringStream(HttpStream stream, EndPoint endPoint) {
      super(stream);
      this.endPoint = endPoint;
    }

    @Override
    public void succeeded() {
      endPoint.onCompleted();
      super.succeeded();
    }

    @Override
    public void failed(Throwable failure) {
      endPoint.onCompleted();
      if (endPoint.isOpen() && endPoint.isOutputShutdown()) {
        super.succeeded();
      } else {
        super.failed(failure);
      }
    }
  }

  /**
   * Connector that limits what all clients together take: memory of heads, and responses that are
   * not read. Delete when Jetty does not only limit each of them.
   */
  private static final class Connector extends ServerConnector {
    /** Maximum memory of each kind of heads, 8 MB. */
    static final int MAX_HEAD_MEMORY = 8 << 20;

    /**
     * Maximum connections whose clients do not read their responses: each has a buffer, all
     * together 16 MB.
     */
    static final int MAX_STALLED = (16 << 20) / JettyServer.RESPONSE_BUFFER_BYTES;

    /**
     * Number of them that may stay without progress for longer than {@link #STALL}. The handler of
     * a large response waits meanwhile; a third of the threads of an application's routes is left
     * to other clients.
     */
    static final int MAX_WAITING = 40;

    static final Duration STALL = Duration.ofSeconds(1);

    /** Memory of request heads that are not complete yet, over all connections. */
    private final AtomicInteger incompleteHeads = new AtomicInteger();

    /** Memory of large heads of requests under way, over all connections. */
    private final AtomicInteger largeHeads = new AtomicInteger();

    private final Set<EndPoint> stalled = ConcurrentHashMap.newKeySet();
    private final AtomicBoolean isCheckScheduled = new AtomicBoolean();
    private final LogRateLimiter warnings = new LogRateLimiter();

    Connector(Server server, int selectors, HttpConfiguration http) {
      super(server, 1, selectors, new ConnectionFactory(http));
      setIdleTimeout(EndPoint.IDLE_TIMEOUT.toMillis());
    }

    /** Closes the connections with the largest incomplete heads until the others fit. */
    private void limitIncompleteHeads() {
      while (incompleteHeads.get() > MAX_HEAD_MEMORY) {
        Optional<EndPoint> largest =
            getConnectedEndPoints().stream()
                .map(EndPoint.class::cast)
                .filter(each -> each.incompleteHead.get() > 0)
                .max(Comparator.comparingInt(each -> each.incompleteHead.get()));
        if (largest.isEmpty()) {
          return;
        }
        largest.get().close();
        largest.get().releaseHead();
      }
    }

    private void addStalled(EndPoint endPoint) {
      stalled.add(endPoint);
      closeStalled(MAX_STALLED, Duration.ZERO);
      checkStalledLater();
    }

    private void checkStalledLater() {
      if (stalled.size() > MAX_WAITING && isCheckScheduled.compareAndSet(false, true)) {
        getScheduler().schedule(this::checkStalled, STALL.toMillis(), TimeUnit.MILLISECONDS);
      }
    }

    private void checkStalled() {
      isCheckScheduled.set(false);
      closeStalled(MAX_WAITING, STALL);
      checkStalledLater();
    }

    /**
     * Closes the connections that are stalled longest until no more than a number are left, but
     * none that is stalled for less than a time.
     */
    private void closeStalled(int max, Duration time) {
      long now = System.nanoTime();
      while (stalled.size() > max) {
        Optional<EndPoint> longest =
            stalled.stream().min(Comparator.comparingLong(each -> each.progressNanos - now));
        if (longest.isEmpty() || now - longest.get().progressNanos < time.toNanos()) {
          return;
        }
        if (warnings.allows("stalled")) {
          log.warn("Responses are aborted: more than {} clients do not read theirs", max);
        }
        stalled.remove(longest.get());
        longest.get().close(new EofException("the client does not read"));
      }
    }

    @Override
    protected SocketChannelEndPoint newEndPoint(
        SocketChannel channel, ManagedSelector selector, SelectionKey key) {
      EndPoint endPoint = new EndPoint(channel, selector, key, this);
      endPoint.setIdleTimeout(getIdleTimeout());
      return endPoint;
    }
  }

  /** Creates connections like Jetty's own factory. */
  private static final class ConnectionFactory extends HttpConnectionFactory {
    ConnectionFactory(HttpConfiguration http) {
      super(http);
    }

    @Override
    public Connection newConnection(
        org.eclipse.jetty.server.Connector connector, org.eclipse.jetty.io.EndPoint endPoint) {
      return configure(
          new FieldLimitConnection(getHttpConfiguration(), connector, endPoint),
          connector,
          endPoint);
    }
  }

  /**
   * Connection that limits the number of header fields and drops trailers, which nobody reads:
   * Jetty limits their bytes, but keeps a field of 4 bytes in 30 times as many. Delete when Jetty
   * limits the number of fields, of trailers, too.
   */
  private static final class FieldLimitConnection extends HttpConnection {
    /** Maximum headers of a request, as in Tomcat and Apache httpd. */
    static final int MAX_HEADERS = 100;

    FieldLimitConnection(
        HttpConfiguration http,
        org.eclipse.jetty.server.Connector connector,
        org.eclipse.jetty.io.EndPoint endPoint) {
      super(http, connector, endPoint);
    }

    @Override
    protected RequestHandler newRequestHandler() {
      return new RequestHandler() {
        private int headers;

        @Override
        public void startRequest(String method, String uri, HttpVersion version) {
          headers = 0;
          super.startRequest(method, uri, version);
        }

        @Override
        public void parsedHeader(HttpField field) {
          if (++headers > MAX_HEADERS) {
            throw new HttpException.RuntimeException(431);
          }
          super.parsedHeader(field);
        }

        @Override
        public void parsedTrailer(HttpField field) {}
      };
    }
  }

  /**
   * Connection whose idle timeout restarts only with the first byte of a request, with complete
   * headers and with each write of a response. Between two requests, the timeout is three times as
   * long.
   */
  private static final class EndPoint extends SocketChannelEndPoint {
    /** Time for the head of a request; for its body; and for a client to read a response. */
    static final Duration IDLE_TIMEOUT = Duration.ofSeconds(25);

    /**
     * Keep-alive of 75 s between two requests: load balancers reuse idle connections for 60 s, and
     * must not meet one that is just being closed.
     */
    private static final int IDLE_TIMEOUTS_BETWEEN_REQUESTS = 3;

    /** Memory that a parsed header field takes in addition to its characters. */
    private static final int HEADER_BYTES = 128;

    /** Copies of a character: in the field, and in a builder of the parser, which doubles. */
    private static final int COPIES = 3;

    /**
     * Size in bytes above which a head is counted to the end of its request, and the connection is
     * closed then, since its parser keeps a builder of that size.
     */
    private static final int LARGE_HEAD = 8 << 10;

    /** Idle timeouts during a graceful shutdown after which a client is given up. */
    private static final long EXPIRATIONS_WHILE_STOPPING = JettyServer.STOP_TIMEOUT.toSeconds();

    private volatile boolean betweenRequests;
    private volatile boolean inRequest;
    private volatile int expired;

    /** True while a part of a response cannot be sent, since the client does not read. */
    private volatile boolean isStalled;

    /** When ({@link System#nanoTime}) a stalled connection last sent bytes, or the stall began. */
    private volatile long progressNanos;

    /** Bytes of the head, and of what has arrived with it. */
    private volatile int headSize;

    /** Memory of the incomplete head; 0 once it is complete. */
    private final AtomicInteger incompleteHead = new AtomicInteger();

    /** Memory of the large head of a request under way, otherwise 0. */
    private final AtomicInteger largeHead = new AtomicInteger();

    private final Connector connector;

    EndPoint(
        SocketChannel channel, ManagedSelector selector, SelectionKey key, Connector connector) {
      super(channel, selector, key, connector.getScheduler());
      this.connector = connector;
    }

    /**
     * Does nothing: Jetty calls this for every byte received, which must not restart the idle
     * timeout.
     */
    @Override
    public void notIdle() {}

    private void restartIdleTime() {
      super.notIdle();
    }

    void onHeaders(HttpFields.Mutable response) {
      inRequest = true;
      restartIdleTime();
      int memory = incompleteHead.get();
      boolean isLarge = headSize > LARGE_HEAD;
      releaseHead();
      if (!isLarge) {
        return;
      }
      response.put(HttpFields.CONNECTION_CLOSE);
      largeHead.set(memory);
      if (connector.largeHeads.addAndGet(memory) > Connector.MAX_HEAD_MEMORY) {
        throw new HttpException.RuntimeException(503);
      }
    }

    void onCompleted() {
      releaseHead();
      inRequest = false;
    }

    @Override
    public int fill(ByteBuffer buffer) throws IOException {
      int bytes = super.fill(buffer);
      if (bytes > 0 && betweenRequests) {
        betweenRequests = false;
        restartIdleTime();
      }
      return bytes > 0 && !inRequest && !isOutputShutdown() ? fillHead(buffer, bytes) : bytes;
    }

    /** Accounts for received bytes of a head. */
    private int fillHead(ByteBuffer buffer, int bytes) {
      int lines = 0; // header fields, and what else is in the packet
      for (int i = buffer.limit() - bytes; i < buffer.limit(); i++) {
        lines += buffer.get(i) == '\n' ? 1 : 0;
      }
      int memory =
          COPIES * bytes + HEADER_BYTES * Math.min(lines, FieldLimitConnection.MAX_HEADERS);
      headSize += bytes;
      incompleteHead.addAndGet(memory);
      connector.incompleteHeads.addAndGet(memory);
      connector.limitIncompleteHeads();
      if (!isOpen()) {
        releaseHead();
        BufferUtil.clear(buffer);
        return -1;
      }
      return bytes;
    }

    private void releaseHead() {
      headSize = 0;
      connector.incompleteHeads.addAndGet(-incompleteHead.getAndSet(0));
      connector.largeHeads.addAndGet(-largeHead.getAndSet(0));
    }

    @Override
    public void onClose(Throwable cause) {
      super.onClose(cause);
      releaseHead();
      connector.stalled.remove(this);
    }

    @Override
    public boolean flush(ByteBuffer... buffers) throws IOException {
      restartIdleTime();
      expired = 0;
      long before = BufferUtil.remaining(buffers);
      boolean sent = super.flush(buffers);
      if (!sent && (!isStalled || BufferUtil.remaining(buffers) < before)) {
        progressNanos = System.nanoTime();
      }
      if (isStalled && sent) {
        connector.stalled.remove(this);
      } else if (!isStalled && !sent) {
        connector.addStalled(this);
      }
      isStalled = !sent;
      betweenRequests = sent;
      return sent;
    }

    @Override
    protected void onIdleExpired(TimeoutException timeout) {
      expired++;
      if (inRequest && connector.isShutdown() && expired < EXPIRATIONS_WHILE_STOPPING) {
        return; // Jetty shortens the timeout to 1 s then
      }
      if (!betweenRequests
          || expired >= IDLE_TIMEOUTS_BETWEEN_REQUESTS
          || isOutputShutdown() // after Connection: close
          || connector.isShutdown()) {
        super.onIdleExpired(timeout);
      }
    }
  }
}
