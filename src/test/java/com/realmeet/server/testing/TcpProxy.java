package com.realmeet.server.testing;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/** Stands between a client and a server, such as Postgres, and breaks what passes through it. */
public final class TcpProxy implements AutoCloseable {
  private final InetSocketAddress target;
  private final ServerSocket listener;
  private final Set<Socket> sockets = ConcurrentHashMap.newKeySet();
  private volatile boolean refusing;
  private boolean frozen; // guarded by this

  /** Listens on a free port of 127.0.0.1. */
  public TcpProxy(String host, int port) {
    target = new InetSocketAddress(host, port);
    try {
      listener = new ServerSocket(0, 100, InetAddress.getLoopbackAddress());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    start(this::accept);
  }

  /** A proxy in front of the server that a database URL names. */
  public static TcpProxy before(String databaseUrl) {
    String[] server = TestPostgres.hostAndPort(databaseUrl);
    return new TcpProxy(server[0], Integer.parseInt(server[1]));
  }

  public int port() {
    return listener.getLocalPort();
  }

  /** Accepts connections and passes on nothing, as a suspended process does. */
  public synchronized void freeze() {
    frozen = true;
  }

  /** Passes on again, what was held up included. */
  public synchronized void thaw() {
    frozen = false;
    notifyAll();
  }

  /**
   * Ends all connections, and new ones at once, as if the server had ended. The port stays ours:
   * once given up, it may be somebody else's.
   */
  public void refuse() {
    refusing = true;
    sockets.forEach(TcpProxy::close);
  }

  /** Ends {@link #refuse}. */
  public void restore() {
    refusing = false;
  }

  private void accept() {
    try {
      while (true) {
        Socket client = listener.accept();
        sockets.add(client);
        if (refusing) {
          sockets.remove(client);
          close(client);
        } else {
          start(() -> connect(client));
        }
      }
    } catch (IOException e) {
      // closed
    }
  }

  private void connect(Socket client) {
    Socket server = new Socket();
    sockets.add(server);
    try {
      server.connect(target);
      start(() -> copy(server, client));
      copy(client, server);
    } catch (IOException e) {
      close(client);
    }
  }

  private void copy(Socket from, Socket to) {
    byte[] buffer = new byte[8192];
    try (from;
        to) {
      InputStream in = from.getInputStream();
      OutputStream out = to.getOutputStream();
      for (int n = in.read(buffer); n >= 0; n = in.read(buffer)) {
        awaitThaw();
        out.write(buffer, 0, n);
      }
      awaitThaw();
    } catch (IOException | InterruptedException e) {
      // one end is gone: so goes the other
    } finally {
      sockets.remove(from);
      sockets.remove(to);
    }
  }

  private synchronized void awaitThaw() throws InterruptedException {
    while (frozen) {
      wait();
    }
  }

  private static void start(Runnable work) {
    Thread thread = new Thread(work, "tcp-proxy");
    thread.setDaemon(true);
    thread.start();
  }

  private static void close(AutoCloseable closeable) {
    try {
      closeable.close();
    } catch (Exception e) {
      throw new IllegalStateException(e);
    }
  }

  @Override
  public void close() {
    close(listener);
    refuse();
    thaw();
  }
}
