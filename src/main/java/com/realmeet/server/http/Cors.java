package com.realmeet.server.http;

import com.realmeet.server.core.Origins;
import io.javalin.http.Context;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Pattern;
import org.eclipse.jetty.http.HttpField;
import org.eclipse.jetty.http.HttpFields;
import org.eclipse.jetty.http.HttpHeader;
import org.eclipse.jetty.http.PreEncodedHttpField;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Adds the CORS headers, with which a browser lets pages of allowed origins read our responses. A
 * foreign origin gets none of them, and its requests are otherwise answered like any other.
 *
 * @see <a href="https://fetch.spec.whatwg.org/#http-cors-protocol">The CORS protocol</a>
 */
public final class Cors {
  private static final Logger log = LoggerFactory.getLogger(Cors.class);

  /** In every answer, so that a cache keeps the answers to two origins apart. */
  private static final HttpField VARY = new PreEncodedHttpField(HttpHeader.VARY, "Origin");

  private static final String ALLOWED = "Access-Control-Allow-Origin";
  private static final String EXPOSED = "Access-Control-Expose-Headers";

  /** A list of header names (RFC 9110 §5.6.2), but for {@code *}, which would mean all of them. */
  private static final Pattern HEADER_NAMES =
      Pattern.compile("[\\w!#$%&'+.^`|~-]+([ \t]*,[ \t]*[\\w!#$%&'+.^`|~-]+)*");

  /** Characters: far above what a page needs, far below what fits into a response's head. */
  private static final int MAX_HEADER_NAMES = 2048;

  /** Allowed where a browser asks for nothing that can be understood. */
  private static final String USUAL_HEADERS = "Authorization, Content-Type";

  /** Two hours: the longest that Chromium keeps the answer to a preflight. */
  private static final String MAX_AGE_SECONDS = "7200";

  /** Foreign origins that are logged, one line each: anybody can make them up. */
  private static final int MAX_LOGGED_ORIGINS = 10;

  private final Set<String> clientUrl;
  private final Origins origins;
  private final Set<String> logged = ConcurrentHashMap.newKeySet();

  /**
   * @param origins as {@link Origins} takes them
   */
  public Cors(Set<String> origins) {
    this.clientUrl = origins;
    this.origins = new Origins(origins);
  }

  /** Adds the headers that every response carries. */
  void addHeaders(HttpFields request, HttpFields.Mutable response) {
    response.put(VARY);
    List<String> sent = request.getValuesList(HttpHeader.ORIGIN);
    if (sent.size() != 1) {
      return;
    }
    if (origins.contains(sent.get(0))) {
      response.put(ALLOWED, sent.get(0));
    } else if (logged.size() < MAX_LOGGED_ORIGINS && !isOwn(sent.get(0), request)) {
      logForeign(sent.get(0));
    }
  }

  private static boolean isOwn(String origin, HttpFields request) {
    return origin.endsWith("://" + request.get(HttpHeader.HOST));
  }

  /** Logs an origin once. */
  private synchronized void logForeign(String origin) {
    if (Origins.isOrigin(origin) && logged.size() < MAX_LOGGED_ORIGINS && logged.add(origin)) {
      log.warn(
          "A page of {} may not read answers: if it is yours, add it to CLIENT_URL, now {}",
          origin,
          String.join(",", clientUrl));
    }
  }

  /**
   * Answers a preflight request of an allowed origin with 204.
   *
   * @param methods those of the route, separated by commas
   * @return false if the request is something else
   */
  boolean respondToPreflight(Context ctx, String methods) {
    if (!ctx.method().name().equals("OPTIONS")
        || ctx.header("Access-Control-Request-Method") == null
        || !ctx.res().containsHeader(ALLOWED)) {
      return false;
    }
    ctx.res().setContentType(null); // Javalin's default: there is no content
    ctx.status(204)
        .header("Access-Control-Allow-Methods", methods)
        .header("Access-Control-Allow-Headers", headers(ctx))
        .header("Access-Control-Max-Age", MAX_AGE_SECONDS);
    return true;
  }

  /**
   * The headers that a page wants to send: all are allowed, since tracing tools and tunnels add
   * some of their own ({@code baggage}, {@code ngrok-skip-browser-warning}), and none of them lets
   * anybody in.
   */
  private static String headers(Context ctx) {
    String requested = ctx.header("Access-Control-Request-Headers");
    return requested != null
            && requested.length() <= MAX_HEADER_NAMES
            && HEADER_NAMES.matcher(requested).matches()
        ? requested
        : USUAL_HEADERS;
  }

  /** Lets an allowed page read the header that tells it when to try again. */
  static void exposeRetryAfter(Context ctx) {
    if (ctx.res().containsHeader(ALLOWED)) {
      ctx.header(EXPOSED, "Retry-After");
    }
  }

  /** The same for a response that Jetty makes. */
  static void exposeRetryAfter(HttpFields.Mutable response) {
    if (response.contains(ALLOWED)) {
      response.put(EXPOSED, "Retry-After");
    }
  }
}
