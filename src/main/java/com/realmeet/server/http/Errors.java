package com.realmeet.server.http;

import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import com.realmeet.server.core.LogRateLimiter;
import com.realmeet.server.core.RequestId;
import io.javalin.config.JavalinConfig;
import io.javalin.http.Context;
import io.javalin.http.HttpResponseException;
import io.javalin.http.MethodNotAllowedResponse;
import io.javalin.router.EndpointNotFound;
import io.javalin.validation.ValidationException;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.charset.IllegalCharsetNameException;
import java.nio.charset.StandardCharsets;
import java.nio.charset.UnsupportedCharsetException;
import java.sql.SQLDataException;
import java.sql.SQLException;
import java.util.List;
import java.util.Optional;
import java.util.function.BooleanSupplier;
import java.util.function.Function;
import org.eclipse.jetty.ee10.servlet.ServletContextResponse;
import org.eclipse.jetty.http.HttpException;
import org.eclipse.jetty.http.HttpFields;
import org.eclipse.jetty.http.HttpHeader;
import org.eclipse.jetty.http.HttpMethod;
import org.eclipse.jetty.http.HttpStatus;
import org.eclipse.jetty.io.EofException;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.handler.ErrorHandler;
import org.jdbi.v3.core.JdbiException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Maps exceptions of routes, of the router and of Jetty to responses {@code {"error": <reason
 * phrase>, "message": <one sentence>}}, and logs those that an operator should see.
 */
public final class Errors {
  private static final Logger log = LoggerFactory.getLogger(Errors.class);

  private record Body(String error, String message) {
    static Body of(int status, String message) {
      // Jetty's phrase is "Server Error".
      String phrase = status == 500 ? "Internal Server Error" : HttpStatus.getMessage(status);
      return new Body(phrase, message);
    }
  }

  /** Headers of a handler that do not hold for an error. */
  private static final List<String> CONTENT_HEADERS =
      List.of(
          "Content-Length",
          "Content-Encoding",
          "Content-Disposition",
          "Content-Language",
          "Content-Range",
          "ETag",
          "Last-Modified",
          "Expires");

  private final LogRateLimiter refusals = new LogRateLimiter();
  private final boolean production;
  private final Cors cors;
  private final BooleanSupplier stopping;
  private final Function<Throwable, Optional<String>> whyRejected;

  /**
   * @param production true if a response must not contain the message of an unexpected exception
   * @param whyRejected returns, in one line, why the database rejects a statement; empty if that is
   *     a bug
   */
  public Errors(
      boolean production,
      Cors cors,
      BooleanSupplier stopping,
      Function<Throwable, Optional<String>> whyRejected) {
    this.production = production;
    this.cors = cors;
    this.stopping = stopping;
    this.whyRejected = whyRejected;
  }

  /** Registers the handlers for exceptions of the routes and the router. */
  public void register(JavalinConfig javalin) {
    javalin.http.prefer405over404 = true;
    javalin.routes.exception(Failure.class, this::failure);
    javalin.routes.exception(MethodNotAllowedResponse.class, this::methodNotAllowed);
    javalin.routes.exception(EndpointNotFound.class, (e, ctx) -> respond(ctx, 404, null));
    javalin.routes.exception(HttpResponseException.class, this::thrown);
    javalin.routes.exception(
        HttpException.RuntimeException.class, (e, ctx) -> respond(ctx, e.getCode(), e.getReason()));
    javalin.routes.exception(EofException.class, (e, ctx) -> log.debug("The client has gone"));
    javalin.routes.exception(UncheckedIOException.class, this::failedStream);
    javalin.routes.exception(UnsupportedCharsetException.class, this::unknownCharset);
    javalin.routes.exception(IllegalCharsetNameException.class, this::unknownCharset);
    javalin.routes.exception(ValidationException.class, this::invalidParameter);
    javalin.routes.exception(ServletException.class, this::unreadableBody);
    javalin.routes.exception(JdbiException.class, this::refusedStatement);
    javalin.routes.exception(Exception.class, this::bug);
    javalin.router.javaLangErrorHandler(this::error);
  }

