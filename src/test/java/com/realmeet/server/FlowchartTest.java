package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.Failure;
import com.realmeet.server.dev.Flowchart;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** The picture of a sync in the README is made from its text, and the text is true. */
class FlowchartTest {
  private static final Path TEXT = Path.of("src/docs/sync.txt");
  private static final Path PICTURE = Path.of("src/docs/sync.svg");

  @Test
  void pictureIsMadeFromTheText() throws IOException {
    String svg = Flowchart.svg("The way of POST /api/user/sync", Files.readString(TEXT));
    Path made = Files.writeString(Path.of("target", "sync.svg"), svg);

    assertEquals(svg, Files.readString(PICTURE), "cp " + made + " " + PICTURE);
  }

  @Test
  void stepsAreClassesAndWaysOutAreFailures() throws IOException {
    String text = Files.readString(TEXT);
    Pattern.compile("\\b(core|database|clerk|http|users)\\.([A-Z]\\w+)")
        .matcher(text)
        .results()
        .map(name -> name.group(1) + "/" + name.group(2) + ".java")
        .forEach(
            file ->
                assertTrue(Files.exists(Path.of("src/main/java/com/realmeet/server", file)), file));
    List<String> failures =
        Stream.of(Failure.Kind.values()).map(kind -> kind.status + " " + kind.sentence).toList();
    Pattern.compile("-> ([45].*)")
        .matcher(text)
        .results()
        .forEach(way -> assertTrue(failures.contains(way.group(1)), way.group(1)));
  }
}
