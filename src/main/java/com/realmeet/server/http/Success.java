package com.realmeet.server.http;

/**
 * The body of a successful response: {@code {"success":true,"data":…}}.
 *
 * @param data a record, or a list of records
 */
public record Success<T>(boolean success, T data) {
  public static <T> Success<T> of(T data) {
    return new Success<>(true, data);
  }
}
