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
 * A {@code .env} file, read as the npm package dotenv 18 reads it, so that a file of the Node
 * server means the same here. Where dotenv skips a line, so does this class; it remembers where
 * everything stood, for the messages about settings that cannot be used.
 *
 * <p>dotenv's one regular expression is a pattern and a loop here: in Java, alternatives within a
 * repeated group overflow the stack on long values.
 */
public final class DotEnv {
  /** What {@code \s} means in JavaScript, the byte order mark U+FEFF included. */
  private static final String SPACE =
      "\t\n\u000b\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"
          + "\u200a\u2028\u2029\u202f\u205f\u3000\ufeff";

  /**
   * What ends a line for JavaScript's {@code ^} and {@code $}; carriage returns are gone by then.
   */
  private static final String LINE_END = "\n\u2028\u2029";

  private static final String LINE_STARTS = "(?<![^" + LINE_END + "])";
  private static final String LINE_ENDS = "(?![^" + LINE_END + "])";

  /** {@code NAME=}, {@code export NAME =} or {@code NAME: } at the start of a line. */
  private static final Pattern NAME =
      Pattern.compile(
          (LINE_STARTS + "[S&&[^" + LINE_END + "]]*+(?:export[S]++)?([\\w.-]++)(?:[S]*+=|:[S])")
              .replace("S", SPACE));

  /** The quotes around a value; more than one pair only where U+2028 or U+2029 parts its lines. */
  private static final Pattern QUOTED =
      Pattern.compile(LINE_STARTS + "(['\"`])(.*)\\1" + LINE_ENDS, Pattern.DOTALL);

  /** No file, or an empty one. */
  static final DotEnv NONE = new DotEnv(new byte[0]);

  /** Lines of a definition, counted from 1, and that of the one that it overrides, or 0. */
  private record Place(int first, int last, int overridden) {}

  private final String text;
  private final Map<String, String> values = new HashMap<>();
  private final Map<String, Place> places = new HashMap<>();

  /**
   * Reads a file; one that does not exist has no values.
   *
   * @throws IOException if it exists but cannot be read; its message is for a person
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

  /** The end of a value: behind its closing quote, or else before a {@code #} or the line's end. */
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
   * The quote that closes a value: the first without a backslash before it, or else the last with
   * one, behind which the line has nothing but a comment. -1 if there is none.
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

  /** The values by name; of two definitions of a name, the later counts. */
  public Map<String, String> values() {
    return Collections.unmodifiableMap(values);
  }

  /** Says of a setting whose value comes from elsewhere that a line of this file does not count. */
  String overridden(String name) {
    Place place = places.get(name);
    return place == null
        ? ""
        : " (from the environment, which wins over .env, line " + place.first + ")";
  }

  /**
   * Says where this file names a setting that cannot be used, and what may be wrong there.
   *
   * @return a text in parentheses that quotes nothing of the file; empty if it has nothing to say
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

  /** Looks for a line that begins with a name and yet does not define it. */
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
