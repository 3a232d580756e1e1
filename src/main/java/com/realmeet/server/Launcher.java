package com.realmeet.server;

import java.util.Locale;
import java.util.TimeZone;
import java.util.logging.LogManager;

/**
 * Main class of the jar. It is compiled for Java 8, unlike all other classes, so that an old Java
 * can load it and print which version is required instead of a "class file version".
 */
final class Launcher {
  private Launcher() {}

  /** Checks the Java version, configures the JVM, and runs the command. */
  public static void main(String[] args) {
    String version = System.getProperty("java.specification.version"); // 1.8, 9, 10, 11 …
    if (version.startsWith("1.") || Integer.parseInt(version) < 17) {
      System.err.println(
          "real-meet-server needs Java 17 or later, and this is Java "
              + version
              + " in "
              + System.getProperty("java.home")
              + ": install a newer one, or start with its bin/java");
      System.exit(1);
    }
    configureJvm();
    if (args.length > 0 && args[0].equals("check")) { // the list has all findings
      System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "error");
    }
    Main.main(args);
  }

  /** Sets process-wide properties before any other class reads them. */
  private static void configureJvm() {
    // slf4j-simple caches its date format: set UTC and ROOT before the first logger exists.
    TimeZone.setDefault(TimeZone.getTimeZone("UTC"));
    Locale.setDefault(Locale.ROOT);
    // Jetty iterates over all available locales; loading the CLDR ones takes 0.1 s.
    System.setProperty("java.locale.providers", "SPI");
    LogManager.getLogManager().reset(); // pgjdbc logs what we log anyway
    // Seconds. Java 17 keeps idle connections to Clerk for 20 minutes; a NAT drops its state
    // sooner, and a request sent on such a connection is lost.
    System.setProperty("jdk.httpclient.keepalive.timeout", "30");
    // HttpClient completes its calls on the common pool, which has one thread less than there are
    // processors; for one alone, Java 17 starts a thread per call instead.
    if (Runtime.getRuntime().availableProcessors() < 3) {
      System.setProperty("java.util.concurrent.ForkJoinPool.common.parallelism", "2");
    }
    // Platform threads that carry virtual ones: with four per processor instead of one, the
    // operating system lets requests go on beside some with much to compute.
    System.setProperty(
        "jdk.virtualThreadScheduler.parallelism",
        String.valueOf(4 * Runtime.getRuntime().availableProcessors()));
    // Object references per 64-byte cache line; set so that Jetty does not start JMX to find out
    // (0.1 s).
    System.setProperty("org.eclipse.jetty.util.referencesPerCacheLine", "16");
    // Seconds after which the JDK's HTTP server, of the metrics, closes the connection of a client
    // that has not sent its request or not read the response, since each takes a thread.
    System.setProperty("sun.net.httpserver.maxReqTime", "5");
    System.setProperty("sun.net.httpserver.maxRspTime", "5");
  }
}
