// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/plan_options.h"

#include <charconv>
#include <cstdio>
#include <fstream>

#include "base/error.h"
#include "base/format.h"
#include "engine/settings/machine.h"
#include "ops/cpu/machine_limits.h"
#include "ops/cuda/bench/gpu_limits.h"
#include "ops/cuda/device.h"

namespace tandem {

namespace {
constexpr std::int64_t kTokensMax = std::int64_t{1} << 30;
constexpr double kAssumedUsd = 1, kAssumedNetwork = 3.125e9;  // of "this": USD an hour, bytes a second (25 Gb/s)
}  // namespace

std::int64_t parse_tokens(const std::string& text, const std::string& flag) {
  std::int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, failure] = std::from_chars(text.data(), end, value);
  std::int64_t unit = 1;
  bool good = failure == std::errc{} && rest != text.data();
  if (good && rest != end) {
    unit = *rest == 'K' || *rest == 'k' ? 1024 : *rest == 'M' ? 1024 * 1024 : 0;
    good = unit > 0 && rest + 1 == end;
  }
  if (!good || value < 1 || value > kTokensMax / unit)
    throw Error(ErrorCode::kInvalidArgument,
                format("{}: '{}' is no number of tokens between 1 and {}, such as 8192 or 8K", flag, text, kTokensMax));
  return value * unit;
}

TokenRange parse_token_range(const std::string& text, const std::string& flag) {
  const std::size_t colon = text.find(':');
  const TokenRange range{parse_tokens(text.substr(0, colon), flag),
                         parse_tokens(colon == std::string::npos ? text : text.substr(colon + 1), flag)};
  if (range.max < range.min) throw Error(ErrorCode::kInvalidArgument, format("{}: '{}' runs downwards", flag, text));
  return range;
}

Hardware measure_this_machine() {
  Hardware h{.name = "this machine",
             .source = "tandem bench machine",
             .usd_per_hour = kAssumedUsd,
             .network_bandwidth = kAssumedNetwork,
             .gpus_per_server = 1};
  const cuda::DeviceFacts facts = cuda::look_at_device();
  if (cuda::why_unusable(facts).empty()) {
    const cuda::GpuLimits limits = cuda::measure_gpu_limits();
    h.name = limits.gpu;
    h.memory_bandwidth = limits.read_bytes_per_second;
    h.bf16_flops = limits.bf16_flops_per_second;
    h.fp8_flops = limits.fp8_flops_per_second;
    h.memory_bytes = static_cast<double>(facts.bytes_total);
  } else {
    const MachineLimits limits = measure_machine_limits({.threads = usable_cores()});
    h.memory_bandwidth = limits.read_bytes_per_second;
    h.bf16_flops = limits.flops_per_second;
    h.memory_bytes = static_cast<double>(available_memory_bytes());
  }
  return h;
}

Hardware find_this_or_hardware(const std::string& name) {
  if (name != "this") return find_hardware(name);
  static const Hardware kMeasured = [] {  // once, for whatever asks
    const Hardware h = measure_this_machine();
    std::fputs(
        format("tandem: of {} memory and arithmetic are measured; its price is taken as {} USD/h, its network as {} "
               "Gb/s: tandem bench machine writes a file with others\n",
               h.name, kAssumedUsd, kAssumedNetwork * 8e-9)
            .c_str(),
        stderr);
    return h;
  }();
  return kMeasured;
}

std::vector<ModelShape> find_shapes(const std::vector<std::string>& names) {
  std::vector<ModelShape> shapes;
  shapes.reserve(names.size());
  for (const std::string& name : names) shapes.push_back(find_shape(name));
  return shapes;
}

std::vector<Hardware> find_all_hardware(const std::vector<std::string>& names) {
  std::vector<Hardware> all;
  all.reserve(names.size());
  for (const std::string& name : names) all.push_back(find_this_or_hardware(name));
  return all;
}

std::string model_help() {
  return format("{}; a .toml file of that kind; a checkpoint or config.json", join(shape_names(), ", "));
}

std::string hardware_help() {
  return format("{}; this, the machine at hand; or a .toml file of that kind", join(hardware_names(), ", "));
}

void write_output(const std::string& path, const std::string& text) {
  if (path.empty()) {
    std::fputs(text.c_str(), stdout);
    return;
  }
  std::ofstream file(path, std::ios::binary);
  if (!(file << text).flush()) throw Error(ErrorCode::kInvalidArgument, format("{}: cannot be written", path));
}

}  // namespace tandem
