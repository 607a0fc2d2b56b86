// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "traffic/plot.h"

#include <algorithm>
#include <cmath>

#include "base/format.h"
#include "base/svg_text.h"

namespace tandem {

namespace {

constexpr double kWidth = 300, kHeight = 200, kLeft = 50, kTop = 60, kBetween = 50;  // of a panel, in pixels
constexpr std::size_t kPointsMax = 500;                                              // of a curve

struct Panel {
  const char* name;
  std::vector<double> values;  // milliseconds
  double limit;
};

// The next of 1, 2, 5, 10, 20 … that is not below value.
double round_up(double value) {
  if (!(value > 0)) return 1;
  const double power = std::pow(10, std::floor(std::log10(value)));
  for (const double step : {1.0, 2.0, 5.0})
    if (step * power >= value) return step * power;
  return 10 * power;
}

std::string text_at(double x, double y, const char* anchor, const std::string& text) {
  return format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor, text);
}
std::string line_from(double x1, double y1, double x2, double y2, const char* style) {
  return format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", x1, y1, x2, y2, style);
}

// values ascending.
std::string curve(const std::vector<double>& values, double left, double x_max) {
  std::string points = format("{:.1f},{:.1f}", left, kTop + kHeight);
  const std::size_t stride = std::max<std::size_t>(1, values.size() / kPointsMax);
  const auto add = [&](std::size_t i) {
    points += format(" {:.1f},{:.1f}", left + kWidth * values[i] / x_max,
                     kTop + kHeight * (1 - static_cast<double>(i + 1) / static_cast<double>(values.size())));
  };
  for (std::size_t i = 0; i + 1 < values.size(); i += stride) add(i);
  add(values.size() - 1);
  return format("<polyline points=\"{}\" fill=\"none\" stroke=\"#1f6feb\" stroke-width=\"2\"/>\n", points);
}

std::string panel_svg(Panel panel, double left) {
  std::ranges::sort(panel.values);
  std::string svg = text_at(left + kWidth / 2, kTop - 12, "middle", panel.name);
  const double most = panel.values.empty() ? 0 : panel.values.back();
  const double x_max = round_up(std::max(most, panel.limit));
  for (int i = 0; i <= 4; ++i) {
    const double x = left + kWidth * i / 4, y = kTop + kHeight * i / 4;
    svg += line_from(left, y, left + kWidth, y, "stroke=\"#ddd\"");
    svg += line_from(x, kTop, x, kTop + kHeight, "stroke=\"#ddd\"");
    svg += text_at(left - 6, y + 4, "end", format("{} %", 100 - 25 * i));
    svg += text_at(x, kTop + kHeight + 18, "middle", format("{:g}", x_max * i / 4));
  }
  if (panel.limit > 0) {
    const double x = left + kWidth * panel.limit / x_max;
    svg += line_from(x, kTop, x, kTop + kHeight, "stroke=\"#d1242f\" stroke-dasharray=\"4 3\"");
  }
  if (!panel.values.empty()) svg += curve(panel.values, left, x_max);
  return svg;
}

}  // namespace

std::string plot_svg(std::span<const LoadRecord> records, const LatencyLimits& limits, const std::string& title) {
  Panel panels[] = {{"time to first token, ms", {}, limits.first_token_ms},
                    {"time per further token, ms", {}, limits.per_token_ms},
                    {"end to end, ms", {}, limits.end_to_end_ms}};
  for (const LoadRecord& record : records) {
    if (!record.ok()) continue;
    if (record.first > 0) panels[0].values.push_back(static_cast<double>(record.time_to_first()) * 1e-6);
    if (record.output_tokens > 1) panels[1].values.push_back(record.per_token() * 1e-6);
    panels[2].values.push_back(static_cast<double>(record.end_to_end()) * 1e-6);
  }
  const double width = kLeft + 3 * (kWidth + kBetween), height = kTop + kHeight + 40;
  std::string svg = format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:g}\" height=\"{:g}\" font-family=\"sans-serif\" "
      "font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      width, height);
  svg += text_at(kLeft, 24, "start", svg_text(title));
  double left = kLeft;
  for (Panel& panel : panels) {
    svg += panel_svg(std::move(panel), left);
    left += kWidth + kBetween;
  }
  return svg + "</svg>\n";
}

}  // namespace tandem
