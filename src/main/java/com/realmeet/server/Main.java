package com.realmeet.server;

import com.realmeet.server.clerk.ClerkApi;
import com.realmeet.server.clerk.ClerkKeys;
import com.realmeet.server.clerk.SessionAuth;
import com.realmeet.server.clerk.SetupWarnings;
import com.realmeet.server.core.Access;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.StartupException;
import com.realmeet.server.core.Threads;
import com.realmeet.server.database.Database;
import com.realmeet.server.database.Migrations;
import com.realmeet.server.database.SqlErrors;
import com.realmeet.server.http.ApiDocument;
import com.realmeet.server.http.Cors;
import com.realmeet.server.http.Errors;
import com.realmeet.server.http.Health;
import com.realmeet.server.http.JettyServer;
import com.realmeet.server.http.JettyWorkarounds;
import com.realmeet.server.http.Json;
import com.realmeet.server.http.Success;
import com.realmeet.server.users.Backfill;
import com.realmeet.server.users.ClerkWebhook;
import com.realmeet.server.users.InstanceCheck;
import com.realmeet.server.users.Poll;
import com.realmeet.server.users.UserDao;
import com.realmeet.server.users.UserSync;
import io.javalin.Javalin;
import io.javalin.config.JavalinConfig;
import io.javalin.http.Context;
import io.javalin.router.JavalinDefaultRoutingApi;
import io.javalin.util.JavalinBindException;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Supplier;
import org.jdbi.v3.core.JdbiException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Runs the commands, wires the parts of the server by hand, declares its routes, and starts and
 * stops it. Tests start this class on a free port.
 */
