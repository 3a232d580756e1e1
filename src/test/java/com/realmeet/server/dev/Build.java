package com.realmeet.server.dev;

import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import javax.tools.ToolProvider;

/**
 * The server as the working directory had it at one moment: compiled, in a class loader of its own,
 * with the settings of that moment. It shares no class of ours with this program.
 */
final class Build {
  private static final Path JAVA = Path.of("src", "main", "java");
  private static final Path RESOURCES = Path.of("src", "main", "resources");
  private static final Path MIGRATIONS = Path.of("db");

  /** Where builds lie while they are in use. */
  static final Path ALL = Path.of("target", "dev");

  /** What a build is made of. */
  static final List<Path> SOURCES = List.of(JAVA, RESOURCES, MIGRATIONS, Path.of(".env"));

  /** The jars of the class path; its directories hold an older copy of the sources. */
  private static final List<Path> JARS =
      Stream.of(System.getProperty("java.class.path").split(File.pathSeparator))
          .map(Path::of)
          .filter(Files::isRegularFile)
          .toList();

  /** Shared by all builds: to load the libraries again would take as long as a new process. */
  private static final ClassLoader LIBRARIES = loader(JARS, ClassLoader.getPlatformClassLoader());

  /** The compiler has printed why, with file and line. */
  static final class DoesNotCompile extends RuntimeException {
    DoesNotCompile() {
      super("The sources do not compile");
    }
  }

  private final Path directory;
  private final URLClassLoader classes;
  private final Object config;

  /**
   * Compiles the sources and reads the settings.
   *
   * @throws DoesNotCompile if the sources do not
   * @throws RuntimeException the server's own, if the settings cannot be used
   */
  Build() throws IOException {
    directory = Files.createDirectories(ALL.resolve(String.valueOf(System.nanoTime())));
    classes = loader(List.of(directory), LIBRARIES);
    try {
      copy(RESOURCES, directory);
      copy(MIGRATIONS, directory.resolve(MIGRATIONS));
      compile();
      config = call("Main", "config", (Supplier<Object>) () -> call("Config", "load"));
    } catch (IOException | RuntimeException e) {
      remove();
      throw e;
    }
  }

  private static URLClassLoader loader(List<Path> paths, ClassLoader parent) {
    URL[] urls = new URL[paths.size()];
    try {
      for (int i = 0; i < urls.length; i++) {
        urls[i] = paths.get(i).toUri().toURL();
      }
    } catch (MalformedURLException e) {
      throw new UncheckedIOException(e);
    }
    return new URLClassLoader(urls, parent);
  }

  private void compile() throws IOException {
    List<String> arguments = new ArrayList<>(List.of("--release", "17", "-g", "-proc:none"));
    arguments.addAll(List.of("-encoding", "UTF-8", "-Xlint:all,-classfile,-serial,-path"));
    arguments.addAll(List.of("-d", directory.toString(), "-cp"));
    arguments.add(
        JARS.stream().map(Path::toString).collect(Collectors.joining(File.pathSeparator)));
    files(JAVA).stream()
        .map(Path::toString)
        .filter(file -> file.endsWith(".java"))
        .forEach(arguments::add);
    int status =
        ToolProvider.getSystemJavaCompiler()
            .run(null, null, null, arguments.toArray(String[]::new));
    if (status != 0) {
      throw new DoesNotCompile();
    }
  }

  /** Starts a server; may be repeated. What it throws is the server's. */
  AutoCloseable start() {
    Thread.currentThread().setContextClassLoader(classes); // Flyway looks there for migrations
    return (AutoCloseable) call("Main", "start", config);
  }

  private Object call(String type, String method, Object... arguments) {
    try {
      Method found =
          Arrays.stream(classes.loadClass("com.realmeet.server." + type).getDeclaredMethods())
              .filter(each -> each.getName().equals(method))
              .filter(each -> each.getParameterCount() == arguments.length)
              .findAny()
              .orElseThrow(() -> new NoSuchMethodException(type + "." + method));
      found.setAccessible(true);
      return found.invoke(null, arguments);
    } catch (InvocationTargetException e) {
      throw e.getCause() instanceof RuntimeException cause ? cause : new IllegalStateException(e);
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException(e);
    }
  }

  /** Frees what a build holds once its server is closed. */
  void remove() throws IOException {
    classes.close();
    remove(directory);
    try { // for the life of the JVM, Jackson would keep the classes that it has seen, and so all
      Object types =
          LIBRARIES
              .loadClass("com.fasterxml.jackson.databind.type.TypeFactory")
              .getMethod("defaultInstance")
              .invoke(null);
      types.getClass().getMethod("clearCache").invoke(types);
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException(e);
    }
  }

  static void remove(Path directory) throws IOException {
    if (Files.exists(directory)) {
      try (Stream<Path> files = Files.walk(directory)) {
        for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
          Files.delete(file);
        }
      }
    }
  }

  /** All files below a path, without those that editors keep beside them. */
  static List<Path> files(Path root) throws IOException {
    if (!Files.exists(root)) {
      return List.of();
    }
    try (Stream<Path> files = Files.walk(root)) {
      return files
          .filter(Files::isRegularFile)
          .filter(file -> file.equals(root) || !file.getFileName().toString().matches("\\..*|.*~"))
          .toList();
    }
  }

  private static void copy(Path from, Path to) throws IOException {
    for (Path file : files(from)) {
      Path copy = to.resolve(from.relativize(file));
      Files.createDirectories(copy.getParent());
      Files.copy(file, copy);
    }
  }
}
