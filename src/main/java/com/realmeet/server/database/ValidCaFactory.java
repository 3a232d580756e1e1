package com.realmeet.server.database;

import java.io.IOException;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.X509Certificate;
import java.util.Properties;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;
import org.postgresql.ssl.WrappedFactory;

/**
 * Trusts the certificates of the CA file that are valid now, as libpq does. pgjdbc's LibPQFactory
 * trusts expired ones, too, since Java does not check the validity of what it trusts.
 */
public final class ValidCaFactory extends WrappedFactory {
  /**
   * Called by pgjdbc for each connection.
   *
   * @param info properties of the connection, such as sslrootcert
   */
  public ValidCaFactory(Properties info) throws GeneralSecurityException, IOException {
    KeyStore authorities = KeyStore.getInstance(KeyStore.getDefaultType());
    authorities.load(null, null);
    for (X509Certificate authority :
        DatabaseTls.validAuthorities(info.getProperty("sslrootcert"))) {
      authorities.setCertificateEntry("ca" + authorities.size(), authority);
    }
    TrustManagerFactory trust =
        TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(authorities);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(null, trust.getTrustManagers(), null);
    factory = context.getSocketFactory();
  }
}
