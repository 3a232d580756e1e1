package com.realmeet.server.example;

import com.realmeet.server.clerk.ClerkUser;
import com.realmeet.server.clerk.SessionAuth;
import com.realmeet.server.core.Failure;
import com.realmeet.server.database.SqlErrors;
import com.realmeet.server.http.BodyParam;
import com.realmeet.server.http.PathParam;
import com.realmeet.server.http.Success;
import com.realmeet.server.users.UserSync;
import io.javalin.http.Context;
import java.time.Instant;
import org.jdbi.v3.core.JdbiException;

/** The handlers of {@code /api/meetings}. */
public record Meetings(MeetingDao meetings, UserSync userSync) {
  /** The body of a request, checked. */
  record NewMeeting(String title, Instant startsAt) {
    NewMeeting {
      BodyParam.requireText("title", title, 200);
      if (startsAt == null) {
        throw Failure.badRequest("startsAt is missing");
      }
    }
  }

  public void create(Context ctx) {
    NewMeeting meeting = ctx.bodyAsClass(NewMeeting.class);
    String hostId = userSync.caller(ctx).id(); // has a row, as the foreign key demands
    ctx.status(201).json(Success.of(meetings.insert(hostId, meeting)));
  }

  public void list(Context ctx) {
    ctx.json(Success.of(meetings.list(SessionAuth.userId(ctx))));
  }

  record NewParticipant(String userId) {
    NewParticipant {
      if (userId == null || !ClerkUser.isId(userId)) {
        throw Failure.badRequest("userId is not the id of a user");
      }
    }
  }

  record Participant(long meetingId, String userId) {}

  public void addParticipant(Context ctx) {
    long id = PathParam.number(ctx, "id");
    String userId = ctx.bodyAsClass(NewParticipant.class).userId();
    MeetingDao.Meeting meeting =
        meetings.find(id).orElseThrow(() -> Failure.notFound("There is no such meeting"));
    if (!meeting.hostId().equals(SessionAuth.userId(ctx))) {
      throw Failure.forbidden("Only the host may add participants");
    }
    try {
      meetings.addParticipant(id, userId);
    } catch (JdbiException e) {
      if (SqlErrors.violates(e, "participants_user_id_fkey")) {
        throw Failure.badRequest("userId is not the id of a user");
      }
      throw e;
    }
    ctx.json(Success.of(new Participant(id, userId)));
  }
}
