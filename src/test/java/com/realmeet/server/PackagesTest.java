package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** Dependencies between packages go one way, so that each can be read without the ones above it. */
class PackagesTest {
  private static final Path SOURCES = Path.of("src", "main", "java", "com", "realmeet", "server");

  /**
   * Maps a package to those that it may import. The root, which wires everything, may import all.
   */
  private static final Map<String, Set<String>> ALLOWED =
      Map.of(
          "core", Set.of(),
          "database", Set.of("core"),
          "clerk", Set.of("core"),
          "http", Set.of("core"),
          "users", Set.of("core", "database", "clerk"));

  private static final Pattern USE = Pattern.compile("\\bcom\\.realmeet\\.server\\.(\\w+)\\b");

  @Test
  void packagesImportOnlyWhatLiesBelowThem() throws IOException {
    Set<String> violations = new TreeSet<>();
    Set<String> packages = new TreeSet<>();
    for (Path file : sources()) {
      String own = SOURCES.relativize(file).getName(0).toString();
      if (own.endsWith(".java")) {
        continue;
      }
      packages.add(own);
      // An application's package may use all of them, but none of the server's may use it.
      Set<String> allowed = ALLOWED.getOrDefault(own, ALLOWED.keySet());
      USE.matcher(Files.readString(file))
          .results()
          .map(use -> use.group(1))
          .filter(used -> !used.equals(own) && !allowed.contains(used))
          .forEach(used -> violations.add(file + " uses " + used));
    }

    assertEquals(Set.of(), violations);
    assertTrue(packages.containsAll(ALLOWED.keySet()), packages::toString);
  }

  private static List<Path> sources() throws IOException {
    try (Stream<Path> files = Files.walk(SOURCES)) {
      return files.filter(file -> file.toString().endsWith(".java")).toList();
    }
  }
}
