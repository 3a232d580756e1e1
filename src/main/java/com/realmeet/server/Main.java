package com.realmeet.server;

import io.javalin.Javalin;
import io.javalin.http.Context;
import io.javalin.util.JavalinBindException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.TimeZone;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.LongAdder;
import java.util.function.Supplier;
import java.util.logging.LogManager;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The server: its commands, its parts wired by hand, its routes, its start and stop. Tests start
 * this very class, on a free port.
 */
final class Main implements AutoCloseable {
  static {
    // Of the log, which keeps what it starts with: no Buddhist years, no Arabic digits.
    TimeZone.setDefault(TimeZone.getTimeZone("UTC"));
    Locale.setDefault(Locale.ROOT);
    // Jetty looks through all locales that there are; those of the whole world take 0.1 s to load.
    System.setProperty("java.locale.providers", "SPI");
  }

  private static final Logger log = LoggerFactory.getLogger(Main.class);

  private static final String USAGE =
      """
      Usage: java -jar real-meet-server.jar [serve | migrate | backfill | rehearse | help | version]

        serve      migrate the database, then serve (the default)
        migrate    migrate the database
        backfill   bring all users of the Clerk instance into the table
          --delete-missing   then make tombstones of rows that Clerk does not have
          --revive           bring back users whom the table calls deleted, but Clerk has
          --dry-run          write nothing, print what would change
          --force            delete even if Clerk lists nobody, or lacks more than 5 % of the rows;
                             never with a key of another Clerk instance
        rehearse   start, answer requests of its own, and stop, all within a minute: to make an archive
                   from which later starts are faster (see the README)
        help       print this
        version    print the version, its commit and Java's

      Settings come from the environment and from a .env file in the working directory.
      """;

  /** The longest that a stop takes, requests under way included. */
  private static final Duration STOP_LIMIT = HttpServer.STOP_WAIT.plusMillis(1500);

  private final Config config;
  private final Metrics metrics;
  private final Database database;
  private final ClerkKeys keys;
  private final UserDao rows;
  private final InstanceCheck instance;
  private final UserSync users;
  private final Workers workers = new Workers();
  private final SignIns signIns;
  private final SessionAuth auth;
  final Javalin app;
  private final LongAdder syncs = new LongAdder();
  private final AtomicBoolean stopping = new AtomicBoolean();

  public static void main(String[] args) {
    LogManager.getLogManager().reset(); // pgjdbc's own log, which is not ours
    // Seconds. Java 17 keeps idle connections to Clerk for 20 minutes; a NAT forgets them sooner,
    // and what is then sent on one is lost without a word.
    System.setProperty("jdk.httpclient.keepalive.timeout", "30");
    // HttpClient hands its answers to the common pool. By itself that has one thread less
    // than there are processors; and for one alone, Java 17 starts a thread per answer instead.
    if (Runtime.getRuntime().availableProcessors() < 3) {
      System.setProperty("java.util.concurrent.ForkJoinPool.common.parallelism", "2");
    }
    // What a heap below 32 GB has in each 64 bytes. Jetty would ask JMX, which takes 0.1 s to
    // start.
    System.setProperty("org.eclipse.jetty.util.referencesPerCacheLine", "16");
    System.setProperty(
        "jdk.console", "java.base"); // on Java 22 to 24, the other takes pipes for terminals
    System.exit(run(args, Config::load));
  }

