package com.realmeet.server.database;

import java.io.IOException;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.CertStore;
import java.security.cert.CollectionCertStoreParameters;
import java.security.cert.PKIXBuilderParameters;
import java.security.cert.TrustAnchor;
import java.security.cert.X509CertSelector;
import java.security.cert.X509Certificate;
import java.util.List;
import java.util.Properties;
import java.util.stream.Collectors;
import javax.net.ssl.CertPathTrustManagerParameters;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;
import org.postgresql.ssl.WrappedFactory;

/**
 * Verifies the certificate of a server as libpq does: it must lead to a root of the CA file, and
 * all of that chain must be valid now. The other certificates of the file only complete the chain.
 * pgjdbc's LibPQFactory trusts each certificate of the file, even an expired one, since Java does
 * not check the validity of what it trusts; its DefaultJavaSSLFactory has no client certificates.
 */
public final class VerifyingSslFactory extends WrappedFactory {
  /**
   * Called by pgjdbc for each connection.
   *
   * @param info properties of the connection: {@code sslrootcert}, without which Java's trust store
   *     is used, {@code sslcert} and {@code sslkey}
   */
  public VerifyingSslFactory(Properties info) throws GeneralSecurityException {
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(
        clientCertificate(info.getProperty("sslcert"), info.getProperty("sslkey")),
        authorities(info.getProperty("sslrootcert")),
        null);
    factory = context.getSocketFactory();
  }

  private static TrustManager[] authorities(String file) throws GeneralSecurityException {
    TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
    if (file == null) {
      trust.init((KeyStore) null);
      return trust.getTrustManagers();
    }
    List<X509Certificate> valid = DatabaseTls.validAuthorities(file);
    PKIXBuilderParameters parameters =
        new PKIXBuilderParameters(
            valid.stream()
                .filter(DatabaseTls::isRoot)
                .map(root -> new TrustAnchor(root, null))
                .collect(Collectors.toSet()),
            new X509CertSelector());
    parameters.setRevocationEnabled(false);
    parameters.addCertStore(
        CertStore.getInstance("Collection", new CollectionCertStoreParameters(valid)));
    trust.init(new CertPathTrustManagerParameters(parameters));
    return trust.getTrustManagers();
  }

  private static KeyManager[] clientCertificate(String file, String key)
      throws GeneralSecurityException {
    if (key == null) {
      return null;
    }
    try {
      KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
      store.load(null, null);
      store.setKeyEntry(
          "client",
          DatabaseTls.privateKey(key),
          new char[0],
          DatabaseTls.clientCertificates(file).toArray(X509Certificate[]::new));
      KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
      keys.init(store, new char[0]);
      return keys.getKeyManagers();
    } catch (IOException e) {
      throw new GeneralSecurityException(e);
    }
  }
}
