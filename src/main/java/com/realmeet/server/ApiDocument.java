package com.realmeet.server;

import io.javalin.http.Context;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;

/** The OpenAPI document of the routes, for people and for what generates clients. */
final class ApiDocument {
  private final byte[] yaml;

  ApiDocument() {
    try (InputStream in = ApiDocument.class.getResourceAsStream("/openapi.yaml")) {
      yaml = in.readAllBytes();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Answers with the document, under the media type of RFC 9512. */
  void answer(Context ctx) {
    ctx.res().setContentLength(yaml.length); // or Jetty would send it in chunks
    ctx.contentType("application/yaml").result(yaml);
  }
}
