// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a slice's hand-over takes by itself: two GPUs throw rows at each other in recorded graphs, as a slice's sides do
// with nothing else to do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/cuda/peer/stream_flag.h"

namespace tandem {

// Who brings rows to the other GPU: the kernel that makes them, or a copy engine after it.
enum class RowsBy : std::uint8_t { kStores, kCopyEngine };
const char* to_string(RowsBy rows);
const char* to_string(cuda::FlagsBy flags);

// One way: from the start of the kernel that makes rows to the start of the other GPU's kernel that reads them, half of
// a round. So the kernel is in it.
struct HandOverTime {
  RowsBy rows = RowsBy::kStores;
  cuda::FlagsBy flags = cuda::FlagsBy::kThreads;
  std::int64_t bytes = 0;
  double median = 0, p99 = 0;  // microseconds
};

// Of when one GPU began each round, a launch after the other: what comes between two launches is no round.
HandOverTime hand_over_time(const std::vector<std::uint64_t>& began_ns, std::size_t rounds_of_launch);

struct HandOverOptions {
  std::int32_t first_gpu = 0, second_gpu = 1;
  std::vector<std::int64_t> bytes{4, 64 << 10, 1 << 20, 7 << 19};  // 4, or multiples of 16
  std::int32_t launches = 20;  // of kRoundsOfLaunch rounds; the first is not counted
};
inline constexpr std::int32_t kRoundsOfLaunch = 50;

struct HandOverReport {
  double link_bytes_per_second = 0;  // one way, by a copy engine, of 256 MiB
  std::vector<HandOverTime> times;
};

// Every row that arrives is looked at. Throws Error{kUnavailable} (a GPU, a way between them, flags that are not seen),
// Error{kInvalidArgument} (one GPU twice) and Error{kInternal} (rows that are not those that were sent).
HandOverReport measure_hand_overs(const HandOverOptions& options);

std::string hand_over_text(const HandOverReport& report);
std::string hand_over_json(const HandOverReport& report);  // an object a line

}  // namespace tandem
