// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/slice_report.h"

#include <algorithm>

#include "base/format.h"
#include "base/json.h"

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

double StepTimes::drift() const {
  if (all.size() < 100) return 1;
  const auto median_of = [](std::vector<double> times) {
    const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    return *middle;
  };
  const auto tenth = static_cast<std::ptrdiff_t>(all.size() / 10);
  return median_of({all.end() - tenth, all.end()}) / median_of({all.begin(), all.begin() + tenth});
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

}  // namespace

std::string slice_text(const SliceReport& r) {
  const SliceOptions& o = r.options;
  std::string text = format(
      "{} at {} tokens: {} x {} sequences on an attention GPU, {} tokens to {} experts on an FFN GPU, the busiest "
      "has {}; {} rows of the shared one\n",
      o.deployment.to_string(), o.context, o.micro_batches, o.rows, r.load.expert_rows_mean, r.load.experts,
      r.expert_rows_max, r.load.shared_rows * r.load.rail_blocks);
  if (o.sides != SliceSides::kFfn) text += side_text("attention", r, r.attention);
  if (o.sides != SliceSides::kAttention) text += side_text("ffn", r, r.ffn);
  if (o.sides == SliceSides::kBoth)
    text += format(
        "  together   {:.2f} ms a step, p99 {:.2f}, bubbles {:.1f} %: {:.0f} tokens/s of an attention GPU, {:.0f} "
        "tokens/s/GPU of {}\n",
        r.together.median * 1e-3, r.together.p99 * 1e-3, 100 * r.bubbles(), r.tokens_per_second_of_attention_gpu(),
        r.tokens_per_second_per_gpu(), o.deployment.gpus());
  if (r.together.all.size() >= 100)
    text += format("  {} steps: the last tenth took {:.3f} of the first's time, the GPUs' memory grew by {} bytes\n",
                   r.together.all.size(), r.together.drift(), r.memory_growth);
  if (r.mismatches > 0) text += format("  {} hand-overs were not the expected ones\n", r.mismatches);
  return text;
}

std::string slice_json(const SliceReport& r) {
  const SliceOptions& o = r.options;
  const OrderedJson json{{"deployment", o.deployment.to_string()},
                         {"context", o.context},
                         {"rows", o.rows},
                         {"micro_batches", o.micro_batches},
                         {"layers", o.model.layers},
                         {"zipf_exponent", o.zipf_exponent},
                         {"steps", o.steps},
                         {"expert_rows_mean", r.load.expert_rows_mean},
                         {"expert_rows_max", r.expert_rows_max},
                         {"attention", side_json(r, r.attention)},
                         {"ffn", side_json(r, r.ffn)},
                         {"step_us", r.together.median},
                         {"step_p99_us", r.together.p99},
                         {"drift", r.together.drift()},
                         {"memory_growth", r.memory_growth},
                         {"bubbles", r.bubbles()},
                         {"tokens_per_second_of_attention_gpu", r.tokens_per_second_of_attention_gpu()},
                         {"tokens_per_second_per_gpu", r.tokens_per_second_per_gpu()},
                         {"mismatches", r.mismatches}};
  return json.dump();
}

}  // namespace tandem
