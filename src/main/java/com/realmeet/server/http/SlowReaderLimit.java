package com.realmeet.server.http;

import java.nio.ByteBuffer;
import java.util.Comparator;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.eclipse.jetty.io.EofException;
import org.eclipse.jetty.server.Handler;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.util.Callback;

/**
 * Limits the number of threads that wait until a slow client has read more of a response. Only a
 * response that does not fit into JettyServer's buffer takes one. Above the limit, the connection
 * of the oldest request is closed.
 */
final class SlowReaderLimit extends Handler.Wrapper {
  /** Leaves a third of the threads of an application's routes to other clients. */
  private static final int MAX_WAITING = 40;

  /** Requests whose handlers are waiting. */
  private final Set<Request> waiting = ConcurrentHashMap.newKeySet();

  @Override
  public boolean handle(Request request, Response response, Callback callback) throws Exception {
    return super.handle(request, new Limited(request, response), callback);
  }

  private final class Limited extends Response.Wrapper {
    Limited(Request request, Response response) {
      super(request, response);
    }

    @Override
    public void write(boolean last, ByteBuffer content, Callback callback) {
      if (last) { // Jetty completes the response without a thread
        super.write(true, content, callback);
        return;
      }
      waiting.add(getRequest());
      super.write(false, content, Callback.from(() -> waiting.remove(getRequest()), callback));
      if (waiting.size() > MAX_WAITING) {
        waiting.stream()
            .min(Comparator.comparingLong(Request::getHeadersNanoTime))
            .map(oldest -> oldest.getConnectionMetaData().getConnection().getEndPoint())
            .ifPresent(endPoint -> endPoint.close(new EofException("slow client")));
      }
    }
  }
}
