package com.realmeet.server.http;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonStreamContext;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.core.exc.InputCoercionException;
import com.fasterxml.jackson.databind.DeserializationContext;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonMappingException;
import com.fasterxml.jackson.databind.MapperFeature;
import com.fasterxml.jackson.databind.SequenceWriter;
import com.fasterxml.jackson.databind.SerializerProvider;
import com.fasterxml.jackson.databind.cfg.CoercionAction;
import com.fasterxml.jackson.databind.cfg.CoercionInputShape;
import com.fasterxml.jackson.databind.deser.std.StdDeserializer;
import com.fasterxml.jackson.databind.exc.InvalidDefinitionException;
import com.fasterxml.jackson.databind.exc.MismatchedInputException;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.module.SimpleModule;
import com.fasterxml.jackson.databind.ser.std.StdSerializer;
import com.fasterxml.jackson.databind.ser.std.ToStringSerializer;
import com.fasterxml.jackson.databind.type.LogicalType;
import com.realmeet.server.core.Failure;
import io.javalin.config.JavalinConfig;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.lang.reflect.Type;
import java.nio.charset.StandardCharsets;
import java.time.DateTimeException;
import java.time.Instant;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.time.format.DateTimeFormatterBuilder;
import java.util.Arrays;
import java.util.Collection;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.function.Function;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** JSON mapper for requests and responses of clients. */
public final class Json {
  /** Ignores unknown keys, but does not coerce values: 5 is not a text, and "5" is not a number. */
  private static final JsonMapper MAPPER =
      JsonMapper.builder(
              // Jackson would keep thousands of names, which clients choose
              JsonFactory.builder().disable(JsonFactory.Feature.CANONICALIZE_FIELD_NAMES).build())
          .addModule(
              new SimpleModule()
                  .addSerializer(Instant.class, new ToISOString())
                  .addDeserializer(Instant.class, new FromISOString<>(Instant.class, Json::instant))
                  .addSerializer(LocalDate.class, ToStringSerializer.instance)
                  .addDeserializer(
                      LocalDate.class, new FromISOString<>(LocalDate.class, Json::date)))
          .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
          .disable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES)
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
          .enable(DeserializationFeature.FAIL_ON_NULL_FOR_PRIMITIVES)
          .enable(DeserializationFeature.FAIL_ON_NUMBERS_FOR_ENUMS)
          .disable(DeserializationFeature.ACCEPT_FLOAT_AS_INT)
          .disable(MapperFeature.ALLOW_COERCION_OF_SCALARS)
          .withCoercionConfig(
              LogicalType.Textual,
              textual ->
                  textual
                      .setCoercion(CoercionInputShape.Integer, CoercionAction.Fail)
                      .setCoercion(CoercionInputShape.Float, CoercionAction.Fail)
                      .setCoercion(CoercionInputShape.Boolean, CoercionAction.Fail))
          .build();

  /**
   * Matches an exponent from 1000: a double holds numbers up to 1.8e308, and pgjdbc fails to
   * convert 1e-999999999 to Postgres' numeric, which has at most 16,383 digits after the point.
   */
  private static final Pattern LARGE_EXPONENT = Pattern.compile("[eE][+-]?\\d{4}");

  private static final Instant MIN = Instant.parse("0001-01-01T00:00:00Z"); // Postgres has no 0
  private static final Instant MAX = Instant.parse("9999-12-31T23:59:59.999Z");

  private Json() {}

  /** Sets the mapper, which also converts parameters of {@code ctx.queryParamAsClass}. */
  public static void configure(JavalinConfig javalin) {
    javalin.jsonMapper(javalin());
    for (Class<?> type : List.of(UUID.class, Instant.class, LocalDate.class)) {
      javalin.validation.register(type, text -> MAPPER.convertValue(text, type));
    }
  }

  /** Returns a record as JSON. */
  static String text(Object body) {
    try {
      return MAPPER.writeValueAsString(body);
    } catch (JsonProcessingException e) {
      throw new IllegalStateException(e);
    }
  }

  /**
   * Returns the mapper for Javalin's {@code ctx.json(record)} and {@code
   * ctx.bodyAsClass(Record.class)}. A body that cannot be parsed becomes a Failure BAD_REQUEST with
   * the reason.
   */
  private static io.javalin.json.JsonMapper javalin() {
    return new io.javalin.json.JsonMapper() {
      @Override
      public String toJsonString(Object body, Type type) {
        return text(body);
      }

      @Override
      public InputStream toJsonStream(Object body, Type type) {
        return new ByteArrayInputStream(text(body).getBytes(StandardCharsets.UTF_8));
      }

      @Override
      public void writeToOutputStream(Stream<?> stream, OutputStream out) {
        try {
          SequenceWriter list = MAPPER.writer().writeValuesAsArray(out);
          for (Iterator<?> elements = stream.iterator(); elements.hasNext(); ) {
            list.write(elements.next());
          }
          list.close(); // not after a failure: the end would make the list look complete
        } catch (IOException e) {
          throw new UncheckedIOException(e);
        }
      }

      @Override
      public <T> T fromJsonString(String body, Type type) {
        T value;
        try (JsonParser tokens = MAPPER.createParser(body)) {
          requireStorable(tokens);
          value = MAPPER.readValue(body, MAPPER.constructType(type));
        } catch (JsonProcessingException e) {
          throw badRequest(e);
        } catch (IOException e) {
          throw new UncheckedIOException(e);
        }
        if (value == null) {
          throw Failure.badRequest("The body is null");
        }
        return value;
      }

      @Override
      public <T> T fromJsonStream(InputStream body, Type type) {
        try {
          return fromJsonString(new String(body.readAllBytes(), StandardCharsets.UTF_8), type);
        } catch (IOException e) {
          throw new UncheckedIOException(e);
        }
      }
    };
  }

  /**
   * Rejects what Postgres cannot store, wherever it is in a body: texts and names with U+0000 or
   * unpaired surrogates, and numbers that are out of range.
   */
  private static void requireStorable(JsonParser body) throws IOException {
    for (JsonToken token = body.nextToken(); token != null; token = body.nextToken()) {
      JsonStreamContext at = body.getParsingContext();
      boolean isName = token == JsonToken.FIELD_NAME;
      if ((isName || token == JsonToken.VALUE_STRING) && !isStorable(body.getText())) {
        throw Failure.badRequest(
            named(path(isName ? at.getParent() : at)) + " has a character that cannot be stored");
      }
      if (token.isNumeric() && !isStorableNumber(body)) {
        throw Failure.badRequest(named(path(at)) + " is out of range");
      }
    }
  }

  private static boolean isStorableNumber(JsonParser number) throws IOException {
    return Double.isFinite(number.getDoubleValue())
        && !LARGE_EXPONENT.matcher(number.getText()).find();
  }

  private static boolean isStorable(String text) {
    return text.codePoints().allMatch(c -> c != 0 && Character.getType(c) != Character.SURROGATE);
  }

  private static RuntimeException badRequest(JsonProcessingException e) {
    if (e instanceof JsonMappingException && e.getCause() instanceof Failure own) {
      return own; // thrown by the constructor of the record, or a setter of a class
    }
    if (e instanceof InvalidDefinitionException) {
      return new IllegalStateException(e);
    }
    if (e instanceof MismatchedInputException mismatch && mismatch.getTargetType() != null) {
      return Failure.badRequest(named(mismatch) + " is not " + expected(mismatch.getTargetType()));
    }
    if (e instanceof JsonMappingException number
        && number.getCause() instanceof InputCoercionException) {
      return Failure.badRequest(named(number) + " is out of range");
    }
    if (e instanceof JsonMappingException refused
        && refused.getCause() instanceof Exception cause
        && !(cause instanceof JsonProcessingException)) {
      return cause instanceof IllegalArgumentException
              || cause instanceof NullPointerException // by Objects.requireNonNull
          ? Failure.badRequest(named(refused) + " is not valid")
          : new IllegalStateException(refused);
    }
    if (e.getOriginalMessage().startsWith("Duplicate field")
        && e.getProcessor() instanceof JsonParser parser) {
      return Failure.badRequest(parser.getParsingContext().getCurrentName() + " is there twice");
    }
    int line = e.getLocation() == null ? 1 : e.getLocation().getLineNr();
    return Failure.badRequest("The body is not JSON, see line " + line);
  }

  private static String named(JsonMappingException e) {
    return named(
        e.getPath().stream()
            .map(step -> step(step.getFieldName(), step.getIndex()))
            .collect(Collectors.joining()));
  }

  /**
   * Returns the path of a value, such as {@code guests[1].name}, or "The body"; it quotes no value
   * of the client.
   */
  private static String named(String path) {
    return path.isEmpty() ? "The body" : path.replaceFirst("^\\.", "");
  }

  private static String path(JsonStreamContext at) {
    return at.inRoot()
        ? ""
        : path(at.getParent()) + step(at.getCurrentName(), at.getCurrentIndex());
  }

  private static String step(String name, int index) {
    return name == null ? "[" + index + "]" : "." + name;
  }

  private static String expected(Class<?> type) {
    if (type == Instant.class) {
      return "a time such as 2026-02-09T17:00:00Z";
    }
    if (type == LocalDate.class) {
      return "a date such as 2026-02-09";
    }
    if (type.isEnum()) {
      return "one of "
          + Arrays.stream(type.getEnumConstants())
              .map(constant -> MAPPER.valueToTree(constant).asText()) // as clients see it
              .collect(Collectors.joining(", "));
    }
    if (type == boolean.class || type == Boolean.class) {
      return "true or false";
    }
    if (type.isPrimitive() || Number.class.isAssignableFrom(type)) {
      return "a number";
    }
    if (Collection.class.isAssignableFrom(type) || type.isArray()) {
      return "a list";
    }
    if (type.isRecord() || Map.class.isAssignableFrom(type)) {
      return "an object";
    }
    return type == String.class ? "a text" : "a valid " + type.getSimpleName();
  }

  /** Serializes times like JavaScript's {@code toISOString}: UTC, exactly three fraction digits. */
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

  /** Parses times and dates of ISO 8601. */
  private static final class FromISOString<T> extends StdDeserializer<T> {
    private final Function<String, T> parse;

    FromISOString(Class<T> type, Function<String, T> parse) {
      super(type);
      this.parse = parse;
    }

    @Override
    public T deserialize(JsonParser json, DeserializationContext context) throws IOException {
      String text = json.getText();
      try {
        return parse.apply(text);
      } catch (DateTimeException e) {
        throw context.weirdStringException(text, handledType(), "not of ISO 8601");
      }
    }
  }

  /** Parses a time with any offset and a year of four digits (RFC 3339). */
  private static Instant instant(String text) {
    Instant time = OffsetDateTime.parse(text).toInstant();
    if (time.isBefore(MIN) || time.isAfter(MAX)) {
      throw new DateTimeException("its year is not one of four digits");
    }
    return time;
  }

  private static LocalDate date(String text) {
    return LocalDate.ofInstant(instant(text + "T00:00:00Z"), ZoneOffset.UTC);
  }
}
