package com.realmeet.server.users;

import com.fasterxml.jackson.annotation.JsonIgnore;
import java.time.Instant;

/**
 * One row of the table and, in this order of keys, the JSON that clients see.
 *
 * @param id Clerk's user id
 * @param email primary email at Clerk
 * @param name first and last name, or null
 * @param imageUrl or null
 * @param createdAt when the row was inserted
 * @param updatedAt when one of the columns above last changed
 * @param deletedAt when the row became a tombstone, or null: clients never see it
 */
public record User(
    String id,
    String email,
    String name,
    String imageUrl,
    Instant createdAt,
    Instant updatedAt,
    @JsonIgnore Instant deletedAt) {}
