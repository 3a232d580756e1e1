package com.realmeet.server.example;

import com.realmeet.server.core.Deadline;
import com.realmeet.server.database.Database;
import java.util.List;
import java.util.Optional;

/** The tables {@code meetings} and {@code participants}: all their SQL. */
public final class MeetingDao {
  private static final String INSERT =
      """
      INSERT INTO <schema>meetings (host_id, title, starts_at)
      VALUES (:hostId, :title, :startsAt)
      RETURNING id, host_id, title, starts_at
      """;

  private static final String FIND =
      """
      SELECT id, host_id, title, starts_at
      FROM <schema>meetings
      WHERE id = :id
      """;

  private static final String LIST =
      """
      SELECT id, host_id, title, starts_at
      FROM <schema>meetings
      WHERE host_id = :userId
        OR id IN (SELECT meeting_id FROM <schema>participants WHERE user_id = :userId)
      ORDER BY starts_at, id
      LIMIT 1000
      """;

  private static final String ADD_PARTICIPANT =
      """
      INSERT INTO <schema>participants (meeting_id, user_id)
      VALUES (:meetingId, :userId)
      ON CONFLICT DO NOTHING
      """;

  private final Database database;

  public MeetingDao(Database database) {
    this.database = database;
  }

  Meeting insert(String hostId, Meetings.NewMeeting meeting, Deadline deadline) {
    return database.write(
        deadline,
        handle ->
            handle
                .createQuery(INSERT)
                .bind("hostId", hostId)
                .bind("title", meeting.title())
                .bind("startsAt", meeting.startsAt())
                .mapTo(Meeting.class)
                .one());
  }

  Optional<Meeting> find(long id, Deadline deadline) {
    return database.read(
        deadline, handle -> handle.createQuery(FIND).bind("id", id).mapTo(Meeting.class).findOne());
  }

  /** The first 1,000 meetings that a user hosts or participates in, by time. */
  List<Meeting> list(String userId, Deadline deadline) {
    return database.read(
        deadline,
        handle -> handle.createQuery(LIST).bind("userId", userId).mapTo(Meeting.class).list());
  }

  /** Does nothing if the user participates already. */
  void addParticipant(long meetingId, String userId, Deadline deadline) {
    database.writeIdempotent(
        deadline,
        handle ->
            handle
                .createUpdate(ADD_PARTICIPANT)
                .bind("meetingId", meetingId)
                .bind("userId", userId)
                .execute());
  }
}
