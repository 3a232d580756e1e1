package com.realmeet.server.example;

import com.realmeet.server.database.Database;
import java.time.Instant;
import java.util.List;
import java.util.Optional;

/** The tables {@code meetings} and {@code participants}: all their SQL. */
public record MeetingDao(Database database) {
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

  /** One row and, in this order of keys, the JSON that clients see. */
  record Meeting(long id, String hostId, String title, Instant startsAt) {}

  Meeting insert(String hostId, Meetings.NewMeeting meeting) {
    return database.write(
        handle ->
            handle
                .createQuery(INSERT)
                .bind("hostId", hostId)
                .bind("title", meeting.title())
                .bind("startsAt", meeting.startsAt())
                .mapTo(Meeting.class)
                .one());
  }

  Optional<Meeting> find(long id) {
    return database.read(
        handle -> handle.createQuery(FIND).bind("id", id).mapTo(Meeting.class).findOne());
  }

  /** The first 1,000 meetings that a user hosts or participates in, by time. */
  List<Meeting> list(String userId) {
    return database.read(
        handle -> handle.createQuery(LIST).bind("userId", userId).mapTo(Meeting.class).list());
  }

  /** Does nothing if the user participates already. */
  void addParticipant(long meetingId, String userId) {
    database.writeIdempotent(
        handle ->
            handle
                .createUpdate(ADD_PARTICIPANT)
                .bind("meetingId", meetingId)
                .bind("userId", userId)
                .execute());
  }
}
