package com.realmeet.server.database;

import com.realmeet.server.database.DatabaseUrl.Host;
import java.util.List;
import java.util.regex.Pattern;

/**
 * Recognizes the addresses of connection poolers in transaction mode, as providers publish them.
 * Other poolers are detected by {@link Database} when it connects; {@code pgbouncer=true} in the
 * URL declares them.
 */
final class DatabasePoolers {
  /**
   * Naming scheme of a provider.
   *
   * @param address pattern of {@code host:port}
   * @param direct replacement that yields the address of the database, or null if it cannot be
   *     derived from the pooler's
   */
  private record Pooler(Pattern address, String direct) {}

  private static final List<Pooler> POOLERS =
      List.of(
          // Neon, Vercel Postgres: neon.com/docs/connect/connection-pooling
          pooler("([^.]+)-pooler((?:\\..+)?):(\\d+)", "$1$2:$3"),
          // Supabase, shared and dedicated:
          // supabase.com/docs/guides/database/connecting-to-postgres
          // Port 5432 of the same host is the pooler in session mode, or the database.
          pooler("(.+\\.supabase\\.(?:com|co)):6543", "$1:5432"),
          // Supabase on one's own host: supabase.com/docs/guides/self-hosting/accessing-postgres
          pooler(".+:6543", null),
          // Fly: fly.io/docs/mpg/client-configuration
          pooler("pgbouncer\\.(.+\\.flympg\\.net):(\\d+)", "direct.$1:$2"),
          // Prisma: prisma.io/docs/postgres/database/connecting-to-your-database
          pooler("pooled\\.(db\\.prisma\\.io):(\\d+)", "$1:$2"),
          // Crunchy Bridge: docs.crunchybridge.com/how-to/pgbouncer
          pooler("(.+\\.postgresbridge\\.com):5431", "$1:5432"),
          // Azure: learn.microsoft.com/azure/postgresql/flexible-server/concepts-pgbouncer
          pooler("(.+\\.postgres\\.database\\.(?:azure\\.com|.+)):6432", "$1:5432"),
          // DigitalOcean; the pool's name stands in the place of the database's:
          // docs.digitalocean.com/products/databases/postgresql/how-to/manage-connection-pools
          pooler(".+\\.ondigitalocean\\.com:25061", null),
          // PgBouncer's own port, also PlanetScale's and Google Cloud SQL's: pgbouncer.org/config
          pooler(".+:6432", null));

  /**
   * Matches the hosts of these providers. A connection tells nothing more about them: proxies such
   * as Neon's invent process ids for direct connections, too.
   */
  private static final Pattern PROVIDER =
      Pattern.compile(
          "(.+\\.)?(neon\\.tech|vercel-storage\\.com|supabase\\.com?|flympg\\.net|db\\.prisma\\.io"
              + "|postgresbridge\\.com|postgres\\.database\\..+|ondigitalocean\\.com)",
          Pattern.CASE_INSENSITIVE);

  private DatabasePoolers() {}

  private static Pooler pooler(String address, String direct) {
    return new Pooler(Pattern.compile(address, Pattern.CASE_INSENSITIVE), direct);
  }

  /** Returns true if the host and port are those of a known pooler. */
  static boolean isPooler(Host host) {
    return POOLERS.stream().anyMatch(pooler -> pooler.address.matcher(host.toString()).matches());
  }

  /** Returns true if the address tells whether the host is a pooler. */
  static boolean isKnown(Host host) {
    return isPooler(host) || PROVIDER.matcher(host.name()).matches();
  }

  /**
   * Returns the database behind a pooler, or the host itself if it is no pooler or the database is
   * not known.
   */
  static Host direct(Host host) {
    for (Pooler pooler : POOLERS) {
      if (pooler.direct != null && pooler.address.matcher(host.toString()).matches()) {
        String address = pooler.address.matcher(host.toString()).replaceFirst(pooler.direct);
        int colon = address.lastIndexOf(':');
        return new Host(
            address.substring(0, colon), Integer.parseInt(address.substring(colon + 1)));
      }
    }
    return host;
  }
}
