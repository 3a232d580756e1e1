package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.testing.ServerProcess;
import java.io.IOException;
import java.io.InputStream;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.jar.Attributes;
import java.util.jar.JarFile;
import java.util.zip.ZipEntry;
import org.junit.jupiter.api.Test;

/** What is in the jar, and what is not. */
class JarContentTest {
  @Test
  void jarHoldsTheServerAndNoTests() throws IOException {
    try (JarFile jar = new JarFile(ServerProcess.JAR.toFile())) {
      List<String> names = jar.stream().map(ZipEntry::getName).toList();
      Set<String> distinct = new HashSet<>(names);

      assertEquals(names.size(), distinct.size(), "an entry is there twice");
      assertTrue(distinct.contains("db/migration/V1__create_users.sql"));
      assertFalse(
          names.stream()
              .anyMatch(name -> name.matches("com/realmeet/.*(Test|/dev/|/testing/|/bench/).*")));
      assertFalse(
          names.stream()
              .anyMatch(
                  name -> name.matches(".*(junit|zonky|testcontainers|swagger|networknt).*")));
      assertFalse(names.stream().anyMatch(name -> name.matches("META-INF/.*\\.(SF|RSA|DSA)")));

      try (InputStream launcher =
          jar.getInputStream(jar.getEntry("com/realmeet/server/Launcher.class"))) {
        assertEquals(52, launcher.readNBytes(8)[7], "not for Java 8");
      }

      Attributes manifest = jar.getManifest().getMainAttributes();
      assertEquals("com.realmeet.server.Launcher", manifest.getValue("Main-Class"));
      String version = manifest.getValue("Implementation-Version");
      assertTrue(version.matches("\\d+\\.\\d+\\.\\d+ \\(([0-9a-f]{7,}|\\$.*)\\)"), version);
    }
  }

  /** Of several files of one name, shading keeps the first unless told to merge them. */
  @Test
  void servicesOfAllLibrariesAreThere() throws IOException {
    try (JarFile jar = new JarFile(ServerProcess.JAR.toFile())) {
      ZipEntry plugins = jar.getEntry("META-INF/services/org.flywaydb.core.extensibility.Plugin");
      String text = new String(jar.getInputStream(plugins).readAllBytes());

      assertTrue(text.contains("org.flywaydb.database.postgresql.PostgreSQLDatabaseType"), text);
      assertTrue(
          text.contains("org.flywaydb.core.internal.resource.CoreResourceTypeProvider"), text);
    }
  }
}
