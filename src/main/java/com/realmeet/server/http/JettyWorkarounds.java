package com.realmeet.server.http;

import io.javalin.http.Context;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import org.eclipse.jetty.ee10.servlet.HttpInput;
import org.eclipse.jetty.ee10.servlet.SessionHandler;
import org.eclipse.jetty.http.HttpException;
import org.eclipse.jetty.http.HttpFields;
import org.eclipse.jetty.http.HttpMethod;
import org.eclipse.jetty.io.ManagedSelector;
import org.eclipse.jetty.io.SocketChannelEndPoint;
import org.eclipse.jetty.server.Handler;
import org.eclipse.jetty.server.HttpConfiguration;
import org.eclipse.jetty.server.HttpConnectionFactory;
import org.eclipse.jetty.server.HttpStream;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.util.BufferUtil;
import org.eclipse.jetty.util.Callback;

/**
 * Workarounds for what Jetty 12.1.12 and Javalin 7.2.3 do otherwise than a public server needs.
 * Each names its reason and when to delete it.
 */
public final class JettyWorkarounds {
  private static final String METHOD_OVERRIDE = "X-HTTP-Method-Override";

  private JettyWorkarounds() {}

  /**
   * Sets two limits otherwise than by default.
   *
   * @param maxHeaders bytes of headers above which a handler of ours answers 431
   */
  static void configure(HttpConfiguration http, int maxHeaders) {
    // Jetty's own limit is higher than ours: a request that Jetty rejects has no parsed Origin, so
    // that its 431 could not carry CORS headers. Delete when its 431 keeps the parsed headers.
    http.setRequestHeaderSize(4 * maxHeaders);
    // The cache of header fields (12.1) is cleared, 100 kB, by each new bearer token. Delete when
    // it leaves out Authorization.
    http.setHeaderCacheSize(0);
  }

  /**
   * Lets requests in one by one until Javalin's servlet is prepared. The first request prepares it
   * without a lock, and another one that comes at the same moment may get an empty 500. Delete when
   * JavalinServlet.servletContextConfig is a synchronized lazy value.
   */
  static final class SerializedFirstRequest extends Handler.Wrapper {
    private final Semaphore permit = new Semaphore(1);
    private volatile boolean prepared;

    /** A before-handler, which runs in a servlet that is prepared. */
    void onPrepared(Context ctx) {
      if (!prepared) {
        prepared = true;
        permit.release();
      }
    }

    @Override
    public boolean handle(Request request, Response response, Callback callback) throws Exception {
      if (prepared) {
        return super.handle(request, response, callback);
      }
      permit.acquire();
      if (prepared) {
        permit.release();
        return super.handle(request, response, callback);
      }
      try {
        return super.handle(request, response, callback);
      } finally {
        permit.release(); // OPTIONS * prepares nothing: no servlet gets it
      }
    }
  }

  /**
   * Replaces Jetty's session handler, which Javalin requires and which looks for a session in each
   * request. Delete when Javalin starts without one.
   */
  static final class NoSessions extends SessionHandler {
    @Override
    public boolean handle(Request request, Response response, Callback callback) throws Exception {
      return getHandler().handle(request, response, callback);
    }
  }

  /**
   * The same request without X-HTTP-Method-Override, which Javalin obeys; with TRACE in place of a
   * method that HTTP does not know, which may name Javalin's inner handlers, such as
   * BEFORE_MATCHED; and with GET in place of HEAD, which Javalin answers with 200 before anything
   * looks at the token (Jetty leaves the body out). Delete when Javalin has a setting for the
   * first, refuses the second and runs the handler for the third.
   */
  static Request withPlainMethod(Request request) {
    String method = request.getMethod();
    String plain =
        HttpMethod.HEAD.is(method)
            ? "GET"
            : HttpMethod.CACHE.get(method) == null ? "TRACE" : method;
    return plain.equals(method) && !request.getHeaders().contains(METHOD_OVERRIDE)
        ? request
        : new PlainRequest(request, plain);
  }

  private static final class PlainRequest extends Request.Wrapper {
    private final String method;
    private final HttpFields headers;

