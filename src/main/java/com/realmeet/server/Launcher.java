package com.realmeet.server;

import java.util.Locale;
import java.util.TimeZone;
import java.util.logging.LogManager;

/**
 * Where the jar begins. Alone of all classes it is made for Java 8, so that an old Java can load it
 * and say what is wrong, instead of naming a "class file version".
 */
final class Launcher {
  private Launcher() {}

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
    if (args.length > 0 && args[0].equals("check")) { // whose list says the rest
      System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "error");
    }
    Main.main(args);
  }

  /** Sets what is the same for the whole process, before any other class looks it up. */
  private static void configureJvm() {
    // The log keeps its date format from its first line on: no Buddhist years, no Arabic digits.
    TimeZone.setDefault(TimeZone.getTimeZone("UTC"));
    Locale.setDefault(Locale.ROOT);
    // Jetty looks through all locales that there are; loading those of the whole world takes 0.1 s.
    System.setProperty("java.locale.providers", "SPI");
    LogManager.getLogManager().reset(); // pgjdbc's own log: what it says, ours says too
    // Seconds. Java 17 keeps idle connections to Clerk for 20 minutes; a NAT forgets them sooner,
    // and drops what is then sent on one.
    System.setProperty("jdk.httpclient.keepalive.timeout", "30");
    // HttpClient completes its calls on the common pool, which has one thread less than there are
    // processors; for one alone, Java 17 starts a thread per call instead.
    if (Runtime.getRuntime().availableProcessors() < 3) {
      System.setProperty("java.util.concurrent.ForkJoinPool.common.parallelism", "2");
    }
    // Object references in a 64-byte cache line. Jetty would ask JMX, which takes 0.1 s to start.
    System.setProperty("org.eclipse.jetty.util.referencesPerCacheLine", "16");
    // On Java 22 to 24, the other console takes pipes for terminals.
    System.setProperty("jdk.console", "java.base");
  }
}
