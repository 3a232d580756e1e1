package com.realmeet.server.core;

import io.javalin.http.Context;
import jakarta.servlet.http.HttpServletResponse;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;
import java.util.regex.Pattern;
import org.eclipse.jetty.http.HttpFields;

/**
 * Id of a request: in the header {@code X-Request-Id} of its response, and in the lines of the log
 * about it. It names no secret and grants nothing, so it need not be unpredictable.
 */
public final class RequestId {
  public static final String HEADER = "X-Request-Id";

  /** Matches an id of the client, or of a proxy, that is safe in a log line and in a header. */
  private static final Pattern SAFE = Pattern.compile("[A-Za-z0-9._-]{1,64}");

  private RequestId() {}

  /** Adds the header: the id that the request brings if it is a safe one, otherwise a new one. */
  public static void addHeader(HttpFields request, HttpFields.Mutable response) {
    List<String> sent = request.getValuesList(HEADER);
    boolean usable = sent.size() == 1 && SAFE.matcher(sent.get(0)).matches();
    response.put(
        HEADER,
        usable ? sent.get(0) : HexFormat.of().toHexDigits(ThreadLocalRandom.current().nextLong()));
  }

  /** Returns the id of a request, for the log. */
  public static String of(Context ctx) {
    return of(ctx.res());
  }

  /** Returns the id of the request of a response, for the log. */
  public static String of(HttpServletResponse response) {
    return response.getHeader(HEADER);
  }
}
