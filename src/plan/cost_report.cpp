// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/cost_report.h"

#include <algorithm>
#include <cmath>

#include "base/format.h"
#include "base/json.h"

namespace tandem {

std::string three_digits(double value) {
  if (value == 0) return "0";
  const std::string text = format("{:.2e}", value);  // "2.88e+08"
  const std::size_t e = text.find('e');
  return format("{}e{}", text.substr(0, e), std::stoi(text.substr(e + 1)));
}

namespace {

// ".054", as the paper writes prices; a dollar and more with its digit.
std::string price(double usd) {
  const std::string text = format("{:.3f}", usd);
  return text.starts_with("0.") ? text.substr(1) : text;
}

std::size_t width_of_names(const CostQuestion& q) {
  std::size_t width = 8;
  for (const ModelShape& model : q.models) width = std::max(width, model.name.size());
  for (const Hardware& h : q.hardware) width = std::max(width, h.name.size());
  return width;
}

std::string hardware_text(const CostQuestion& q, std::size_t width) {
  std::string out = format("{:<{}} {:>6} {:>10} {:>10} {:>10} {:>9} {:>9} {:>9}\n", "hardware", width, "USD/h",
                           "BF16 FLOPs", "FP8 FLOPs", "memory B/s", "roofline", "USD/FLOP", "USD/byte");
  for (const Hardware& h : q.hardware)
    out += format("{:<{}} {:>6.4g} {:>10} {:>10} {:>10} {:>9.0f} {:>9} {:>9}\n", h.name, width, h.usd_per_hour,
                  three_digits(h.bf16_flops), h.fp8_flops > 0 ? three_digits(h.fp8_flops) : "-",
                  three_digits(h.memory_bandwidth), h.roofline(), three_digits(h.usd_per_flop()),
                  three_digits(h.usd_per_byte()));
  return out;
}

std::string work_text(const CostTable& table, std::size_t width) {
  const CostQuestion& q = table.question();
  std::string out = format("{:<{}} {:>8} {:>10} {:>15} {:>12} {:>10} {:>12}\n", "a token", width, "context", "KV bytes",
                           "attention FLOPs", "linear FLOPs", "FFN FLOPs", "FLOPs/KV byte");
  for (std::size_t m = 0; m < q.models.size(); ++m) {
    for (std::size_t c = 0; c < q.contexts.size(); ++c) {
      const TokenWork& work = table.entry(m, c, 0).work;
      out += format("{:<{}} {:>8} {:>10} {:>15} {:>12} {:>10} {:>12.1f}\n", q.models[m].name, width, q.contexts[c],
                    three_digits(work.kv_bytes), three_digits(work.attention_flops), three_digits(work.linear_flops),
                    three_digits(work.ffn_flops), work.attention_flops / work.kv_bytes);
    }
  }
  return out;
}

std::string prices_text(const CostTable& table, std::size_t width) {
  const CostQuestion& q = table.question();
  std::string out = format("{:<{}} {:>8} {:<9}", "USD per 1M", width, "context", "part");
  for (const Hardware& h : q.hardware) out += format(" {:>8}", h.name);
  out += "   cheapest\n";
  for (std::size_t m = 0; m < q.models.size(); ++m) {
    for (std::size_t c = 0; c < q.contexts.size(); ++c) {
      const CostSplit split = table.cheapest(m, c);
      const auto line = [&](const char* part, auto value, std::size_t best) {
        out += format("{:<{}} {:>8} {:<9}", q.models[m].name, width, q.contexts[c], part);
        for (std::size_t h = 0; h < q.hardware.size(); ++h) out += format(" {:>8}", price(value(table.entry(m, c, h))));
        out += format("   {} on {}\n", price(value(table.entry(m, c, best))), q.hardware[best].name);
      };
      line("attention", [](const CostEntry& e) { return e.cost.attention_usd; }, split.attention);
      line("FFN", [](const CostEntry& e) { return e.cost.ffn_usd; }, split.ffn);
      std::size_t best = 0;
      for (std::size_t h = 1; h < q.hardware.size(); ++h)
        if (table.entry(m, c, h).cost.total_usd() < table.entry(m, c, best).cost.total_usd()) best = h;
      line("together", [](const CostEntry& e) { return e.cost.total_usd(); }, best);
      out +=
          format("{:<{}} {:>8} {:<9} {} with attention on {} and FFN on {}\n", q.models[m].name, width, q.contexts[c],
                 "AFD", price(split.usd), q.hardware[split.attention].name, q.hardware[split.ffn].name);
    }
  }
  return out;
}

// In quotes where a comma or a quote is in it.
std::string csv_text(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

}  // namespace

std::string cost_text(const CostTable& table) {
  const std::size_t width = width_of_names(table.question());
  return hardware_text(table.question(), width) + "\n" + work_text(table, width) + "\n" + prices_text(table, width);
}

std::string cost_json(const CostTable& table) {
  const CostQuestion& q = table.question();
  std::string out;
  for (const CostEntry& e : table.entries()) {
    const OrderedJson line{{"model", q.models[e.model].name},
                           {"hardware", q.hardware[e.hardware].name},
                           {"context", q.contexts[e.context]},
                           {"kv_bytes", e.work.kv_bytes},
                           {"attention_flops", e.work.attention_flops},
                           {"linear_flops", e.work.linear_flops},
                           {"ffn_flops", e.work.ffn_flops},
                           {"attention_usd", e.cost.attention_usd},
                           {"ffn_usd", e.cost.ffn_usd}};
    out += to_line(line) + "\n";
  }
  return out;
}

std::string cost_csv(const CostTable& table) {
  const CostQuestion& q = table.question();
  std::string out = "model,hardware,context,kv_bytes,attention_flops,linear_flops,ffn_flops,attention_usd,ffn_usd\n";
  for (const CostEntry& e : table.entries())
    out += format("{},{},{},{},{},{},{},{},{}\n", csv_text(q.models[e.model].name),
                  csv_text(q.hardware[e.hardware].name), q.contexts[e.context], e.work.kv_bytes, e.work.attention_flops,
                  e.work.linear_flops, e.work.ffn_flops, e.cost.attention_usd, e.cost.ffn_usd);
  return out;
}

}  // namespace tandem
