// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/hardware.h"

#include "base/format.h"
#include "base/settings_table.h"
#include "base/toml.h"
#include "plan/builtin.h"
#include "plan/plan_file.h"

namespace tandem {

Hardware parse_hardware(std::string_view toml, const std::string& what) {
  const Json json = parse_toml(toml, what);
  SettingsTable table(json, what);
  Hardware h;
  h.name = table.text("name");
  h.source = table.text_or("source", "");
  h.usd_per_hour = table.number("usd_per_hour", 1e-6, 1e6);
  // From a microcontroller to a whole rack: beyond it a unit is wrong.
  h.bf16_flops = table.number("bf16_flops", 1e6, 1e21);
  h.fp8_flops = table.has("fp8_flops") ? table.number("fp8_flops", 1e6, 1e21) : 0;
  h.memory_bandwidth = table.number("memory_bandwidth", 1e6, 1e18);
  h.memory_bytes = table.number("memory_bytes", 1e6, 1e15);
  h.network_bandwidth = table.number("network_bandwidth", 1e3, 1e15);
  h.gpus_per_server = static_cast<std::int32_t>(table.integer_or("gpus_per_server", 8, 1, 1024));
  table.finish();
  return h;
}

std::string write_hardware(const Hardware& h) {
  std::string file = format("name = {}\nsource = {}\nusd_per_hour = {:.17g}\nbf16_flops = {:.17g}\n",
                            toml_quoted(h.name), toml_quoted(h.source), h.usd_per_hour, h.bf16_flops);
  if (h.fp8_flops > 0) file += format("fp8_flops = {:.17g}\n", h.fp8_flops);
  return file + format(
                    "memory_bandwidth = {:.17g}\nmemory_bytes = {:.17g}\nnetwork_bandwidth = {:.17g}\n"
                    "gpus_per_server = {}\n",
                    h.memory_bandwidth, h.memory_bytes, h.network_bandwidth, h.gpus_per_server);
}

Hardware find_hardware(const std::string& name_or_path) {
  const PlanFile file = find_plan_file(name_or_path, builtin_hardware(), "hardware");
  return parse_hardware(file.text, file.what);
}

std::vector<std::string> hardware_names() {
  return names_of(builtin_hardware());
}

}  // namespace tandem
