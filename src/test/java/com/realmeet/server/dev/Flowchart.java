package com.realmeet.server.dev;

import java.util.List;

/**
 * A flow chart as SVG, made from text: a block of lines is a step, whose first line is its title.
 * Lines that begin with {@code ->} are ways out of it, with a status; a block that begins with
 * {@code |} labels the arrow to the next step. It is narrow enough for a phone.
 */
public final class Flowchart {
  private static final int WIDTH = 380;
  private static final int LEFT = 10;
  private static final int RIGHT = 340; // of a step; the ways out go further
  private static final int GAP = 24; // between two steps
  private static final int LINE = 19;

  /** For light and dark, each with its own background: the page around may have the other. */
  private static final String STYLE =
      """
      text { font: 13px Helvetica, Arial, sans-serif; fill: #1b1e24 }
      .page { fill: #fff }
      .step { fill: #f1f4f9; stroke: #8b95a7 }
      .title { font-weight: bold; font-size: 14px }
      .arrow { fill: none; stroke: #5b6270; stroke-width: 1.5 }
      .ok text, text.ok { fill: #12703a } .ok .arrow { stroke: #12703a }
      .fault text { fill: #b3261e } .fault .arrow { stroke: #b3261e }
      @media (prefers-color-scheme: dark) {
      text { fill: #e7e9ed }
      .page { fill: #15171b }
      .step { fill: #23272f; stroke: #5b6270 }
      .arrow { stroke: #a2a9b6 }
      .ok text, text.ok { fill: #6fd39a } .ok .arrow { stroke: #6fd39a }
      .fault text { fill: #ff9c94 } .fault .arrow { stroke: #ff9c94 }
      }
      """;

  private final StringBuilder shapes = new StringBuilder();
  private int y = 10;

  private Flowchart() {}

  /** Returns an SVG document. */
  public static String svg(String title, String text) {
    return new Flowchart().draw(title, text);
  }

  private String draw(String title, String text) {
    List<String> blocks =
        List.of(text.replaceAll("(?m)^#.*\n", "").strip().split("\n\n+")); // # is a comment
    for (int i = 0; i < blocks.size(); i++) {
      if (blocks.get(i).startsWith("|")) {
        text(WIDTH / 2 + 10, y - GAP + 17, "start", "", blocks.get(i).substring(1).strip());
      } else {
        step(blocks.get(i).lines().map(String::strip).toList());
        if (i < blocks.size() - 1) {
          arrow((LEFT + RIGHT) / 2, y, "v" + (GAP - 2), "l-4,-7 m4,7 l4,-7");
          y += GAP;
        }
      }
    }
    String head =
        """
        <svg xmlns="http://www.w3.org/2000/svg" width="%1$d" height="%2$d" viewBox="0 0 %1$d %2$d" role="img">
        <title>%3$s</title>
        <style>
        %4$s</style>
        <rect class="page" width="100%%" height="100%%" rx="8"/>
        """;
    return head.formatted(WIDTH, y + 10, escape(title), STYLE) + shapes + "</svg>\n";
  }

  private void step(List<String> lines) {
    int height = lines.size() * LINE + 15;
    shapes.append(
        "<rect class=\"step\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"6\"/>\n"
            .formatted(LEFT, y, RIGHT - LEFT, height));
    for (int i = 0; i < lines.size(); i++) {
      String line = lines.get(i);
      int base = y + 4 + (i + 1) * LINE;
      if (line.startsWith("->")) {
        wayOut(base, line.substring(2).strip());
      } else {
        String type = i > 0 ? "" : line.startsWith("2") ? "title ok" : "title";
        text(LEFT + 12, base, "start", type, line);
      }
    }
    y += height;
  }

  private void wayOut(int base, String text) {
    shapes.append("<g class=\"%s\">\n".formatted(text.startsWith("2") ? "ok" : "fault"));
    text(RIGHT - 8, base, "end", "", text);
    arrow(RIGHT, base - 4, "h28", "l-7,-4 m7,4 l-7,4");
    shapes.append("</g>\n");
  }

  private void text(int x, int y, String anchor, String type, String text) {
    shapes.append(
        "<text x=\"%d\" y=\"%d\" text-anchor=\"%s\"%s>%s</text>\n"
            .formatted(
                x, y, anchor, type.isEmpty() ? "" : " class=\"" + type + "\"", escape(text)));
  }

  private void arrow(int x, int y, String line, String head) {
    shapes.append("<path class=\"arrow\" d=\"M%d,%d %s %s\"/>\n".formatted(x, y, line, head));
  }

  private static String escape(String text) {
    return text.replace("&", "&amp;").replace("<", "&lt;");
  }
}