  /**
   * Runs a command.
   *
   * @param settings read only by a command that needs them
   * @return 0 done, 1 failed, 2 wrong usage or settings
   */
  static int run(String[] args, Supplier<Config> settings) {
    String command = args.length == 0 ? "serve" : args[0];
    List<String> options = List.of(args).subList(Math.min(1, args.length), args.length);
    Optional<Backfill.Options> backfill = Backfill.Options.parse(options);
    boolean understood = command.equals("backfill") ? backfill.isPresent() : options.isEmpty();
    try {
      switch (understood ? command : "") {
        case "serve" -> serve(config(settings));
        case "migrate" -> Migrations.migrate(config(settings).directUrl());
        case "rehearse" -> rehearse(config(settings));
        case "backfill" -> {
          return backfill(config(settings), backfill.get()) ? 0 : 1;
        }
        case "help" -> System.out.print(USAGE);
        case "version" ->
            System.out.printf(
                "real-meet-server %s (%s) on Java %s%n",
                Version.NUMBER, Version.COMMIT, System.getProperty("java.version"));
        default -> {
          System.err.print(USAGE);
          return 2;
        }
      }
      return 0;
    } catch (Config.Invalid e) {
      e.problems.forEach(System.err::println);
      if (e.lacksSettings() && Files.notExists(Path.of(".env"))) {
        System.err.println(
            "There is no .env in "
                + Path.of("").toAbsolutePath()
                + ": copy .env.example there and fill it in, or set these in the environment");
      }
      return 2;
    } catch (StartFailure e) {
      log.error(e.getMessage());
      return 1;
    } catch (Throwable e) { // without this, threads still at work would keep the process
      log.error("A bug in real-meet-server", e);
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
    try (Database database =
        new Database(config.databaseUrl(), config.poolSize(), Metrics.none())) {
      String key = config.clerkSecretKey();
      ClerkApi clerk = new ClerkApi(config.clerkApiUrl(), key, Backfill.pace(key));
      UserDao users = new UserDao(database);
      InstanceCheck instance = new InstanceCheck(users, clerk);
      UserSync sync = new UserSync(users, clerk, instance);
      return new Backfill(clerk, users, sync, instance, options).run();
    }
  }

  /** Serves until the process is told to stop. */
  private static void serve(Config config) {
    Main server = start(config);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> stop(server), "stop"));
    if (config.isProduction() && !log.isDebugEnabled()) { // where refused tokens are looked for
      Background.run(server::rehearseWhenQuiet);
    }
    try {
      server.app.jettyServer().server().join();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /** Starts where nobody else comes, rehearses, and stops. */
  private static void rehearse(Config config) {
    try (Main server = start(config.local())) {
      server.rehearse();
    }
  }

  private void rehearseWhenQuiet() {
    if (Rehearsal.awaitQuiet(syncs::sum, Duration.ofSeconds(1)) && !stopping.get()) {
      rehearse();
    }
  }

  private void rehearse() {
    Rehearsal.run(config, rows, Rehearsal.REQUESTS);
  }

  /** Ends in time whatever hangs, such as a frozen database: the process ends with this thread. */
  private static void stop(Main server) {
    Thread closing = new Thread(server::close, "close");
    closing.setDaemon(true);
    closing.start();
    try {
      closing.join(STOP_LIMIT.toMillis());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /**
   * Makes the table ready, then listens.
   *
   * @throws StartFailure if the port is taken, the database cannot be used, or Clerk rejects the
   *     key
   */
  static Main start(Config config) {
    HttpServer.requireFreePort(config);
    Metrics metrics = Metrics.start(config);
    log.info(
        "Starting real-meet-server {} ({}) on Java {}",
        Version.NUMBER,
        Version.COMMIT,
        Runtime.version().feature());
    CompletableFuture<Void> migrated = Background.run(() -> Migrations.migrate(config.directUrl()));
    Main server = new Main(config, metrics);
    try {
      CompletableFuture<Void> keys = Background.run(server.auth::warmUp);
      Background.join(migrated);
      server.rows.warmUp();
      server.instance.atStart();
      Background.join(keys);
      server.app.start();
    } catch (JavalinBindException e) {
      server.release();
      throw HttpServer.cannotListen(config, e);
    } catch (RuntimeException e) {
      server.release();
      throw e;
    }
    log.info(
        "Ready on http://{} for {}",
        Config.authority(config.host(), server.port()),
        String.join(", ", config.origins()));
    return server;
  }

  /** A server that is neither prepared nor spoken of, for a rehearsal. */
  static Main unannounced(Config config) {
    Main server = new Main(config, Metrics.start(config));
    server.app.start();
    return server;
  }

  private Main(Config config, Metrics metrics) {
    this.config = config;
    this.metrics = metrics;
    SetupWarnings warnings = new SetupWarnings();
    ClerkApi clerk =
        new ClerkApi(config.clerkApiUrl(), config.clerkSecretKey(), metrics.meters, warnings);
    keys = new ClerkKeys(clerk, config.clerkJwtKey(), System::nanoTime, metrics.meters);
    database = new Database(config.databaseUrl(), config.poolSize(), metrics.meters);
    rows = new UserDao(database);
    instance = new InstanceCheck(rows, clerk);
    users = new UserSync(rows, clerk, instance);
    signIns = new SignIns(rows, users, workers, metrics.meters);
    auth = new SessionAuth(keys, config.authorizedParties(), warnings);
    Cors cors = new Cors(config.origins());
    Errors errors = new Errors(config.isProduction(), cors);
    Health health = new Health(database, stopping::get);
    ApiDocument document = new ApiDocument();
    app =
        Javalin.create(
            javalin -> {
              HttpServer.configure(javalin, config, cors, errors);
              errors.register(javalin);
              metrics.observe(javalin);
              javalin
                  .routes
                  .get("/api/health", health::alive)
                  .head("/api/health", health::alive)
                  .get("/api/ready", health::ready)
                  .head("/api/ready", health::ready)
                  .get("/api/openapi.yaml", document::answer)
                  .head("/api/openapi.yaml", document::answer)
                  .beforeMatched(HttpServer::refuseMalformedChunks)
                  .beforeMatched("/api/user/*", auth)
                  .post("/api/user/sync", this::sync)
                  .post("/api/user/refresh", this::refresh);
              ApiDocument.addPage(javalin, config);
              if (!config.webhookSecrets().isEmpty()) {
                ClerkWebhook webhook =
                    new ClerkWebhook(config.webhookSecrets(), users, keys::ids, metrics.meters);
                javalin.routes.post(
                    "/api/webhooks/clerk",
                    ctx -> ctx.future(() -> workers.run(() -> webhook.receive(ctx))));
              } else {
                javalin.routes.before(
                    "/api/webhooks/clerk", ctx -> warnings.webhookWithoutSecret(ctx.method()));
              }
            });
  }

  private record Synced(boolean success, User data) {}

  private void sync(Context ctx) {
    syncs.increment();
    String id = SessionAuth.userId(ctx);
    Deadline deadline = Deadline.in(UserSync.REQUEST_TIME);
    answer(ctx, signIns.sync(id, deadline, HttpServer.deadline(ctx)));
  }

  private void refresh(Context ctx) {
    String id = SessionAuth.userId(ctx);
    Deadline deadline = Deadline.in(UserSync.REQUEST_TIME);
    answer(ctx, HttpServer.deadline(ctx).limit(workers.supply(() -> users.refresh(id, deadline))));
  }

  private static void answer(Context ctx, CompletableFuture<User> user) {
    ctx.future(() -> user.thenAccept(row -> Json.answer(ctx, 200, new Synced(true, row))));
  }

  /** The port that the server listens on: the one asked for, or the free one that was found. */
  int port() {
    return app.port();
  }

  /** Finishes the requests under way, for 10 s at most, and closes everything. */
  @Override
  public void close() {
    if (stopping.compareAndSet(false, true)) {
      log.info("Stopping");
      release();
      log.info("Stopped");
    }
  }

  /** Closes everything, without a word. */
  void release() {
    try {
      app.jettyServer().server().stop(); // app.stop() would log a stack trace beside the line below
    } catch (Exception e) {
      log.warn(
          "Requests were cut off: they took longer than {} s", HttpServer.STOP_WAIT.toSeconds());
    }
    workers.close();
    signIns.close();
    keys.close();
    database.close();
    metrics.close();
  }
}