public final class Main implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(Main.class);

  private static final String USAGE =
      """
      Usage: java -jar real-meet-server.jar [serve | migrate | backfill | check | help | version]

        serve      migrate the database, then serve (the default)
        migrate    migrate the database
        backfill   bring all users of the Clerk instance into the table
          --delete-missing   then make tombstones of rows that Clerk does not have
          --revive           bring back users whom the table calls deleted, but Clerk has
          --dry-run          write nothing, print what would change
          --force            delete even if Clerk lists nobody, or lacks more than 5 % of the rows;
                             never with a key of another Clerk instance
        check      look at everything that can be wrong, and say what to do; changes nothing
          --json             print it for machines
        help       print this
        version    print the version, its commit and Java's

      Settings come from the environment and from a .env file in the working directory.
      """;

  /** Maximum duration of a stop: the graceful shutdown of Jetty, and 1.5 s to close the rest. */
  private static final Duration CLOSE_TIMEOUT = JettyServer.STOP_TIMEOUT.plusMillis(1500);

  /** Version and commit such as {@code 1.0.0 (be9be96)}, from the jar's manifest. */
  private static final String VERSION =
      Optional.ofNullable(Main.class.getPackage().getImplementationVersion())
          .map(version -> version.replaceFirst(" \\(\\$.*", "")) // built without .git
          .orElse("development");

  private final Metrics metrics;
  private final Database database;
  private final ClerkKeys keys;
  private final UserDao userDao;
  private final InstanceCheck instance;
  private final UserSync userSync;

  /** Public for tests, which poll without waiting for the interval. */
  public final Poll poll;

  private final SetupWarnings warnings = new SetupWarnings();
  private final SessionAuth auth;

  /** Public for tests, which inspect Javalin and Jetty. */
  public final Javalin app;

  private final AtomicBoolean stopping = new AtomicBoolean();

  /** Runs the command that the arguments name, and exits with its code. */
  public static void main(String[] args) {
    System.exit(run(args, Config::load));
  }

  /**
   * Runs a command.
   *
   * @param settings called only by a command that needs settings
   * @return 0 done, 1 failed, 2 wrong usage or settings
   */
  public static int run(String[] args, Supplier<Config> settings) {
    String command = args.length == 0 ? "serve" : args[0];
    List<String> options = List.of(args).subList(Math.min(1, args.length), args.length);
    Optional<Backfill.Options> backfill = Backfill.Options.parse(options);
    boolean json = command.equals("check") && options.equals(List.of("--json"));
    boolean understood =
        command.equals("backfill") ? backfill.isPresent() : options.isEmpty() || json;
    try {
      switch (understood ? command : "") {
        case "serve" -> serve(config(settings));
        case "migrate" -> Migrations.migrate(config(settings).directUrl());
        case "backfill" -> {
          return backfill(config(settings), backfill.get()) ? 0 : 1;
        }
        case "check" -> {
          return Check.run(settings, json, Check.TIMEOUT, System.out);
        }
        case "help" -> System.out.print(USAGE);
        case "version" ->
            System.out.printf(
                "real-meet-server %s on Java %s%n", VERSION, System.getProperty("java.version"));
        default -> {
          System.err.print(USAGE);
          return 2;
        }
      }
      return 0;
    } catch (StartupException e) {
      e.lines().forEach(e.exitCode() == 2 ? System.err::println : log::error);
      return e.exitCode();
    } catch (JdbiException e) { // a role without rights, for example
      SqlErrors.whyRejected(e)
          .ifPresentOrElse(log::error, () -> log.error("Unhandled exception", e));
      return 1;
    } catch (Throwable e) { // otherwise non-daemon threads would keep the process alive
      log.error("Unhandled exception", e);
      return 1;
    }
  }

  private static Config config(Supplier<Config> settings) {
    Config config = settings.get();
    config.warnings().forEach(log::warn);
    return config;
  }

  private static boolean backfill(Config config, Backfill.Options options) {
    if (!options.dryRun()) {
      Migrations.migrate(config.directUrl());
    }
    String key = config.clerkSecretKey();
    ClerkApi clerk =
        new ClerkApi(
            config.clerkApiUrl(),
            key,
            config.clerkFields(),
            Metrics.noMeters(),
            new SetupWarnings(),
            Backfill.rateLimiter(key));
    try (Database database =
        new Database(config.databaseUrl(), config.poolSize(), Metrics.noMeters())) {
      UserDao userDao = new UserDao(database);
      InstanceCheck instance = new InstanceCheck(userDao, clerk);
      try (UserSync userSync = new UserSync(userDao, clerk, instance, Metrics.noMeters())) {
        return new Backfill(clerk, userDao, userSync, instance, options).run();
      }
    }
  }

  /** Serves until the process receives a signal such as SIGTERM. */
  private static void serve(Config config) {
    Main server = start(config);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> stop(server), "stop"));
    try {
      server.app.jettyServer().server().join();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /**
   * Closes the server within {@link #CLOSE_TIMEOUT} even if a database hangs: the process ends when
   * this shutdown hook returns.
   */
  private static void stop(Main server) {
    Threads.run(server::close)
        .completeOnTimeout(null, CLOSE_TIMEOUT.toMillis(), TimeUnit.MILLISECONDS)
        .join();
  }

  /** Starts the server alone, see {@link #start(Config, Application)}. */
  public static Main start(Config config) {
    return start(config, Application.NONE);
  }

  /**
   * Migrates the database, then listens.
   *
   * @param application additional tables and routes
   * @throws StartupException if another process has the port, the database cannot be used, or Clerk
   *     rejects the key (which is not tried with CLERK_JWT_KEY)
   */
  public static Main start(Config config, Application application) {
    JettyServer.requireFreePort(config.host(), config.port(), "PORT");
    Metrics metrics = Metrics.start(config);
    log.info("Starting real-meet-server {} on Java {}", VERSION, Runtime.version().feature());
    CompletableFuture<Void> migrated =
        Threads.run(() -> Migrations.migrate(config.directUrl(), application.migrations()));
    Main server;
    try {
      server = new Main(config, metrics, application);
    } catch (RuntimeException e) { // two routes are the same, for example
      metrics.close();
      throw e;
    }
    try {
      CompletableFuture<Void> keys = Threads.run(server.auth::warmUp);
      Threads.join(migrated);
      server.userDao.requireTable();
      CompletableFuture<Void> instance = server.instance.atStart();
      Threads.join(keys);
      if (config.pollSeconds() > 0) {
        server.poll.start(Duration.ofSeconds(config.pollSeconds()));
      }
      JettyWorkarounds.initializeServlet(server.app);
      server.app.start();
      Threads.join(instance);
    } catch (JavalinBindException e) {
      server.closeAll();
      throw JettyServer.cannotListen(config.host(), config.port(), "PORT", e);
    } catch (RuntimeException e) {
      server.closeAll();
      throw e;
    }
    log.info(
        "Ready on http://{} for {}",
        JettyServer.authority(config.host(), server.port()),
        String.join(", ", config.origins()));
    return server;
  }

  private Main(Config config, Metrics metrics, Application application) {
    this.metrics = metrics;
    ClerkApi clerk =
        new ClerkApi(
            config.clerkApiUrl(),
            config.clerkSecretKey(),
            config.clerkFields(),
            metrics.meters,
            warnings,
            () -> {});
    keys = new ClerkKeys(clerk, config.clerkJwtKey(), System::nanoTime, metrics.meters);
    auth = new SessionAuth(keys, config.authorizedParties(), warnings);
    database = new Database(config.databaseUrl(), config.poolSize(), metrics.meters);
    userDao = new UserDao(database);
    instance = new InstanceCheck(userDao, clerk);
    userSync = new UserSync(userDao, clerk, instance, metrics.meters);
    poll = new Poll(clerk, userDao, userSync, instance, database, metrics.meters);
    app = Javalin.create(javalin -> configure(javalin, config, application));
  }

  private void configure(JavalinConfig javalin, Config config, Application application) {
    Cors cors = new Cors(config.origins());
    Errors errors = new Errors(config.isProduction(), cors, stopping::get, SqlErrors::whyRejected);
    JettyServer.configure(
        javalin, config.host(), config.port(), config.isDevelopment(), cors, errors);
    errors.register(javalin);
    metrics.observe(javalin);
    Json.configure(javalin);
    javalin.routes.beforeMatched(JettyWorkarounds::refuseMalformedChunks);
    javalin.routes.beforeMatched(auth); // skips public routes
    declareRoutes(javalin.routes, config);
    application.declareRoutes(javalin.routes, database, userSync);
    if (config.isDevelopment()) {
      ApiDocument.addPage(javalin, config.clerkApiUrl());
    }
  }

  /**
   * Declares the routes; yours stand here, too: with their tables they are what comments call the
   * application. It runs while the database is migrated, so it reads no table. A route requires a
   * session token unless its role is PUBLIC. A handler may block, calls {@link UserSync#caller}
   * before it writes a reference to the caller's row, and throws a {@link Failure} with a sentence.
   */
  private void declareRoutes(JavalinDefaultRoutingApi routes, Config config) {
    Health health = new Health(database::ping, stopping::get);
    ApiDocument document = new ApiDocument();
    routes.get("/api/health", health::alive, Access.PUBLIC);
    routes.get("/api/ready", health::ready, Access.PUBLIC);
    routes.get("/api/openapi.yaml", document::respond, Access.PUBLIC);
    routes.post("/api/user/sync", this::sync);
    routes.post("/api/user/refresh", this::refresh);
    if (config.webhookSecrets().isEmpty()) {
      routes.before("/api/webhooks/clerk", ctx -> warnings.webhookWithoutSecret(ctx.method()));
    } else {
      ClerkWebhook webhook =
          new ClerkWebhook(config.webhookSecrets(), userSync, instance, keys::ids, metrics.meters);
      routes.post("/api/webhooks/clerk", webhook::receive, Access.PUBLIC);
    }
  }

  private void sync(Context ctx) {
    ctx.json(Success.of(userSync.caller(ctx)));
  }

  private void refresh(Context ctx) {
    ctx.json(Success.of(userSync.refresh(SessionAuth.userId(ctx), Deadline.of(ctx))));
  }

  /**
   * Returns the port that the server listens on: PORT, or the free port that was chosen if that is
   * 0.
   */
  public int port() {
    return app.port();
  }

  /** Finishes the requests in flight, for at most 10 s, and closes everything. */
  @Override
  public void close() {
    if (stopping.compareAndSet(false, true)) {
      log.info("Stopping");
      closeAll();
      log.info("Stopped");
    }
  }

  private void closeAll() {
    poll.close();
    try {
      app.jettyServer().server().stop(); // app.stop() would log a stack trace beside the line below
    } catch (Exception e) {
      log.warn("Jetty did not stop gracefully, requests may have been cut off: {}", e.toString());
    }
    userSync.close();
    keys.close();
    database.close();
    metrics.close();
  }
}
