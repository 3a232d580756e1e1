package com.realmeet.server.http;

import com.realmeet.server.core.Origins;
import com.realmeet.server.core.RequestId;
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
 * Adds the CORS headers that let pages of allowed origins read our responses. Requests of other
 * origins are handled normally, but their responses lack these headers.
 *
 * @see <a href="https://fetch.spec.whatwg.org/#http-cors-protocol">The CORS protocol</a>
 */
public final class Cors {
  private static final Logger log = LoggerFactory.getLogger(Cors.class);

  /** Sent with every response, so that caches store responses by origin. */
  private static final HttpField VARY = new PreEncodedHttpField(HttpHeader.VARY, "Origin");

  private static final String ALLOWED = "Access-Control-Allow-Origin";

  /** Lets pages read when to try again, and the id of their request, to report it. */
  private static final HttpField EXPOSE =
      new PreEncodedHttpField("Access-Control-Expose-Headers", "Retry-After, " + RequestId.HEADER);

  /**
   * Matches a list of header names (RFC 9110 §5.6.2) without {@code *}, which would mean all
   * headers.
   */
  private static final Pattern HEADER_NAMES =
      Pattern.compile("[\\w!#$%&'+.^`|~-]+([ \t]*,[ \t]*[\\w!#$%&'+.^`|~-]+)*");

  /**
   * Maximum characters of that list: far more than a page needs, and far less than fits into a
   * response's head.
   */
  private static final int MAX_HEADER_NAMES = 2048;

  /** Headers to allow if the browser names none, or if its list is malformed. */
  private static final String USUAL_HEADERS = "Authorization, Content-Type";

  /** Two hours, Chromium's maximum for caching a preflight response. */
  private static final String MAX_AGE_SECONDS = "7200";

  /**
   * Maximum foreign origins that are logged, once each: clients can send any number of invented
   * ones.
   */
  private static final int MAX_LOGGED_ORIGINS = 10;

  private final Set<String> clientUrl;
  private final Origins origins;
  private final Set<String> logged = ConcurrentHashMap.newKeySet();

  /**
   * @param origins allowed origins, in the form of {@link Origins}
   */
  public Cors(Set<String> origins) {
    this.clientUrl = origins;
    this.origins = new Origins(origins);
  }

  /** Adds the CORS headers of a response. */
  void addHeaders(HttpFields request, HttpFields.Mutable response) {
    response.put(VARY);
    List<String> sent = request.getValuesList(HttpHeader.ORIGIN);
    if (sent.size() != 1) {
      return;
    }
    if (origins.contains(sent.get(0))) {
      response.put(ALLOWED, sent.get(0));
      response.put(EXPOSE);
    } else if (logged.size() < MAX_LOGGED_ORIGINS && !isOwn(sent.get(0), request)) {
      logForeign(sent.get(0));
    }
  }

  /** Adds to a {@code Vary} of a handler, which has replaced ours. */
  static void keepVary(Context ctx) {
    String vary = ctx.res().getHeader("Vary");
    if (vary != null && !vary.contains("Origin")) {
      ctx.header("Vary", vary + ", Origin");
    }
  }

  private static boolean isOwn(String origin, HttpFields request) {
    return origin.endsWith("://" + request.get(HttpHeader.HOST));
  }

  /** Logs an origin once. */
  private synchronized void logForeign(String origin) {
    if (Origins.isOrigin(origin) && logged.size() < MAX_LOGGED_ORIGINS && logged.add(origin)) {
      log.warn(
          "A page of {} may not read responses: if it is yours, add it to CLIENT_URL, now {}",
          origin,
          String.join(",", clientUrl));
    }
  }

  /**
   * Responds 204 to a preflight request of an allowed origin.
   *
   * @param methods of the route, separated by commas
   * @return false if the request is not such a preflight
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
   * Returns the headers to allow: all that the page requests, since tracing tools and tunnels add
   * their own ({@code baggage}, {@code ngrok-skip-browser-warning}) and no header but Authorization
   * grants access.
   */
  private static String headers(Context ctx) {
    String requested = ctx.header("Access-Control-Request-Headers");
    return requested != null
            && requested.length() <= MAX_HEADER_NAMES
            && HEADER_NAMES.matcher(requested).matches()
        ? requested
        : USUAL_HEADERS;
  }
}
