// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the commands below "plan" have in common.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "plan/hardware.h"
#include "plan/shape.h"
#include "traffic/workload.h"

namespace tandem {

// "8192", "8K", "1M": K is 1024 tokens. Throws Error{kInvalidArgument} for anything else, and outside 1 … 2^30.
std::int64_t parse_tokens(const std::string& text, const std::string& flag);

// "512", or evenly spread "64:1024", each as parse_tokens takes it.
TokenRange parse_token_range(const std::string& text, const std::string& flag);

// The machine at hand: its GPU where there is a usable one, else its cores. Price and network, which cannot be
// measured, are assumed: 1 USD/h and 25 Gb/s.
Hardware measure_this_machine();

std::vector<ModelShape> find_shapes(const std::vector<std::string>& names);
// As find_hardware; and "this", the machine at hand as measured, of which is said on standard error what was assumed.
Hardware find_this_or_hardware(const std::string& name);
std::vector<Hardware> find_all_hardware(const std::vector<std::string>& names);

// For --help: what --model and --hardware take.
std::string model_help();
std::string hardware_help();

// To the file, or standard output when there is none. Throws Error{kInvalidArgument} naming the file.
void write_output(const std::string& path, const std::string& text);

}  // namespace tandem
