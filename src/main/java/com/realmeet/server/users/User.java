package com.realmeet.server.users;

import com.fasterxml.jackson.annotation.JsonIgnore;
import java.time.Instant;

/**
 * Row of the table {@code users} and, in this order of keys, the JSON that clients receive.
 *
 * @param id Clerk's user id
 * @param email primary email at Clerk; {@code <id>@moved.invalid} as a placeholder if another user
 *     has taken over the address, {@code <id>@deleted.invalid} in a tombstone
 * @param name first and last name, or null
 * @param imageUrl URL of the profile image, or null
 * @param createdAt when the row was inserted
 * @param updatedAt when one of the columns above last changed
 * @param deletedAt when the row became a tombstone, or null; not part of the JSON
 */
public record User(
    String id,
    String email,
    String name,
    String imageUrl,
    Instant createdAt,
    Instant updatedAt,
    @JsonIgnore Instant deletedAt) {

  /**
   * Returns true if the row of a live user has a placeholder instead of an address, or none, as a
   * table of Prisma may have had. Not a getter by its name, so not part of the JSON.
   */
  boolean hasPlaceholderEmail() {
    return email == null || email.equals(id + "@moved.invalid");
  }
}
