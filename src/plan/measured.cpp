// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/measured.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/format.h"
#include "base/json.h"

namespace tandem {

namespace {

constexpr std::size_t kLinesMax = 10'000;
constexpr double kUsualRows = 128;  // of a micro-batch on one attention GPU (paper, section 7)

double number_at(const Json& line, const char* key, double low, double high, const std::string& where) {
  const auto value = line.find(key);
  if (value == line.end() || !value->is_number() || !(value->get<double>() >= low && value->get<double>() <= high))
    throw Error(ErrorCode::kInvalidData, format("{}: {} has to be a number between {} and {}", where, key, low, high));
  return value->get<double>();
}

std::string text_at(const Json& line, const char* key, const std::string& where) {
  const auto value = line.find(key);
  if (value == line.end() || !value->is_string())
    throw Error(ErrorCode::kInvalidData, format("{}: {} has to be a text", where, key));
  return value->get<std::string>();
}

// In MHz; 0: not known.
double clock_at(const Json& line, const std::string& where) {
  return line.contains("clock_mhz") ? number_at(line, "clock_mhz", 0, 1e5, where) : 0;
}

std::vector<double> numbers_in(const std::string& text) {
  std::vector<double> numbers;
  for (const char *at = text.data(), *end = at + text.size(); at < end;) {
    double value = 0;
    const auto [rest, failure] = std::from_chars(at, end, value, std::chars_format::fixed);
    if (failure == std::errc{} && rest != at) {
      if (value > 0 && value < 1e12) numbers.push_back(value);
      at = rest;
    } else {
      ++at;
    }
  }
  return numbers;
}

// Of --stages.
void read_stage(const Json& line, const std::string& where, KernelMeasurements& all) {
  const std::string model = text_at(line, "model", where);
  if (!all.stage_model.empty() && all.stage_model != model)
    throw Error(ErrorCode::kInvalidData,
                format("{}: a stage of {} where those before are of {}", where, model, all.stage_model));
  all.stage_model = model;
  StageKernel k{.stage = text_at(line, "stage", where), .kernel = text_at(line, "kernel", where)};
  const bool ffn = k.stage == "ffn";
  if (!ffn && k.stage != "attention" && k.stage != "head")
    throw Error(ErrorCode::kInvalidData, format("{}: stage '{}' is none of attention, head, ffn", where, k.stage));
  k.rows = number_at(line, "rows", 1, 1e7, where);
  if (ffn)
    k.gpus = static_cast<std::int32_t>(number_at(line, "gpus", 1, 1e6, where));
  else
    k.context = number_at(line, "context", 1, 1e9, where);
  k.seconds = 1e-6 * number_at(line, "microseconds", 1e-3, 1e9, where);
  k.seconds_beside = 1e-6 * number_at(line, "microseconds_beside", 0, 1e9, where);
  const double clock_mhz = clock_at(line, where);
  if (clock_mhz > 0 && all.clock_mhz > 0) k.clock = std::min(1., clock_mhz / all.clock_mhz);
  all.stages.push_back(std::move(k));
}

void read_line(const Json& line, const std::string& where, KernelMeasurements& all) {
  if (!line.is_object()) throw Error(ErrorCode::kInvalidData, format("{}: no JSON object", where));
  if (line.contains("gpu")) {
    all.gpu = text_at(line, "gpu", where);
    all.read_bytes_per_second = number_at(line, "read_bytes_per_second", 1e6, 1e18, where);
    all.fp8_flops_per_second = number_at(line, "fp8_flops_per_second", 1e6, 1e21, where);
    all.bf16_flops_per_second = number_at(line, "bf16_flops_per_second", 1e6, 1e21, where);
    all.clock_mhz = clock_at(line, where);
    return;
  }
  if (line.contains("stage")) return read_stage(line, where, all);
  MeasuredKernel k{.kernel = text_at(line, "kernel", where), .shape = numbers_in(text_at(line, "shape", where))};
  k.microseconds = number_at(line, "microseconds", 1e-3, 1e12, where);
  k.bytes = number_at(line, "bytes", 0, 1e18, where);
  k.flops = number_at(line, "flops", 0, 1e24, where);
  k.fraction_of_bandwidth = number_at(line, "fraction_of_bandwidth", 0, 2, where);
  k.fraction_of_flops = number_at(line, "fraction_of_flops", 0, 2, where);
  if (k.efficiency() <= 0.001)
    throw Error(ErrorCode::kInvalidData, format("{}: both fractions are below 0.001", where));
  all.kernels.push_back(std::move(k));
}

// Fractions above one are noise of the yardstick.
double capped(double efficiency) {
  return std::min(efficiency, 1.0);
}

// Among the rows of a kernel the one whose shape is nearest, by the logarithms of its numbers.
const MeasuredKernel* nearest(const KernelMeasurements& measured, const std::string& kernel,
                              const std::vector<double>& shape) {
  const MeasuredKernel* best = nullptr;
  double least = 1e300;
  for (const MeasuredKernel& row : measured.kernels) {
    if (row.kernel != kernel || row.shape.size() != shape.size()) continue;
    double distance = 0;
    for (std::size_t i = 0; i < shape.size(); ++i) distance += std::abs(std::log(row.shape[i] / shape[i]));
    if (distance < least) {
      least = distance;
      best = &row;
    }
  }
  return best;
}

std::string shown(const MeasuredKernel& row) {
  return format("{} {}", row.kernel, join(row.shape, " x "));
}

}  // namespace

KernelMeasurements parse_kernel_measurements(std::string_view lines, const std::string& what) {
  KernelMeasurements all;
  std::size_t number = 0;
  while (!lines.empty()) {
    const std::size_t end = std::min(lines.find('\n'), lines.size());
    const std::string_view text = lines.substr(0, end);
    lines.remove_prefix(std::min(end + 1, lines.size()));
    if (++number > kLinesMax) throw Error(ErrorCode::kInvalidData, format("{}: more than {} lines", what, kLinesMax));
    const std::string where = format("{}: line {}", what, number);
    if (text.find_first_not_of(" \t\r") != std::string_view::npos) read_line(parse_json(text, where), where, all);
  }
  if (all.gpu.empty()) throw Error(ErrorCode::kInvalidData, format("{}: no line has gpu and its rates", what));
  return all;
}

MeasuredEfficiency measured_efficiency(const KernelMeasurements& measured, const ModelShape& shape, DType kv,
                                       std::int64_t context) {
  MeasuredEfficiency out;
  const auto take = [&](const char* part, double& efficiency, const MeasuredKernel* row) {
    if (!row) return out.missing.emplace_back(part), void();
    efficiency = capped(row->efficiency());
    out.used.push_back(format("{} {:.2f} ({})", part, efficiency, shown(*row)));
  };
  const AttentionKind kind = shape.runs.front().layer.attention.kind;
  const std::string core = kind == AttentionKind::kMla   ? "mla-decode"
                           : kind == AttentionKind::kMfa ? "mfa-decode"
                                                         : std::string(name(kind)) + "-decode";
  take("attention", out.efficiency.attention,
       nearest(measured, core + (kv == DType::kF8E4M3 ? "-fp8" : "-bf16"), {kUsualRows, static_cast<double>(context)}));
  // Projections are several products: their rooflines together over their times together.
  double roofline = 0, time = 0;
  for (const char* kernel : {"fp8-q-down-k-v", "fp8-q-up", "fp8-o"}) {
    if (const MeasuredKernel* row = nearest(measured, kernel, {kUsualRows})) {
      roofline += row->microseconds * capped(row->efficiency());
      time += row->microseconds;
    }
  }
  if (time > 0) {
    out.efficiency.projection = roofline / time;
    out.used.push_back(format("projections {:.2f}", out.efficiency.projection));
  } else {
    out.missing.emplace_back("projections");
  }
  take("experts", out.efficiency.ffn, nearest(measured, "experts-fp8", {3, kUsualRows}));
  return out;
}

namespace {

bool are_equal(const ModelShape& a, const ModelShape& b) {
  const std::vector<LayerRun> x = a.kinds(), y = b.kinds();
  return a.hidden == b.hidden && a.vocab == b.vocab &&
         std::ranges::equal(
             x, y, [](const LayerRun& i, const LayerRun& j) { return i.layer == j.layer && i.count == j.count; });
}

}  // namespace

MeasuredStages measured_stages(const KernelMeasurements& measured, const ModelShape& shape, DType kv,
                               const std::string& what) {
  if (measured.stages.empty()) return {nullptr, "no stages (tandem bench kernels --stages)"};
  const std::vector<std::string> known = shape_names();
  if (std::ranges::find(known, measured.stage_model) == known.end() ||
      !are_equal(find_shape(measured.stage_model), shape))
    return {nullptr, format("stages of {}, which is another model", measured.stage_model)};
  if (kv != DType::kF8E4M3) return {nullptr, format("stages with an FP8 cache, {} is asked for", name(kv))};
  auto ladders = std::make_shared<const StageLadders>(measured.stages, what);
  return {std::move(ladders), format("every kernel of {}'s stages", measured.stage_model)};
}

Hardware with_measured_rates(const Hardware& hardware, const KernelMeasurements& measured) {
  Hardware h = hardware;
  h.name = measured.gpu;
  h.source = "measured by tandem bench kernels";
  h.memory_bandwidth = measured.read_bytes_per_second;
  h.fp8_flops = measured.fp8_flops_per_second;
  h.bf16_flops = measured.bf16_flops_per_second;
  return h;
}

}  // namespace tandem