  private void failure(Failure failure, Context ctx) {
    Kind kind = failure.kind();
    if (kind.status == 503) {
      ctx.header("Retry-After", String.valueOf(failure.retryAfter()));
    }
    log.debug("{}: {} (request {})", kind, failure.reason(), RequestId.of(ctx));
    write(ctx, kind.status, failure.sentence());
  }

  /**
   * Responds 405, or to a preflight: Javalin treats OPTIONS as a method that the route does not
   * have.
   */
  private void methodNotAllowed(MethodNotAllowedResponse e, Context ctx) {
    String methods = String.join(", ", e.getDetails().values()).replace("GET", "GET, HEAD");
    if (!cors.respondToPreflight(ctx, methods)) {
      ctx.header("Allow", methods);
      respond(ctx, 405, null);
    }
  }

  /** Responds with the sentence of a handler's exception, by default the phrase of its status. */
  private void thrown(HttpResponseException e, Context ctx) {
    if (e.getStatus() < 400) { // a redirect, of which the handler has set Location
      ctx.status(e.getStatus()).result("");
      return;
    }
    String phrase = HttpStatus.getMessage(e.getStatus());
    write(ctx, e.getStatus(), e.getMessage().isEmpty() ? phrase : e.getMessage());
  }

  /**
   * Responds 400 to a charset that does not exist; Javalin throws when a handler reads the body.
   */
  private void unknownCharset(IllegalArgumentException e, Context ctx) {
    respond(ctx, 400, "The charset of the body is unknown");
  }

  /** Responds 400 to a form that Jetty cannot parse, when a handler reads its parts. */
  private void unreadableBody(ServletException e, Context ctx) {
    if (e.getCause() instanceof HttpException) {
      respond(ctx, 400, "The body is not a form that can be read");
    } else {
      bug(e, ctx);
    }
  }

  /** Logs that the client has gone, if a stream of JSON could not be written to it. */
  private void failedStream(UncheckedIOException e, Context ctx) {
    if (e.getCause() instanceof EofException) {
      log.debug("The client has gone");
    } else {
      bug(e, ctx);
    }
  }

  /** Responds 400 to a parameter that Javalin's validators refuse, such as those of a query. */
  private void invalidParameter(ValidationException e, Context ctx) {
    respond(ctx, 400, String.join(", ", e.getErrors().keySet()) + " is not valid");
  }

  /**
   * Responds 500 to a statement that the database rejects, for example by a constraint of the
   * application. Every request may meet it, so the log line is rate-limited. U+0000 in a parameter
   * of the request is a 400.
   */
  private void refusedStatement(JdbiException e, Context ctx) {
    String state = e.getCause() instanceof SQLException cause ? cause.getSQLState() : null;
    if ("22021".equals(state)) { // character_not_in_repertoire
      respond(ctx, 400, "The request has a character that cannot be stored");
      return;
    }
    Optional<String> reason = whyRejected.apply(e);
    if (reason.isEmpty()) {
      bug(production ? withoutValue(e, state) : e, ctx);
      return;
    }
    if (refusals.allows(reason.get())) {
      log.error("{} (request {})", reason.get(), RequestId.of(ctx), production ? null : e);
    }
    respond(ctx, 500, production ? "Internal server error" : reason.get());
  }

  /** Returns the exception without its message if that may quote a value: data exceptions do. */
  private static Exception withoutValue(JdbiException e, String state) {
    if (state == null || !state.startsWith("22")) {
      return e;
    }
    Exception safe = new SQLDataException("SQLSTATE " + state);
    safe.setStackTrace(e.getStackTrace());
    return safe;
  }

  private void bug(Exception e, Context ctx) {
    log.error("Unhandled exception (request {})", RequestId.of(ctx), e);
    respond(ctx, 500, production ? "Internal server error" : e.getMessage());
  }

  /** Responds 500 to an error of the JVM, such as a full heap. */
  private void error(HttpServletResponse response, Error e) {
    log.error("An error of the JVM (request {})", RequestId.of(response), e);
    if (!discard(response)) {
      return;
    }
    response.setStatus(500);
    response.setContentType("application/json");
    try {
      response.getOutputStream().write(json(500, "Internal server error"));
    } catch (IOException gone) {
      log.debug("The client has gone", gone);
    }
  }

