package com.realmeet.server.http;

import com.realmeet.server.core.Access;
import io.javalin.config.JavalinConfig;
import io.javalin.http.Context;
import io.javalin.http.staticfiles.Location;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Properties;
import java.util.Set;

/**
 * Serves the OpenAPI document of the routes, and in development a page (Swagger UI) on which to try
 * them.
 */
public final class ApiDocument {
  /**
   * Resource with the version of Swagger UI; only the tests and {@code make dev} have that library.
   */
  private static final String SWAGGER_UI = "/META-INF/maven/org.webjars/swagger-ui/pom.properties";

  private final byte[] yaml = bytes("/openapi.yaml");

  /** Responds with the document, under the media type of RFC 9512. */
  public void respond(Context ctx) {
    ctx.contentType("application/yaml").result(yaml);
  }

  /**
   * Adds the page if Swagger UI is on the class path.
   *
   * @param clerkApiUrl base URL of Clerk's API, which is written into the page
   */
  public static void addPage(JavalinConfig javalin, String clerkApiUrl) {
    if (ApiDocument.class.getResource(SWAGGER_UI) == null) {
      return;
    }
    String page =
        new String(bytes("/docs.html"), StandardCharsets.UTF_8)
            .replace("CLERK_API_URL", clerkApiUrl);
    javalin.routes.get("/api/docs", ctx -> ctx.html(page), Access.PUBLIC);
    javalin.staticFiles.add(
        files -> {
          files.hostedPath = "/api/docs";
          files.directory = "/META-INF/resources/webjars/swagger-ui/" + swaggerUiVersion();
          files.location = Location.CLASSPATH;
          files.roles = Set.of(Access.PUBLIC);
          files.headers = Map.of(); // the server's own headers apply
        });
  }

  private static String swaggerUiVersion() {
    try {
      Properties properties = new Properties();
      properties.load(new ByteArrayInputStream(bytes(SWAGGER_UI)));
      return properties.getProperty("version");
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static byte[] bytes(String resource) {
    try (InputStream in = ApiDocument.class.getResourceAsStream(resource)) {
      return in.readAllBytes();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
