package com.realmeet.server;

import static com.realmeet.server.core.CheckLine.fail;
import static com.realmeet.server.core.CheckLine.ok;
import static com.realmeet.server.core.CheckLine.warn;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.realmeet.server.clerk.ClerkApi;
import com.realmeet.server.clerk.ClerkCheck;
import com.realmeet.server.core.CheckLine;
import com.realmeet.server.core.CheckLine.Level;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.StartupException;
import com.realmeet.server.core.Threads;
import com.realmeet.server.database.DatabaseCheck;
import com.realmeet.server.http.JettyServer;
import com.realmeet.server.users.UsersCheck;
import java.io.PrintStream;
import java.lang.management.ManagementFactory;
import java.time.Duration;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * Runs the command {@code check}: verifies the settings, the database, Clerk and the rows, and
 * prints the results as one list. It changes nothing and ends within 10 s even if a dependency
 * hangs.
 */
final class Check {
  /** Time for all checks: 1 s less than the 10 s in which the command ends. */
  static final Duration TIMEOUT = Duration.ofSeconds(9);

  /** Latest LTS version of Java, which starts fastest. */
  private static final int RECOMMENDED_JAVA = 25;

  /** Heap size in MB for which the server is tested, as in {@code jvm.options}. */
  private static final int RECOMMENDED_HEAP_MB = 128;

  /** Heap size in MB below which garbage collection takes most of the processor time. */
  private static final int MIN_HEAP_MB = 48;

  /** JSON that {@code check --json} prints. */
  private record Report(Level level, List<CheckLine> lines) {}

  private final Duration timeout;
  private final Deadline deadline;
  private final List<CheckLine> process = new CopyOnWriteArrayList<>();
  private final List<CheckLine> database = new CopyOnWriteArrayList<>();
  private final List<CheckLine> clerk = new CopyOnWriteArrayList<>();
  private final List<CheckLine> users = new CopyOnWriteArrayList<>();

  private Check(Duration timeout) {
    this.timeout = timeout;
    deadline = Deadline.in(timeout);
  }

  /**
   * Runs all checks and prints their lines.
   *
   * @param timeout of all checks together; the lines found until then are printed
   * @return 0; 1 if something fails; 2 if settings are wrong
   */
  static int run(Supplier<Config> settings, boolean json, Duration timeout, PrintStream out) {
    Check check = new Check(timeout);
    int exitCode = check.look(settings);
    List<CheckLine> lines = check.all().toList();
    out.print(json ? json(lines) : text(lines));
    out.flush();
    return exitCode;
  }

  private int look(Supplier<Config> settings) {
    process.add(java());
    process.add(memory());
    Config config;
    try {
      config = settings.get();
    } catch (StartupException e) {
      e.lines().forEach(line -> process.add(fail("settings", line)));
      process.add(warn("settings", "everything else is looked at once the settings can be used"));
      return e.exitCode();
    }
    settings(config);
    CompletableFuture<Optional<ClerkApi>> clerkApi = Threads.supply(() -> clerk(config));
    CompletableFuture<Void> rows = Threads.run(() -> database(config, clerkApi));
    process.add(port("PORT", config.host(), config.port()));
    if (config.metricsPort() != null) {
      process.add(port("METRICS_PORT", config.host(), config.metricsPort()));
    }
    await(clerkApi, "clerk", clerk);
    await(rows, "database", database);
    return all().anyMatch(line -> line.level() == Level.FAIL) ? 1 : 0;
  }

  private Stream<CheckLine> all() {
    return Stream.of(process, database, clerk, users).flatMap(List::stream);
  }

