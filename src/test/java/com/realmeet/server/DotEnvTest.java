package com.realmeet.server;

import static java.nio.charset.StandardCharsets.ISO_8859_1;
import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.json.JsonMapper;
import java.io.IOException;
import java.io.InputStream;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import java.util.zip.GZIPInputStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/** The reader of {@code .env}, against what the npm package dotenv has read in the same files. */
class DotEnvTest {
  /** As {@code src/test/js/dotenv.cjs} has written it: a character of the file is a byte. */
  private record Recorded(String name, String file, Map<String, String> values) {
    void check() {
      byte[] bytes = file.getBytes(ISO_8859_1);
      assertEquals(values, new DotEnv(bytes).values(), () -> new String(bytes, UTF_8));
    }

    @Override
    public String toString() {
      return name;
    }
  }

  private static List<Recorded> recorded(String name) throws IOException {
    try (InputStream file = DotEnvTest.class.getResourceAsStream("/dotenv/" + name);
        InputStream json = name.endsWith(".gz") ? new GZIPInputStream(file) : file) {
      return new JsonMapper().readValue(json, new TypeReference<>() {});
    }
  }

  static Stream<Recorded> chosenFiles() throws IOException {
    return Stream.concat(recorded("chosen.json").stream(), recorded("long.json.gz").stream());
  }

  @ParameterizedTest
  @MethodSource("chosenFiles")
  void fileIsReadAsNodeReadsIt(Recorded file) {
    file.check();
  }

  @Test
  void tenThousandRandomFilesAreReadAsNodeReadsThem() throws IOException {
    List<Recorded> files = recorded("random.json.gz");

    files.forEach(Recorded::check);
    assertEquals(10_000, files.size());
  }

  /** In quadratic time this would take minutes, and with a stack frame a repetition overflow. */
  @ParameterizedTest
  @CsvSource(
      quoteCharacter = '~',
      ignoreLeadingAndTrailingWhitespace = false,
      value = {
        "A=\",x",
        "A=\",\\\"",
        "A=',\\' ",
        ",A=`\\`⏎",
        ",A=\"⏎",
        ",A=⏎",
        ",A:⏎",
        ",A",
        ",export⏎",
        "A,␣",
        "A=x,␣",
        ",⏎",
        "A=\",⏎",
        ",A='\\' ⏎B=\"\\\" ⏎"
      })
  void quarterOfAMegabyteIsReadInLinearTime(String opening, String repeated) {
    String piece = repeated.replace('⏎', '\n').replace('␣', ' ');
    String text = (opening == null ? "" : opening) + piece.repeat(250_000 / piece.length());

    assertTimeoutPreemptively(
        Duration.ofSeconds(7), () -> new DotEnv(text.getBytes(UTF_8)).hint("A"));
  }
}
