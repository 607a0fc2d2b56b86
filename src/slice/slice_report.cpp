// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/slice_report.h"

#include <algorithm>
#include <cmath>

#include "base/format.h"
#include "base/json.h"
#include "slice/hand_over_layout.h"
#include "slice/hand_over_time.h"

namespace tandem {

double SliceReport::tokens_per_second_of_attention_gpu() const {
  return options.rows * options.micro_batches / (together.median * 1e-6);
}

double SliceReport::tokens_per_second_per_gpu() const {
  return tokens_per_second_of_attention_gpu() * options.deployment.attention_gpus() / options.deployment.gpus();
}

double SliceReport::stage_of(const SideReport& side) const {
  return side.alone.median / (options.model.layers * options.micro_batches);
}

double SliceReport::bubbles() const {
  return 1 - std::max(attention.alone.median, ffn.alone.median) / together.median;
}

namespace {

std::string side_text(const char* name, const SliceReport& r, const SideReport& side) {
  return format(
      "  {:<10} {:>6.1f} us a layer and micro-batch (floor {:>5.1f}), {:.2f} ms a step, p99 {:.2f}; {:.1f} GB\n", name,
      r.stage_of(side), side.layer_floor, side.alone.median * 1e-3, side.alone.p99 * 1e-3, side.gigabytes);
}

OrderedJson side_json(const SliceReport& r, const SideReport& side) {
  return {{"layer_us", r.stage_of(side)},
          {"layer_floor_us", side.layer_floor},
          {"step_us", side.alone.median},
          {"step_p99_us", side.alone.p99},
          {"gigabytes", side.gigabytes}};
}

std::string warm_up_text(const WarmUp& warm_up) {
  if (warm_up.steps == 0) return "";
  return format("  measured after {} steps in {:.1f} s, when step times had {}settled\n", warm_up.steps,
                warm_up.seconds, warm_up.settled ? "" : "not ");
}

OrderedJson warm_up_json(const WarmUp& warm_up) {
  return {{"steps", warm_up.steps}, {"seconds", warm_up.seconds}, {"settled", warm_up.settled}};
}

std::string stage_text(const char* name, const Quantiles& q, double floor) {
  std::string text = format("    {:<12} {:>7.1f} us, p99 {:>7.1f}", name, q.p50, q.p99);
  if (floor > 0) text += format(" (floor {:.1f})", floor);
  return text + "\n";
}

double hand_over_bytes(std::int32_t rows) {
  return static_cast<double>(HandOverLayout{.rows = rows}.bytes());
}

double return_bytes(std::int32_t rows) {
  return static_cast<double>(HandOverLayout{.rows = rows}.return_block_bytes());
}

// A hand-over's or a return's bytes over the added link, if there is one, and its latency.
double link_floor(const SliceOptions& o, double bytes) {
  return o.link.latency_us + 1e-3 * o.link_occupied_ns(bytes);
}

std::string link_name(const AddedLink& link) {
  return format("{:.1f} us{}", link.latency_us, link.gbps > 0 ? format(" and {:.0f} Gb/s", link.gbps) : "");
}

std::string link_text(const SliceOptions& o, const SliceTrace& trace) {
  if (!o.link.added()) return "";
  const double us = link_floor(o, hand_over_bytes(o.rows)) + link_floor(o, return_bytes(o.rows));
  const double layers = static_cast<double>(o.model.layers) * o.micro_batches;
  return format(
      "    added to links: {}; the timers are a warp of the attention GPU each, at least {:.2f} of them on "
      "average\n",
      link_name(o.link), us * layers / trace.step_us);
}

std::string waits_text(const TraceSummary& s) {
  return format(
      "    attention GPU idle {:.1f} %: {:.1f} for the FFN, {:.1f} for links; FFN GPU idle {:.1f} %: {:.1f} for "
      "attention, {:.1f} for links; its products run {:.1f} % of the time\n    waited "
      "for most: {}\n",
      100 * s.attention.all(), 100 * s.attention.for_other_side, 100 * s.attention.for_link, 100 * s.ffn.all(),
      100 * s.ffn.for_other_side, 100 * s.ffn.for_link, 100 * s.products, to_string(s.waited_for()));
}

std::string trace_text(const SliceReport& r) {
  const SliceTrace& trace = r.trace;
  const TraceSummary s = summary_of(trace);
  const TracedStages& t = s.stages;
  const bool both = trace.attention && trace.ffn;
  std::string text = format("  {} steps with stamps, {:.2f} ms each", trace.steps, trace.step_us * 1e-3);
  if (both) text += format("; the GPUs' clocks are known to {:.1f} us", trace.clock_error_us);
  text += "; of a layer and micro-batch in company:\n";
  if (trace.attention)
    text += stage_text("attention", t.attention, r.attention.layer_floor) + stage_text("head", t.head, 0);
  if (both) text += stage_text("to the FFN", t.to_ffn, link_floor(r.options, hand_over_bytes(r.options.rows)));
  if (trace.ffn)
    text += stage_text("gather", t.gather, 0) + stage_text("in line", t.queue, 0) +
            stage_text("products", t.products, 0) + stage_text("sums", t.combine, 0) +
            stage_text("FFN", t.ffn, r.ffn.layer_floor);
  if (!both) return text;
  text += stage_text("to attention", t.to_attention, link_floor(r.options, return_bytes(r.options.rows)));
  if (r.options.stall_ffn_us > 0)
    text += format("    the FFN stalls {:.1f} us before products\n", r.options.stall_ffn_us);
  return text + link_text(r.options, trace) + waits_text(s);
}

std::string expert_parallel_text(const SliceReport& r) {
  const SliceOptions& o = r.options;
  std::string text = format(
      "{} at {} tokens: {} x {} sequences on a GPU, {} tokens to {} experts, the busiest has {}; {} rows of the shared "
      "one\n"
      "  {:.2f} ms a step, p99 {:.2f}: {:.0f} tokens/s/GPU of {}; {:.1f} GB\n",
      o.deployment.to_string(), o.context, o.micro_batches, o.rows, r.load.expert_rows_mean, r.load.experts,
      r.expert_rows_max, r.load.shared_rows, r.together.median * 1e-3, r.together.p99 * 1e-3,
      r.tokens_per_second_per_gpu(), o.deployment.gpus(), r.attention.gigabytes);
  text += warm_up_text(r.together.warm_up);
  if (o.link.added()) text += format("  added to links: {}\n", link_name(o.link));
  if (r.mismatches > 0) text += format("  {} hand-overs were not the expected ones\n", r.mismatches);
  return text;
}

OrderedJson stage_json(const Quantiles& q) {
  return {{"p50_us", q.p50}, {"p99_us", q.p99}};
}

OrderedJson trace_json(const SliceTrace& trace) {
  const TraceSummary s = summary_of(trace);
  const TracedStages& t = s.stages;
  return {{"steps", trace.steps},
          {"step_us", trace.step_us},
          {"clock_error_us", trace.clock_error_us},
          {"attention", stage_json(t.attention)},
          {"head", stage_json(t.head)},
          {"to_ffn", stage_json(t.to_ffn)},
          {"in_line", stage_json(t.queue)},
          {"gather", stage_json(t.gather)},
          {"products", stage_json(t.products)},
          {"sums", stage_json(t.combine)},
          {"ffn", stage_json(t.ffn)},
          {"to_attention", stage_json(t.to_attention)},
          {"attention_idle", {{"for_ffn", s.attention.for_other_side}, {"for_link", s.attention.for_link}}},
          {"ffn_idle", {{"for_attention", s.ffn.for_other_side}, {"for_link", s.ffn.for_link}}},
          {"products_share", s.products},
          {"waited_for", to_string(s.waited_for())}};
}

}  // namespace

std::string slice_text(const SliceReport& r) {
  const SliceOptions& o = r.options;
  if (!o.deployment.disaggregated()) return expert_parallel_text(r);
  std::string text = format(
      "{} ({}) at {} tokens: {} x {} sequences on an attention GPU, {} tokens to {} experts on an FFN GPU, the busiest "
      "has {}; {} rows of the shared one\n",
      o.deployment.to_string(), o.deployment.experts_text(), o.context, o.micro_batches, o.rows,
      r.load.expert_rows_mean, r.load.experts, r.expert_rows_max, r.load.shared_rows * r.load.rail_blocks);
  if (r.sides_alone() && o.sides != SliceSides::kFfn) text += side_text("attention", r, r.attention);
  if (r.sides_alone() && o.sides != SliceSides::kAttention) text += side_text("ffn", r, r.ffn);
  if (o.sides == SliceSides::kBoth)
    text += format(
        "  together   {:.2f} ms a step, p99 {:.2f}{}: {:.0f} tokens/s of an attention GPU, {:.0f} tokens/s/GPU of {}\n",
        r.together.median * 1e-3, r.together.p99 * 1e-3,
        r.sides_alone() ? format(", bubbles {:.1f} %", 100 * r.bubbles()) : "", r.tokens_per_second_of_attention_gpu(),
        r.tokens_per_second_per_gpu(), o.deployment.gpus());
  text += warm_up_text(r.together.warm_up);
  if (r.together.all.size() >= 100)
    text += format("  {} steps: the last tenth took {:.3f} of the first's time, the GPUs' memory grew by {} bytes\n",
                   r.together.all.size(), r.together.drift(), r.memory_growth);
  if (r.trace.steps > 0) text += trace_text(r);
  if (r.mismatches > 0) text += format("  {} hand-overs were not the expected ones\n", r.mismatches);
  return text;
}

std::string slice_json(const SliceReport& r) {
  const SliceOptions& o = r.options;
  OrderedJson json{{"deployment", o.deployment.to_string()},
                   {"context", o.context},
                   {"rows", o.rows},
                   {"micro_batches", o.micro_batches},
                   {"layers", o.model.layers},
                   {"zipf_exponent", o.zipf_exponent},
                   {"steps", o.steps},
                   {"expert_rows_mean", r.load.expert_rows_mean},
                   {"expert_rows_max", r.expert_rows_max}};
  if (o.deployment.disaggregated()) {
    json["experts"] = o.deployment.experts_text();
    if (r.sides_alone()) {
      json["attention"] = side_json(r, r.attention);
      json["ffn"] = side_json(r, r.ffn);
      json["bubbles"] = r.bubbles();
    }
    json["tokens_per_second_of_attention_gpu"] = r.tokens_per_second_of_attention_gpu();
    json["memory_growth"] = r.memory_growth;
  } else {
    json["gigabytes"] = r.attention.gigabytes;
  }
  if (o.deployment.disaggregated()) json["flags_by"] = to_string(o.flags);
  json["step_us"] = r.together.median;
  json["step_p99_us"] = r.together.p99;
  json["drift"] = r.together.drift();
  json["warm_up"] = warm_up_json(r.together.warm_up);
  json["steps_us"] = r.together.all;
  json["tokens_per_second_per_gpu"] = r.tokens_per_second_per_gpu();
  json["mismatches"] = r.mismatches;
  if (o.link.added()) json["link"] = {{"latency_us", o.link.latency_us}, {"gbps", o.link.gbps}};
  if (o.stall_ffn_us > 0 && o.deployment.disaggregated()) json["stall_ffn_us"] = o.stall_ffn_us;
  if (r.trace.steps > 0) json["trace"] = trace_json(r.trace);
  return json.dump();
}

std::string comparison_text(const SliceReport& best, const SliceReport& baseline) {
  const double gain = best.tokens_per_second_per_gpu() / baseline.tokens_per_second_per_gpu() - 1;
  return format("{} ({} x {}, {:.1f} ms) makes {:.1f} % {} tokens/s/GPU than {} ({} x {}, {:.1f} ms)\n",
                best.options.deployment.to_string(), best.options.micro_batches, best.options.rows,
                best.together.median * 1e-3, 100 * std::abs(gain), gain < 0 ? "fewer" : "more",
                baseline.options.deployment.to_string(), baseline.options.micro_batches, baseline.options.rows,
                baseline.together.median * 1e-3);
}

}  // namespace tandem
