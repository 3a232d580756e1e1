package com.realmeet.server.example;

import java.time.Instant;

/** One row of the table {@code meetings} and, in this order of keys, the JSON that clients see. */
public record Meeting(long id, String hostId, String title, Instant startsAt) {}
