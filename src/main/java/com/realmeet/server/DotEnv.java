package com.realmeet.server;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashMap;
import java.util.Map;
import java.util.regex.MatchResult;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Parser of {@code .env} files. It follows the npm package dotenv 18, so that a file of the Node
 * server has the same meaning: it also skips the lines that dotenv skips. It records line numbers
 * for the messages about invalid settings.
 *
 * <p>dotenv uses one regular expression; this class uses a pattern and a loop, because in Java
 * alternatives within a repeated group overflow the stack on long values.
 */
public final class DotEnv {
  /** Characters that {@code \s} matches in JavaScript, including the byte order mark U+FEFF. */
  private static final String SPACE =
      "\t\n\u000b\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"
          + "\u200a\u2028\u2029\u202f\u205f\u3000\ufeff";

  /**
   * Line terminators of JavaScript's {@code ^} and {@code $}, less the carriage return, which is
   * replaced first.
   */
  private static final String LINE_END = "\n\u2028\u2029";

  private static final String LINE_STARTS = "(?<![^" + LINE_END + "])";
  private static final String LINE_ENDS = "(?![^" + LINE_END + "])";

  /** Matches {@code NAME=}, {@code export NAME =} or {@code NAME: } at the start of a line. */
  private static final Pattern NAME =
      Pattern.compile(
          (LINE_STARTS + "[S&&[^" + LINE_END + "]]*+(?:export[S]++)?([\\w.-]++)(?:[S]*+=|:[S])")
              .replace("S", SPACE));

  /**
   * Matches the quotes around a value; there is more than one pair only if U+2028 or U+2029
   * separates its lines.
   */
  private static final Pattern QUOTED =
      Pattern.compile(LINE_STARTS + "(['\"`])(.*)\\1" + LINE_ENDS, Pattern.DOTALL);

  /** File without values: it is empty or does not exist. */
  static final DotEnv NONE = new DotEnv(new byte[0]);

  /**
   * First and last line of a definition, counted from 1, and the line of the definition that it
   * overrides, or 0.
   */
  private record Place(int first, int last, int overridden) {}

  private final String text;
  private final Map<String, String> values = new HashMap<>();
  private final Map<String, Place> places = new HashMap<>();

  /**
   * Reads a file; if it does not exist, there are no values.
   *
   * @throws IOException if it exists but cannot be read; its message is meant for the user
   */
  public static DotEnv read(Path file) throws IOException {
    try {
      return new DotEnv(Files.readAllBytes(file));
    } catch (NoSuchFileException e) {
      return NONE;
    } catch (AccessDeniedException e) {
      throw new IOException(file + " cannot be read: permission denied", e);
    } catch (FileSystemException e) {
      throw new IOException(file + " cannot be read: " + e.getReason(), e);
    } catch (IOException e) {
      throw new IOException(file + " cannot be read: " + e.getMessage(), e);
    }
  }

  DotEnv(byte[] file) {
    text = new String(file, UTF_8).replace("\r\n", "\n").replace('\r', '\n');
    Matcher name = NAME.matcher(text);
    int line = 1;
    int counted = 0;
    for (int end = 0; name.find(end); ) {
      end = valueEnd(name.end());
      line += lines(counted, name.start(1));
      counted = name.start(1);
      put(name.group(1), value(text.substring(name.end(), end)), line, line + lines(counted, end));
    }
  }

  private int lines(int from, int to) {
    return (int) text.substring(from, to).chars().filter(each -> each == '\n').count();
  }

  private void put(String name, String value, int first, int last) {
    Place before = places.get(name);
    values.put(name, value);
    places.put(name, new Place(first, last, before == null ? 0 : before.first));
  }

  /**
   * Returns the end of a value: after its closing quote, or else before a {@code #} or the end of
   * the line.
   */
  private int valueEnd(int start) {
    int opening = skipSpace(start);
    if (opening < text.length() && "'\"`".indexOf(text.charAt(opening)) >= 0) {
      int closing = closingQuote(opening);
      if (closing > 0) {
        return closing + 1;
      }
    }
    int end = start;
    while (end < text.length() && text.charAt(end) != '#' && text.charAt(end) != '\n') {
      end++;
    }
    return end;
  }

