package com.realmeet.server;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;

/**
 * A set of ids in 8 bytes each, however many there are. In 2⁶⁴ values a wrong "contains" is next to
 * impossible, a wrong "does not contain" is impossible.
 */
final class IdHashes {
  private final MessageDigest sha256;
  private long[] hashes = new long[1024];
  private int size;
  private boolean sorted = true;

  IdHashes() {
    try {
      sha256 = MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e); // every Java has it
    }
  }

  void add(String id) {
    if (size == hashes.length) {
      hashes = Arrays.copyOf(hashes, 2 * size);
    }
    hashes[size++] = hash(id);
    sorted = false;
  }

  boolean contains(String id) {
    if (!sorted) {
      Arrays.sort(hashes, 0, size);
      sorted = true;
    }
    return Arrays.binarySearch(hashes, 0, size, hash(id)) >= 0;
  }

  boolean isEmpty() {
    return size == 0;
  }

  private long hash(String id) {
    return ByteBuffer.wrap(sha256.digest(id.getBytes(StandardCharsets.UTF_8))).getLong();
  }
}