  private void respond(Context ctx, int status, String detail) {
    write(ctx, status, sentence(status, detail));
  }

  /** Responds, or lets the client notice that a response which has begun is not complete. */
  private void write(Context ctx, int status, String message) {
    if (!discard(ctx.res())) {
      return;
    }
    if (status == 401) {
      ctx.header("WWW-Authenticate", "Bearer");
    }
    if (status == 503 && !ctx.res().containsHeader("Retry-After")) {
      ctx.header("Retry-After", "1");
    }
    ctx.status(status).json(Body.of(status, message));
  }

  /**
   * Discards what a handler has written, and its headers that describe it. If a part has been sent,
   * closes the connection, since the end of the response would make it look complete.
   *
   * @return false if the connection is closed
   */
  private boolean discard(HttpServletResponse response) {
    ServletContextResponse core = ServletContextResponse.getServletContextResponse(response);
    if (response.isCommitted()) {
      log.warn(
          "A response is aborted, since its handler failed (request {})", RequestId.of(response));
      JettyWorkarounds.close(core.getRequest(), "the handler failed");
      return false;
    }
    response.resetBuffer();
    CONTENT_HEADERS.forEach(core.getHeaders()::remove);
    JettyServer.addHeaders(cors, core.getRequest().getHeaders(), core.getHeaders());
    return true;
  }

  private static byte[] json(int status, String message) {
    return Json.text(Body.of(status, message)).getBytes(StandardCharsets.UTF_8);
  }

  /** Returns the message for a status: the one of the API if there is one, otherwise Jetty's. */
  private static String sentence(int status, String detail) {
    return switch (status) {
      case 400 ->
          detail == null || detail.equals(HttpStatus.getMessage(400))
              ? "Malformed request line or header"
              : detail;
      case 404 -> detail == null || detail.equals("Not Found") ? "Not found" : detail;
      case 405 -> "Method not allowed";
      case 408 -> "Request body did not arrive in time";
      case 413 -> "Request body is too large";
      case 431 -> "Request headers are too large";
      case 503 -> Kind.OVERLOADED.sentence;
      default -> detail == null ? HttpStatus.getMessage(status) : detail;
    };
  }

  /**
   * Returns the error handler for requests that do not reach the router: malformed HTTP, or a
   * request during the shutdown.
   */
  Request.Handler jetty() {
    return (request, response, callback) -> {
      int status = response.getStatus();
      String detail = (String) request.getAttribute(ErrorHandler.ERROR_MESSAGE);
      Object cause = request.getAttribute(ErrorHandler.ERROR_EXCEPTION);
      HttpFields.Mutable headers = response.getHeaders();
      JettyServer.addHeaders(cors, request.getHeaders(), headers);
      if (cause instanceof HttpException http) {
        status = http.getCode();
        detail = http.getReason();
        headers.put(HttpFields.CONNECTION_CLOSE); // what follows is not read
      } else if (cause instanceof EofException) {
        log.debug("The client has gone");
      } else if (cause instanceof Throwable bug && status != 503) { // 503: waited too long
        log.error("Unhandled exception (request {})", headers.get(RequestId.HEADER), bug);
        detail = production ? "Internal server error" : bug.getMessage();
      } else if (status == 500) { // a handler has written less than its Content-Length, for example
        log.error("{} (request {})", detail, headers.get(RequestId.HEADER));
        detail = production ? "Internal server error" : detail;
      }
      headers.put(HttpHeader.CONTENT_TYPE, "application/json");
      String message = sentence(status, detail);
      if (status == 503) {
        headers.put(HttpHeader.RETRY_AFTER, 1);
        message = stopping.getAsBoolean() ? "Server is stopping" : message;
      }
      response.setStatus(status);
      boolean isHead = HttpMethod.HEAD.is(request.getMethod());
      response.write(true, ByteBuffer.wrap(isHead ? new byte[0] : json(status, message)), callback);
      return true;
    };
  }
}