    PlainRequest(Request request, String method) {
      super(request);
      this.method = method;
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
   * Answers 400 if the chunks of a body are malformed in what has already arrived. Never blocks,
   * and does not trigger "100 Continue". Jetty finds them only when a handler reads the body, and
   * the handler of sync does not. Delete when Jetty answers 400 to such a request by itself.
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
   * A response that announces {@code Connection: close}, unless the rest of the request's body has
   * arrived. Jetty does that only for responses that it commits itself, and Javalin commits all.
   * Delete when Jetty does it whoever commits.
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
   * Connector whose idle timeout is not extended by single bytes (slowloris protection). Delete
   * when Jetty has a timeout for the head of a request.
   */
  static ServerConnector connector(Server server, HttpConfiguration http) {
    return new Connector(server, http);
  }

  /** To be called when the headers of a request are complete: its handler may take its time. */
  static void onHeaders(Request request) {
    if (request.getConnectionMetaData().getConnection().getEndPoint() instanceof EndPoint own) {
      own.onHeaders();
      request.addHttpStreamWrapper(stream -> new LingeringStream(stream, own));
    }
  }

  /**
   * Reads and discards what is still coming of a body after the response to it, until the client
   * closes or the connection is idle. Jetty closes at once, and the reset that a client gets for
   * what it sends then may destroy the response before it is read (RFC 9112 §9.6). Delete when
   * Jetty does not fail the stream of a response that is complete.
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

  private static final class Connector extends ServerConnector {
    /** Bytes: one head is at most 64 KB, but Jetty does not limit all of them together. */
    static final int MAX_INCOMPLETE_HEAD_BYTES = 8 << 20;

    /** Bytes received of request heads that are not complete yet, over all connections. */
    private final AtomicInteger incompleteHeadBytes = new AtomicInteger();

    Connector(Server server, HttpConfiguration http) {
      super(server, new HttpConnectionFactory(http));
      setIdleTimeout(EndPoint.IDLE_TIMEOUT.toMillis());
    }

    @Override
    protected SocketChannelEndPoint newEndPoint(
        SocketChannel channel, ManagedSelector selector, SelectionKey key) {
      EndPoint endPoint = new EndPoint(channel, selector, key, this);
      endPoint.setIdleTimeout(getIdleTimeout());
      return endPoint;
    }
  }

  /**
   * Connection that is idle while it only receives. Its idle time begins with its first byte, with
   * the headers of a request, and with each response; and it has three of them between two
   * requests.
   */
  private static final class EndPoint extends SocketChannelEndPoint {
    static final Duration IDLE_TIMEOUT = Duration.ofSeconds(25);

    /** 75 s between two requests: balancers keep an idle connection for 60 s, and reuse it. */
    private static final int IDLE_TIMEOUTS_BETWEEN_REQUESTS = 3;

    private volatile boolean betweenRequests;
    private volatile boolean inRequest;
    private volatile int expired;
    private final AtomicInteger headBytes =
        new AtomicInteger(); // bytes of one that is not complete
    private final Connector connector;

    EndPoint(
        SocketChannel channel, ManagedSelector selector, SelectionKey key, Connector connector) {
      super(channel, selector, key, connector.getScheduler());
      this.connector = connector;
    }

    /** Called by Jetty for every byte that comes in: does not restart the idle time. */
    @Override
    public void notIdle() {}

    private void restartIdleTime() {
      super.notIdle();
    }

    void onHeaders() {
      inRequest = true;
      releaseHead();
      restartIdleTime();
    }

    void onCompleted() {
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

    /** A head that arrives in one piece, as almost all do, is never refused. */
    private int fillHead(ByteBuffer buffer, int bytes) {
      boolean inPieces = headBytes.addAndGet(bytes) > bytes;
      boolean tooMuch =
          connector.incompleteHeadBytes.addAndGet(bytes) > Connector.MAX_INCOMPLETE_HEAD_BYTES
              && inPieces;
      if (tooMuch) {
        close();
        BufferUtil.clear(buffer);
      }
      if (!isOpen()) {
        releaseHead();
      }
      return tooMuch ? -1 : bytes;
    }

    private void releaseHead() {
      connector.incompleteHeadBytes.addAndGet(-headBytes.getAndSet(0));
    }

    @Override
    public void onClose(Throwable cause) {
      super.onClose(cause);
      releaseHead();
    }

    @Override
    public boolean flush(ByteBuffer... buffers) throws IOException {
      restartIdleTime();
      expired = 0;
      boolean sent = super.flush(buffers);
      betweenRequests = sent; // else the client does not read
      return sent;
    }

    @Override
    protected void onIdleExpired(TimeoutException timeout) {
      expired++;
      if (!betweenRequests
          || expired >= IDLE_TIMEOUTS_BETWEEN_REQUESTS
          || isOutputShutdown() // after Connection: close
          || connector.isShutdown()) {
        super.onIdleExpired(timeout);
      }
    }
  }
}
