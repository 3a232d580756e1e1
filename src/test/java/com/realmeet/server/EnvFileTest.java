package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.realmeet.server.dev.StandInClerk;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The {@code .env} of the working directory, as the jar reads it. */
class EnvFileTest {
  private static final String PORT = "PORT must be a number between 0 and 65535";

  @TempDir private Path directory;

  /** What the jar says of settings of which at least one is wrong. */
  private List<String> problems(String file, Map<String, String> environment) throws IOException {
    Files.writeString(directory.resolve(".env"), file);
    try (ServerProcess server = new ServerProcess(directory, environment)) {
      assertEquals(2, server.exitCode(), server::output);
      return server.lines();
    }
  }

  @Test
  void everyUsualFormIsRead() throws IOException {
    byte[] key = StandInClerk.SigningKey.usual().pair().getPublic().getEncoded();
    String file =
        """
        # A comment

        DATABASE_URL="postgresql://app:p%%23w@db.internal/app?sslmode=require"
        CLERK_SECRET_KEY='sk_test_abc'
        NODE_ENV = production  # after a value
        CLIENT_URL=https://app.example.com,https://b.example.com\r
        CLERK_JWT_KEY="-----BEGIN PUBLIC KEY-----
        %s
        -----END PUBLIC KEY-----"
        PORT=wrong
        """
            .formatted(Base64.getMimeEncoder(64, "\n".getBytes()).encodeToString(key));

    assertEquals(List.of(PORT), problems(file, Map.of()));
  }

  @Test
  void environmentWins() throws IOException {
    Map<String, String> environment = new HashMap<>();
    environment.put("DATABASE_URL", "postgresql://app@db.internal/app");
    environment.put("CLERK_SECRET_KEY", "sk_test_abc");
    environment.put("CLIENT_URL", "https://app.example.com");
    environment.put("PORT", "wrong");

    assertEquals(
        List.of(PORT),
        problems("DATABASE_URL=a\nCLERK_SECRET_KEY=b\nCLIENT_URL=*\nPORT=3001", environment));
  }

  @ParameterizedTest
  @ValueSource(strings = {"secret line", "NODE_ENV=\"secret\nCLIENT_URL=http://localhost:3000"})
  void malformedFileIsRefusedAndNotShown(String line) throws IOException {
    assertEquals(
        List.of(".env has a line that is not NAME=value, or an unclosed quote"),
        problems("DATABASE_URL=postgresql://app@db.internal/app\n" + line + "\n", Map.of()));
  }
}
