package com.realmeet.server.bench;

import com.realmeet.server.bench.Bench.Step;
import java.util.List;
import java.util.function.ToDoubleFunction;
import java.util.stream.Collectors;
import java.util.stream.DoubleStream;

/** The bench as a picture: throughput above, latency below, against the number of connections. */
final class Plot {
  private static final int WIDTH = 740;
  private static final int LEFT = 80;
  private static final int RIGHT = 600; // labels of the curves are right of it
  private static final int HEIGHT = 200; // of a panel

  private final List<Step> steps;
  private final StringBuilder svg = new StringBuilder();

  private Plot(List<Step> steps) {
    this.steps = steps;
  }

  /** An SVG document. */
  static String of(List<Step> steps, String title) {
    return new Plot(steps).draw(title);
  }

  private String draw(String title) {
    svg.append(
        """
        <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d 584" font-family="sans-serif" font-size="12">
        <rect width="100%%" height="100%%" fill="white"/>
        """
            .formatted(WIDTH));
    text(8, 20, "start", "POST /api/user/sync, known users");
    text(8, 38, "start", title.replace("&", "&amp;").replace("<", "&lt;"));
    int top = 74;
    double most = max(step -> Math.max(step.result().perSecond(), step.selectsPerSecond()));
    panel(top, "requests/s", most);
    curve(top, most, "#999", "the SELECT alone", Step::selectsPerSecond);
    curve(top, most, "#06c", "real-meet-server", step -> step.result().perSecond());
    top = 334;
    most = max(step -> step.result().p99Millis());
    panel(top, "ms", most);
    curve(top, most, "#c60", "p99", step -> step.result().p99Millis());
    curve(top, most, "#06c", "p50", step -> step.result().p50Millis());
    text((LEFT + RIGHT) / 2, 574, "middle", "connections");
    return svg.append("</svg>\n").toString();
  }

  /** A round number that is not less than any value. */
  private double max(ToDoubleFunction<Step> value) {
    double most = steps.stream().mapToDouble(value).max().orElse(1);
    double magnitude = Math.pow(10, Math.floor(Math.log10(most)));
    return magnitude
        * DoubleStream.of(1, 2, 4, 6, 8, 10)
            .filter(n -> n * magnitude >= most)
            .findFirst()
            .orElse(10);
  }

  private void panel(int top, String unit, double most) {
    text(LEFT - 8, top - 14, "end", unit);
    for (int i = 0; i <= 4; i++) {
      double y = top + HEIGHT - HEIGHT * i / 4.0;
      line(LEFT, y, RIGHT, y);
      text(LEFT - 8, y + 4, "end", (most < 4 ? "%.1f" : "%.0f").formatted(most * i / 4));
    }
    for (int i = 0; i < steps.size(); i++) {
      line(x(i), top, x(i), top + HEIGHT);
      text(x(i), top + HEIGHT + 16, "middle", String.valueOf(steps.get(i).connections()));
    }
  }

  private void curve(
      int top, double most, String color, String label, ToDoubleFunction<Step> value) {
    String points =
        steps.stream()
            .map(
                step ->
                    "%.1f,%.1f"
                        .formatted(
                            x(steps.indexOf(step)),
                            top + HEIGHT - HEIGHT * value.applyAsDouble(step) / most))
            .collect(Collectors.joining(" "));
    svg.append(
        "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>\n"
            .formatted(points, color));
    double last = value.applyAsDouble(steps.get(steps.size() - 1));
    text(RIGHT + 6, top + HEIGHT - HEIGHT * last / most + 4, "start", label);
  }

  /** Each step doubles the connections. */
  private double x(int step) {
    return LEFT + (double) (RIGHT - LEFT) * step / (steps.size() - 1);
  }

  private void line(double x1, double y1, double x2, double y2) {
    svg.append(
        "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n"
            .formatted(x1, y1, x2, y2));
  }

  private void text(double x, double y, String anchor, String text) {
    svg.append(
        "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n".formatted(x, y, anchor, text));
  }
}
