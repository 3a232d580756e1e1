package com.realmeet.server.http;

import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.server.handler.ConditionalHandler;
import org.eclipse.jetty.util.Callback;
import org.eclipse.jetty.util.VirtualThreads;

/**
 * Handles the requests of a virtual thread on a platform thread, for which the virtual one waits.
 * Nothing preempts a virtual thread that computes, but the operating system shares the processors
 * fairly among platform threads.
 *
 * <p>That matters to QoSHandler (Jetty 12.1.12), too: the thread that completes a request spins
 * until the next one is in the queue. If all carriers spin, a virtual thread that is about to put
 * it there never runs.
 */
final class OnPlatformThread extends ConditionalHandler.ElseNext {
  @Override
  protected boolean onConditionsMet(Request request, Response response, Callback callback)
      throws Exception {
    if (!VirtualThreads.isVirtualThread()) {
      return nextHandler(request, response, callback);
    }
    FutureTask<Boolean> task = new FutureTask<>(() -> nextHandler(request, response, callback));
    getServer().getThreadPool().execute(task);
    try {
      return task.get();
    } catch (ExecutionException e) {
      throw e.getCause() instanceof Exception cause ? cause : e;
    }
  }
}
