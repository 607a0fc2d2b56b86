// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The cost figure: a panel for each context, models side by side, a bar for each accelerator.
#include <algorithm>
#include <array>
#include <cmath>

#include "base/format.h"
#include "base/svg_text.h"
#include "plan/cost_report.h"

namespace tandem {

namespace {

constexpr double kBarWidth = 11, kBarGap = 2, kGroupGap = 18, kLeft = 56, kTop = 34, kPanelHeight = 220, kFoot = 60;
// Attention in the full colour, FFN above it in a lighter one. Told apart by people who see fewer colours, too.
constexpr std::array<const char*, 6> kColours{"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"};
constexpr const char* kSplitColour = "#333333";

// The round number of the kind 1, 2 or 5 that cuts most into four to ten.
double round_step(double most) {
  const double power = std::pow(10, std::floor(std::log10(most / 4)));
  for (const double factor : {5.0, 2.0})
    if (power * factor <= most / 4) return power * factor;
  return power;
}

class Chart {
 public:
  explicit Chart(const CostTable& table) : table_(table), question_(table.question()) {
    for (const CostEntry& e : table.entries()) most_ = std::max(most_, e.cost.total_usd());
    group_ = static_cast<double>(question_.hardware.size() + 1) * (kBarWidth + kBarGap) + kGroupGap;
    width_ = kLeft + group_ * static_cast<double>(question_.models.size()) + 150;
  }

  std::string draw() {
    const double panel = kTop + kPanelHeight + kFoot;
    const double height = panel * static_cast<double>(question_.contexts.size());
    out_ = format(R"(<svg xmlns="http://www.w3.org/2000/svg" width="{:.0f}" height="{:.0f}" font-family="sans-serif" )"
                  R"(font-size="11">)"
                  "\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
                  width_, height);
    for (std::size_t c = 0; c < question_.contexts.size(); ++c) draw_panel(c, panel * static_cast<double>(c) + kTop);
    draw_legend();
    return out_ + "</svg>\n";
  }

 private:
  double height_of(double usd) const { return usd / most_ * kPanelHeight; }

  void text(double x, double y, const char* anchor, const std::string& what) {
    out_ += format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor, svg_text(what));
  }

  void bar(double x, double foot, const TokenCost& cost, const char* colour, const std::string& title) {
    const double attention = height_of(cost.attention_usd), ffn = height_of(cost.ffn_usd);
    const auto part = [&](double y, double height, double opacity) {
      out_ += format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{}\" height=\"{:.1f}\" fill=\"{}\" opacity=\"{}\"/>", x,
                     y, kBarWidth, height, colour, opacity);
    };
    out_ += "<g>";
    part(foot - attention, attention, 1);
    part(foot - attention - ffn, ffn, 0.45);
    out_ += format("<title>{}: attention {:.3f}, FFN {:.3f}</title></g>\n", svg_text(title), cost.attention_usd,
                   cost.ffn_usd);
  }

  void draw_panel(std::size_t c, double top) {
    const double foot = top + kPanelHeight;
    text(kLeft, top - 14, "start", format("USD per 1M decoded tokens, context {}", question_.contexts[c]));
    const double step = round_step(most_);
    for (int i = 0; i * step <= most_ * 1.0001; ++i) {
      const double usd = i * step;
      const double y = foot - height_of(usd);
      out_ += format("<line x1=\"{}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#dddddd\"/>\n", kLeft, y,
                     width_ - 145, y);
      text(kLeft - 6, y + 4, "end", format("{:.3g}", usd));
    }
    for (std::size_t m = 0; m < question_.models.size(); ++m) draw_group(m, c, foot);
  }

  void draw_group(std::size_t m, std::size_t c, double foot) {
    const double left = kLeft + group_ * static_cast<double>(m) + kGroupGap / 2;
    const std::string& model = question_.models[m].name;
    double x = left;
    for (std::size_t h = 0; h < question_.hardware.size(); ++h, x += kBarWidth + kBarGap)
      bar(x, foot, table_.entry(m, c, h).cost, kColours[h % kColours.size()],
          format("{} on {}", model, question_.hardware[h].name));
    const CostSplit split = table_.cheapest(m, c);
    const TokenCost cost{table_.entry(m, c, split.attention).cost.attention_usd,
                         table_.entry(m, c, split.ffn).cost.ffn_usd};
    bar(x, foot, cost, kSplitColour,
        format("{}, attention on {}, FFN on {}", model, question_.hardware[split.attention].name,
               question_.hardware[split.ffn].name));
    text((left + x + kBarWidth) / 2, foot + (m % 2 == 0 ? 16 : 30), "middle", model);
  }

  void draw_legend() {
    double y = kTop;
    const double x = width_ - 130;
    const auto line = [&](const char* colour, const std::string& what) {
      out_ += format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"11\" height=\"11\" fill=\"{}\"/>\n", x, y, colour);
      text(x + 16, y + 10, "start", what);
      y += 17;
    };
    for (std::size_t h = 0; h < question_.hardware.size(); ++h)
      line(kColours[h % kColours.size()], question_.hardware[h].name);
    line(kSplitColour, "cheapest pair");
    text(x, y + 12, "start", "full: attention");
    text(x, y + 27, "start", "light: FFN");
  }

  const CostTable& table_;
  const CostQuestion& question_;
  double most_ = 1e-12, group_ = 0, width_ = 0;
  std::string out_;
};

}  // namespace

std::string cost_svg(const CostTable& table) {
  return Chart(table).draw();
}

}  // namespace tandem