  /**
   * Waits for a part of the checks until the deadline: if it hangs, for example at a name server,
   * the lines found so far are still printed.
   */
  private void await(CompletableFuture<?> work, String subject, List<CheckLine> lines) {
    try {
      work.get(deadline.remaining().toNanos(), TimeUnit.NANOSECONDS);
    } catch (TimeoutException e) {
      lines.add(
          fail(
              subject,
              "could not be looked at to the end within "
                  + timeout.toSeconds()
                  + " s: it is slow, or this machine is busy; check again"));
    } catch (ExecutionException e) { // a bug: what was found so far is printed nevertheless
      lines.add(fail(subject, "could not be looked at to the end: " + e.getCause()));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  // Checks within this process

  private static CheckLine java() {
    int version = Runtime.version().feature();
    return ok(
        "java",
        version >= RECOMMENDED_JAVA
            ? "Java " + version
            : "Java %d; %d is recommended for production, it starts faster"
                .formatted(version, RECOMMENDED_JAVA));
  }

  private static CheckLine memory() {
    long megabytes = Runtime.getRuntime().maxMemory() >> 20;
    String sentence = "the heap may grow to %d MB".formatted(megabytes);
    if (!isHeapSet()) {
      return warn(
          "memory",
          sentence
              + " here, a part of the machine's memory: if the server is started like this check, add"
              + " -Xmx%dm, as src/deploy/start does".formatted(RECOMMENDED_HEAP_MB));
    }
    return megabytes < MIN_HEAP_MB
        ? warn("memory", sentence + ", which is little: -Xmx%dm".formatted(RECOMMENDED_HEAP_MB))
        : ok("memory", sentence);
  }

  private static boolean isHeapSet() {
    return ManagementFactory.getRuntimeMXBean().getInputArguments().stream()
        .anyMatch(option -> option.matches("-Xmx.*|-XX:(MaxHeapSize|MaxRAMPercentage)=.*"));
  }

  /** Adds the warnings about settings that need no connection. */
  private void settings(Config config) {
    int before = process.size();
    config.warnings().forEach(warning -> process.add(warn("settings", warning)));
    if (config.isProduction() && config.clerkSecretKey().startsWith("sk_test_")) {
      process.add(
          warn(
              "settings",
              "NODE_ENV is production, but CLERK_SECRET_KEY is of a development instance: real"
                  + " users need sk_live_..."));
    }
    if (config.clerkFields().contains("private_metadata")) {
      process.add(
          warn(
              "settings",
              "CLERK_FIELDS keeps private_metadata, so whoever can read the table sees what Clerk"
                  + " keeps from front ends: leave it out, or grant only some columns of users"));
    }
    if (process.size() == before) {
      process.add(ok("settings", "all can be used"));
    }
    process.add(webhook(config));
  }

  private static CheckLine webhook(Config config) {
    if (!config.webhookSecrets().isEmpty()) {
      return ok("webhook", "events are verified by CLERK_WEBHOOK_SIGNING_SECRET");
    }
    return warn(
        "webhook",
        "CLERK_WEBHOOK_SIGNING_SECRET is not set, so changes at Clerk come "
            + (config.pollSeconds() == 0
                ? "with backfill only"
                : "with the poll only, minutes later")
            + ": set up the webhook, see \"Following Clerk\"");
  }

  private static CheckLine port(String setting, String host, int port) {
    String subject = setting.equals("PORT") ? "port" : "metrics";
    try {
      JettyServer.requireFreePort(host, port, setting);
      return ok(subject, port == 0 ? "a free port is looked for" : "port " + port + " is free");
    } catch (StartupException e) {
      return e.getMessage().contains("already in use")
          ? warn(
              subject,
              "port %d is in use: by this server if it runs, else see %s".formatted(port, setting))
          : fail(subject, e.getMessage());
    }
  }

  // Checks that call Clerk and the database

  private Optional<ClerkApi> clerk(Config config) {
    return new ClerkCheck(config.clerkApiUrl(), config.clerkSecretKey(), clerk::add)
        .run(config.clerkJwtKey());
  }

  private void database(Config config, CompletableFuture<Optional<ClerkApi>> clerkApi) {
    try (DatabaseCheck check =
        new DatabaseCheck(config.databaseUrl(), config.directUrl(), database::add)) {
      check.run();
      if (check.serving() != null) {
        UsersCheck rows = new UsersCheck(check.serving());
        rows.checkRows(database::add);
        Threads.join(clerkApi).ifPresent(api -> rows.compare(api, users::add));
      }
    }
  }

  // Output

  private static String text(List<CheckLine> lines) {
    return lines.stream()
        .map(
            line ->
                "%-4s  %-12s  %s%n"
                    .formatted(
                        line.level().name().toLowerCase(Locale.ROOT),
                        line.subject(),
                        line.sentence().replaceAll("\\p{Cntrl}", "?")))
        .collect(Collectors.joining());
  }

  private static String json(List<CheckLine> lines) {
    Level worst =
        lines.stream().map(CheckLine::level).max(Comparator.naturalOrder()).orElse(Level.OK);
    try {
      return new JsonMapper().writeValueAsString(new Report(worst, lines)) + "\n";
    } catch (JsonProcessingException e) {
      throw new IllegalStateException(e);
    }
  }
}
