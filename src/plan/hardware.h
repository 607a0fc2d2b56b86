// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What an accelerator can do and what it costs: a TOML file each, some of which the program brings along
// (src/plan/hardware). Rates are peaks, dense, of one accelerator.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

struct Hardware {
  std::string name;
  std::string source;  // where the figures come from
  double usd_per_hour = 0;
  double bf16_flops = 0;        // a second
  double fp8_flops = 0;         // 0: it has no FP8, and 8-bit weights are multiplied in bf16
  double memory_bandwidth = 0;  // bytes a second
  double memory_bytes = 0;
  double network_bandwidth = 0;  // bytes a second, each way
  std::int32_t gpus_per_server = 8;

  // Of products with 8-bit weights.
  double flops() const { return fp8_flops > 0 ? fp8_flops : bf16_flops; }
  // FLOPs per byte read where both take equally long (paper, Table 4).
  double roofline() const { return flops() / memory_bandwidth; }
  // At full use (paper, Table 5).
  double usd_per_flop() const { return usd_per_hour / 3600 / flops(); }
  double usd_per_byte() const { return usd_per_hour / 3600 / memory_bandwidth; }
  double server_network() const { return network_bandwidth * gpus_per_server; }  // bytes a second
};

// what names the source in messages. Throws Error{kInvalidData}.
Hardware parse_hardware(std::string_view toml, const std::string& what);

// A file that parse_hardware reads as this hardware.
std::string write_hardware(const Hardware& hardware);

// A name of a file that the program brings, or a path to one that ends in .toml. Throws Error{kInvalidArgument} listing
// the names, {kNotFound, kInvalidData} for a file.
Hardware find_hardware(const std::string& name_or_path);

// The names that find_hardware knows.
std::vector<std::string> hardware_names();

}  // namespace tandem
