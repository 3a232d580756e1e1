package com.realmeet.server;

import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.json.JsonWriteFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import com.fasterxml.jackson.databind.SerializerProvider;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.module.SimpleModule;
import com.fasterxml.jackson.databind.ser.std.StdSerializer;
import io.javalin.http.Context;
import java.io.IOException;
import java.time.Instant;
import java.time.format.DateTimeFormatter;
import java.time.format.DateTimeFormatterBuilder;

/** The two dialects of JSON that we speak: our own to clients, and Clerk's. */
final class Json {
  /** Clerk's: snake_case. */
  static final JsonMapper CLERK =
      JsonMapper.builder()
          .propertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE)
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
          .build();

  private static final JsonMapper OURS =
      JsonMapper.builder()
          .addModule(new SimpleModule().addSerializer(Instant.class, new ToISOString()))
          .enable(JsonWriteFeature.COMBINE_UNICODE_SURROGATES_IN_UTF8) // emoji, as JavaScript does
          .build();

  private Json() {}

  /** Answers with a record as JSON. */
  static void answer(Context ctx, int status, Object body) {
    HttpServer.answer(ctx, status, "application/json", bytes(body));
  }

  /** A record as UTF-8 JSON. */
  static byte[] bytes(Object body) {
    try {
      return OURS.writeValueAsBytes(body);
    } catch (JsonProcessingException e) {
      throw new IllegalStateException(e);
    }
  }

  /** Times as JavaScript's {@code toISOString} writes them: UTC, exactly three fraction digits. */
  private static final class ToISOString extends StdSerializer<Instant> {
    private static final DateTimeFormatter FORMAT =
        new DateTimeFormatterBuilder().appendInstant(3).toFormatter();

    ToISOString() {
      super(Instant.class);
    }

    @Override
    public void serialize(Instant time, JsonGenerator json, SerializerProvider provider)
        throws IOException {
      json.writeString(FORMAT.format(time));
    }
  }
}
