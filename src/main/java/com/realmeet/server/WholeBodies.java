package com.realmeet.server;

import java.nio.ByteBuffer;
import java.time.Duration;
import org.eclipse.jetty.http.HttpException;
import org.eclipse.jetty.http.HttpStatus;
import org.eclipse.jetty.io.Content;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.server.handler.ConditionalHandler;
import org.eclipse.jetty.util.Callback;
import org.eclipse.jetty.util.NanoTime;
import org.eclipse.jetty.util.Promise;

/**
 * Holds a request back until its body is here, so that a slow one has no thread wait for it.
 *
 * <p>Jetty's own EagerContentHandler (12.1.12) never ends a request whose connection breaks, and a
 * stop waits for it; and it keeps a whole buffer for each piece of a body, however small.
 */
final class WholeBodies extends ConditionalHandler.ElseNext {
  private final int maxBytes;
  private final Duration maxTime;

  /**
   * @param maxBytes of a body; a longer one is answered with 413
   * @param maxTime in which it has to come; a slower one is answered with 408
   */
  WholeBodies(int maxBytes, Duration maxTime) {
    this.maxBytes = maxBytes;
    this.maxTime = maxTime;
  }

  @Override
  protected boolean onConditionsMet(Request request, Response response, Callback callback) {
    Content.Source.asByteBuffer(
        new Arriving(request),
        Promise.from(
            body -> handle(new Whole(request, body), response, callback),
            failure -> refuse(request, response, callback, failure)));
    return true;
  }

  private void handle(Whole request, Response response, Callback callback) {
    try {
      if (!nextHandler(request, response, callback)) {
        Response.writeError(request, response, callback, HttpStatus.NOT_FOUND_404);
      }
    } catch (Exception e) {
      Response.writeError(request, response, callback, e);
    }
  }

  private static void refuse(
      Request request, Response response, Callback callback, Throwable failure) {
    int status =
        failure instanceof HttpException http ? http.getCode() : HttpStatus.REQUEST_TIMEOUT_408;
    Response.writeError(request, response, callback, status);
  }

  /** A request whose body comes within the limits, or fails. */
  private final class Arriving extends Request.Wrapper {
    private long bytes;

    Arriving(Request request) {
      super(request);
    }

    @Override
    public Content.Chunk read() {
      Content.Chunk chunk = super.read();
      if (Content.Chunk.isFailure(chunk, false) && isInTime()) {
        return null; // a stop makes Jetty find all connections idle after 1 s
      }
      bytes += chunk == null ? 0 : chunk.remaining();
      if (bytes > maxBytes) {
        chunk.release();
        return Content.Chunk.from(new HttpException.RuntimeException(413));
      }
      return chunk;
    }

    private boolean isInTime() {
      return NanoTime.millisSince(getHeadersNanoTime()) < maxTime.toMillis();
    }
  }

  /** A request that gives its body without delay. */
  private static final class Whole extends Request.Wrapper {
    private final Content.Source body;

    Whole(Request request, ByteBuffer body) {
      super(request);
      this.body = Content.Source.from(body);
    }

    @Override
    public Content.Chunk read() {
      return body.read();
    }

    @Override
    public void demand(Runnable task) {
      body.demand(task);
    }

    @Override
    public void fail(Throwable failure) {
      body.fail(failure);
    }
  }
}
