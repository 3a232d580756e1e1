package com.realmeet.server;

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
    Main.main(args);
  }
}