  /**
   * Returns the index of the quote that closes a value: the first one without a backslash before
   * it, or else the last one with a backslash, after which the line has nothing but a comment; -1
   * if there is none.
   */
  private int closingQuote(int opening) {
    char quote = text.charAt(opening);
    int closing = -1;
    for (int at = text.indexOf(quote, opening + 1); at > 0; at = text.indexOf(quote, at + 1)) {
      if (nothingFollows(at + 1)) {
        closing = at;
      }
      if (text.charAt(at - 1) != '\\') {
        break;
      }
    }
    return closing;
  }

  private boolean nothingFollows(int from) {
    int at = from;
    while (at < text.length() && isSpace(text.charAt(at)) && !endsLine(text.charAt(at))) {
      at++;
    }
    return at == text.length() || text.charAt(at) == '#' || endsLine(text.charAt(at));
  }

  private static boolean endsLine(char character) {
    return LINE_END.indexOf(character) >= 0;
  }

  private int skipSpace(int from) {
    int at = from;
    while (at < text.length() && isSpace(text.charAt(at))) {
      at++;
    }
    return at;
  }

  private static boolean isSpace(char character) {
    return SPACE.indexOf(character) >= 0;
  }

  private static String value(String raw) {
    int start = 0;
    int end = raw.length();
    while (start < end && isSpace(raw.charAt(start))) {
      start++;
    }
    while (end > start && isSpace(raw.charAt(end - 1))) {
      end--;
    }
    String trimmed = raw.substring(start, end);
    String value = QUOTED.matcher(trimmed).replaceAll("$2");
    return trimmed.startsWith("\"") ? value.replace("\\n", "\n").replace("\\r", "\r") : value;
  }

  /** Returns the values by name; a later definition of a name overrides an earlier one. */
  public Map<String, String> values() {
    return Collections.unmodifiableMap(values);
  }

  /**
   * Returns a note that the environment overrides this file's line for a setting; empty if the file
   * has none.
   */
  String overridden(String name) {
    Place place = places.get(name);
    return place == null
        ? ""
        : " (from the environment, which wins over .env, line " + place.first + ")";
  }

  /**
   * Returns a note about where this file defines an invalid setting, and what may be wrong there.
   *
   * @return a text in parentheses that quotes no value; empty if there is nothing to note
   */
  String hint(String name) {
    String hint = places.containsKey(name) ? definition(name) : skipped(name);
    return hint.isEmpty() ? "" : " (.env" + hint + ")";
  }

  private String definition(String name) {
    Place place = places.get(name);
    StringBuilder hint = new StringBuilder(", line");
    hint.append(place.last > place.first ? "s " : " ").append(place.first);
    if (place.last > place.first) {
      hint.append(" to ").append(place.last);
    }
    if (place.overridden > 0) {
      hint.append(", which overrides line ").append(place.overridden);
    }
    String value = values.get(name);
    if (!value.isEmpty() && "'\"`".indexOf(value.charAt(0)) >= 0) {
      hint.append(": its quotes do not match");
    } else if (place.last == place.first && isFollowedBySkippedLine(place)) {
      hint.append(": the next line is not part of it, only quotes hold several lines together");
    }
    return hint.toString();
  }

  private boolean isFollowedBySkippedLine(Place place) {
    String next = text.lines().skip(place.last).findFirst().orElse("").strip();
    return !next.isEmpty() && !next.startsWith("#") && !NAME.matcher(next).find();
  }

  /** Finds a line that begins with a name but does not define it. */
  private String skipped(String name) {
    if (text.indexOf('\0') >= 0) {
      return " is not UTF-8 text: save it as UTF-8"; // PowerShell's > writes UTF-16
    }
    String start = "(?imd)^([^\\w\n]*)(?:(?:export|set|setx|env)[^\\w\n]+)?%s(?![\\w.-])";
    return Pattern.compile(start.formatted(Pattern.quote(name)))
        .matcher(text)
        .results()
        .min(Comparator.comparing(found -> found.group(1).contains("#")))
        .map(found -> skipped(name, found))
        .orElse("");
  }

  private String skipped(String name, MatchResult found) {
    int line = 1 + lines(0, found.start());
    String hint = ", line " + line;
    for (Place place : places.values()) {
      if (place.first < line && line <= place.last) {
        return hint + " is within the quotes that line " + place.first + " opens";
      }
    }
    return hint + (found.group(1).contains("#") ? " is a comment" : " is not " + name + "=value");
  }
}
