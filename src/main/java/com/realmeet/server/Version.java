package com.realmeet.server;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.jar.Attributes;
import java.util.jar.Manifest;

/** Which build this is: from the jar's manifest, or "development" outside a jar. */
final class Version {
  /** Such as {@code 1.0.0}. */
  static final String NUMBER;

  /** Abbreviated git commit. */
  static final String COMMIT;

  static {
    Attributes manifest = manifest();
    boolean ours = "real-meet-server".equals(manifest.getValue("Implementation-Title"));
    NUMBER = ours ? manifest.getValue("Implementation-Version") : "development";
    String commit = ours ? manifest.getValue("Implementation-Commit") : null;
    COMMIT = commit != null && commit.matches("[0-9a-f]+") ? commit : "unknown"; // without .git
  }

  private Version() {}

  private static Attributes manifest() {
    try (InputStream in = Version.class.getResourceAsStream("/META-INF/MANIFEST.MF")) {
      return in == null ? new Attributes() : new Manifest(in).getMainAttributes();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
