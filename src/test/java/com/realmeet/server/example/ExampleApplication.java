package com.realmeet.server.example;

import com.realmeet.server.Application;
import com.realmeet.server.database.Database;
import com.realmeet.server.users.UserSync;
import io.javalin.router.JavalinDefaultRoutingApi;

/** The README's example: meetings of the users, and their participants. */
public final class ExampleApplication implements Application {
  @Override
  public String[] migrations() {
    return new String[] {"classpath:example/migration"};
  }

  @Override
  public void declareRoutes(JavalinDefaultRoutingApi routes, Database database, UserSync userSync) {
    Meetings meetings = new Meetings(new MeetingDao(database), userSync);
    routes.post("/api/meetings", meetings::create);
    routes.get("/api/meetings", meetings::list);
    routes.post("/api/meetings/{id}/participants", meetings::addParticipant);
  }
}
