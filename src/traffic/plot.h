// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A run as a picture: for each latency the part of requests that it took no longer for, with the limit of goodput.
#pragma once

#include <span>
#include <string>

#include "traffic/report.h"

namespace tandem {

// An SVG file. title is shown as it is.
std::string plot_svg(std::span<const LoadRecord> records, const LatencyLimits& limits, const std::string& title);

}  // namespace tandem
