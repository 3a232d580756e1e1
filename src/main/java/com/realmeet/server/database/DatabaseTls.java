package com.realmeet.server.database;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import org.postgresql.ssl.BaseX509KeyManager;
import org.postgresql.util.PSQLException;

/**
 * Maps the TLS parameters of a database URL to properties of pgjdbc with libpq's meaning. pgjdbc
 * has the same names, but with {@code sslmode=require} it does not verify the certificate even if
 * there is a CA file, and it reads files only when it connects. The strictest of {@code sslmode},
 * {@code ssl} and {@code sslaccept} applies.
 *
 * @see <a href="https://www.postgresql.org/docs/current/libpq-ssl.html">libpq's TLS</a>
 * @see <a href="https://www.prisma.io/docs/orm/core-concepts/supported-databases/postgresql">
 *     Prisma's sslcert (a CA file) and sslaccept</a>
 */
final class DatabaseTls {
  /** Names of the parameters that this class handles. */
  static final Set<String> PARAMETERS =
      Set.of("ssl", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslaccept");

  /** Values of sslmode, weakest first. */
  private static final List<String> MODES =
      List.of("disable", "allow", "prefer", "require", "verify-ca", "verify-full");

  private DatabaseTls() {}

  /**
   * Removes the TLS parameters from those of a URL, and converts them.
   *
   * @return properties of pgjdbc
   * @throws IllegalArgumentException if they contradict each other, or a file cannot be used
   */
  static Map<String, String> takeProperties(Map<String, String> parameters) {
    String sslmode = sslmode(parameters.remove("sslmode"));
    String ssl = ssl(parameters.remove("ssl"));
    String mode = stricter(sslmode == null ? "prefer" : sslmode, ssl);
    boolean named = sslmode != null || MODES.indexOf(ssl) > MODES.indexOf("prefer");
    String ca = file(parameters, "sslrootcert");
    String certificate = file(parameters, "sslcert");
    String key = file(parameters, "sslkey");
    String accept = accept(parameters.remove("sslaccept"));
    if (certificate != null && key == null) { // Prisma's name of a CA file
      if (ca != null) {
        throw new IllegalArgumentException("has sslcert without sslkey: name both or none");
      }
      requireAuthority(certificate);
      boolean any = accept.equals("accept_invalid_certs") && !mode.startsWith("verify");
      ca = any ? null : certificate;
      certificate = null;
    }
    if (accept.equals("strict")) {
      mode = "verify-full";
      named = true;
      ca = ca == null ? "system" : ca;
    }
    if ("system".equals(ca) && named && !mode.equals("verify-full")) {
      throw new IllegalArgumentException(
          "has an sslmode that is too weak for sslrootcert=system: use verify-full");
    }
    mode = verifying(mode, ca);
    boolean verifiesByFile = mode.startsWith("verify") && !"system".equals(ca);
    if (verifiesByFile && Files.exists(defaultFile("root.crl"))) { // which libpq checks
      throw new IllegalArgumentException(
          "would be checked against the revocation list ~/.postgresql/root.crl by psql, which is not"
              + " done here: remove that file, or use sslrootcert=system");
    }
    if ("direct".equals(parameters.get("sslnegotiation"))
        && MODES.indexOf(mode) < MODES.indexOf("require")) {
      throw new IllegalArgumentException(
          "has sslnegotiation=direct, which needs sslmode=require or stricter");
    }

    Map<String, String> properties = new HashMap<>();
    if (named || ca != null) {
      properties.put("sslmode", mode);
    }
    if (mode.startsWith("verify")) {
      properties.put("sslfactory", VerifyingSslFactory.class.getName());
    }
    if (verifiesByFile) {
      properties.put("sslrootcert", ca == null ? defaultFile("root.crt").toString() : ca);
    }
    if (!mode.equals("disable")) {
      properties.putAll(client(certificate, key, parameters.get("sslcertmode")));
    }
    return properties;
  }

  /**
   * Returns the mode that verifies with the named CA file, or with the one in libpq's default
   * location.
   */
  private static String verifying(String mode, String ca) {
    if ("system".equals(ca)) {
      return "verify-full";
    }
    if (ca != null) {
      requireRoot("CA file (sslrootcert)", ca);
      return mode.equals("disable") ? mode : stricter(mode, "verify-ca");
    }
    if (Files.exists(defaultFile("root.crt"))) {
      String verifying = mode.equals("require") ? "verify-ca" : mode;
      if (verifying.startsWith("verify")) {
        requireRoot("CA file (~/.postgresql/root.crt)", defaultFile("root.crt").toString());
      }
      return verifying;
    }
    if (mode.startsWith("verify")) {
      throw new IllegalArgumentException(
          "asks for sslmode=verify-ca or verify-full but names no CA file: add "
              + "sslrootcert=system for certificates of public authorities, "
              + "or sslrootcert=/path/to/ca.pem");
    }
    return mode;
  }

  /** Returns a file in the default location of libpq and pgjdbc. */
  private static Path defaultFile(String name) {
    return System.getProperty("os.name").startsWith("Windows")
        ? Path.of(String.valueOf(System.getenv("APPDATA")), "postgresql", name)
        : Path.of(System.getProperty("user.home"), ".postgresql", name);
  }

  private static String sslmode(String value) {
    if ("no-verify".equals(value)) { // node-postgres
      return "require";
    }
    if (value != null && !MODES.contains(value)) {
      throw DatabaseParameters.unknownValue("sslmode", MODES);
    }
    return value;
  }

  /**
   * Converts {@code ssl}, with which other clients set the mode; libpq also accepts JDBC's {@code
   * ssl=true}.
   */
  private static String ssl(String value) {
    return switch (value == null ? "" : value.toLowerCase(Locale.ROOT)) {
      case "", "false", "0", "off", "no" -> "disable";
      case "true", "1", "on", "yes", "no-verify" -> "require";
      default -> {
        if (!MODES.contains(value)) {
          throw new IllegalArgumentException(
              "has an unknown value for ssl: write sslmode=require, or sslmode=verify-full with "
                  + "sslrootcert=system or a CA file");
        }
        yield value;
      }
    };
  }

  private static String accept(String value) {
    if (value != null && !value.matches("strict|accept_invalid_certs")) {
      throw DatabaseParameters.unknownValue("sslaccept", List.of("strict", "accept_invalid_certs"));
    }
    return value == null ? "" : value;
  }

  private static String stricter(String mode, String other) {
    return MODES.indexOf(mode) > MODES.indexOf(other) ? mode : other;
  }

  private static String file(Map<String, String> parameters, String name) {
    String file = parameters.remove(name);
    return file == null || file.isEmpty() ? null : file;
  }

  private static List<X509Certificate> certificates(String what, String file) {
    List<X509Certificate> certificates = new ArrayList<>();
    try (InputStream bytes = new ByteArrayInputStream(read(what, file))) {
      for (Certificate certificate :
          CertificateFactory.getInstance("X.509").generateCertificates(bytes)) {
        certificates.add((X509Certificate) certificate);
      }
    } catch (IOException | CertificateException e) {
      certificates.clear(); // reported below, with every other file that is something else
    }
    if (certificates.isEmpty()) {
      throw new IllegalArgumentException("names a " + what + " that has no certificate (PEM)");
    }
    if (certificates.stream().noneMatch(DatabaseTls::isValidNow)) {
      throw new IllegalArgumentException(
          "names a " + what + " that has expired, or is not valid yet");
    }
    return certificates;
  }

  /** Requires a CA file to have a root: libpq trusts no intermediate certificate without it. */
  private static void requireRoot(String what, String file) {
    if (certificates(what, file).stream().noneMatch(each -> isRoot(each) && isValidNow(each))) {
      throw new IllegalArgumentException(
          "names a " + what + " without a valid root certificate, which signs itself: add it");
    }
  }

  /** Returns those certificates of a CA file that are valid now. */
  static List<X509Certificate> validAuthorities(String file) {
    return certificates("CA file", file).stream().filter(DatabaseTls::isValidNow).toList();
  }

  private static boolean isValidNow(X509Certificate certificate) {
    try {
      certificate.checkValidity();
      return true;
    } catch (CertificateException e) {
      return false;
    }
  }

  /** Returns true for a certificate that signs itself. */
  static boolean isRoot(X509Certificate certificate) {
    return certificate.getIssuerX500Principal().equals(certificate.getSubjectX500Principal());
  }

  /**
   * Rejects an sslcert that is not a CA file as in Prisma's URLs, but a client certificate without
   * its key.
   */
  private static void requireAuthority(String file) {
    if (certificates("CA file (sslcert)", file).stream()
        .noneMatch(certificate -> certificate.getBasicConstraints() >= 0 || isRoot(certificate))) {
      throw new IllegalArgumentException(
          "has sslcert without sslkey: name the key of a client certificate too; "
              + "the CA file of the server is sslrootcert");
    }
  }

  private static byte[] read(String what, String file) {
    try {
      return Files.readAllBytes(Path.of(file));
    } catch (IOException | InvalidPathException e) { // their messages quote the path
      throw new IllegalArgumentException(
          "names a "
              + what
              + " that cannot be read: a relative path begins at the working directory");
    }
  }

  /**
   * Returns the properties of a client certificate, which is in libpq's default location if the URL
   * names none; pgjdbc requires the algorithm of a key in PEM.
   *
   * @param use libpq's sslcertmode, or null
   */
  private static Map<String, String> client(String certificate, String key, String use) {
    if ("disable".equals(use)) {
      return Map.of();
    }
    if (certificate == null && key == null && Files.exists(defaultFile("postgresql.crt"))) {
      return client(
          defaultFile("postgresql.crt").toString(), defaultFile("postgresql.key").toString());
    }
    if (certificate == null && key != null) {
      throw new IllegalArgumentException("has sslkey without sslcert: name both or none");
    }
    return key == null ? Map.of() : client(certificate, key);
  }

  private static Map<String, String> client(String certificate, String key) {
    clientCertificates(certificate);
    PrivateKey privateKey = privateKey(key);
    try {
      BaseX509KeyManager.validateKeyFilePermissions(Path.of(key)); // libpq's rule
    } catch (PSQLException e) { // its message quotes the path
      throw new IllegalArgumentException(
          "names a client key (sslkey) that others may read: chmod 600");
    }
    return Map.of(
        "sslcert", certificate, "sslkey", key, "pemKeyAlgorithm", privateKey.getAlgorithm());
  }

  static List<X509Certificate> clientCertificates(String file) {
    return certificates("client certificate (sslcert)", file);
  }

  /** Reads a key in PKCS #8, in PEM or DER. */
  static PrivateKey privateKey(String file) {
    byte[] bytes = read("client key (sslkey)", file);
    String pem = new String(bytes, StandardCharsets.ISO_8859_1);
    for (String algorithm : List.of("RSA", "EC", "EdDSA")) {
      try {
        byte[] der =
            pem.contains("-----BEGIN PRIVATE KEY-----")
                ? Base64.getMimeDecoder()
                    .decode(
                        pem.replaceFirst("(?s).*?-----BEGIN PRIVATE KEY-----", "")
                            .replaceFirst("(?s)-----END.*", ""))
                : bytes;
        return KeyFactory.getInstance(algorithm).generatePrivate(new PKCS8EncodedKeySpec(der));
      } catch (IllegalArgumentException | GeneralSecurityException e) {
        continue; // rejected below if no algorithm fits
      }
    }
    throw new IllegalArgumentException(
        "names a client key (sslkey) that is not PKCS #8 without a password: convert it with "
            + "openssl pkcs8 -topk8 -nocrypt");
  }
}
