package com.realmeet.server.http;

/**
 * Body of a successful response: {@code {"success":true,"data":…}}.
 *
 * @param data a record, or a list of records
 */
public record Success<T>(boolean success, T data) {
  /** Wraps the data of a response. */
  public static <T> Success<T> of(T data) {
    return new Success<>(true, data);
  }
}
