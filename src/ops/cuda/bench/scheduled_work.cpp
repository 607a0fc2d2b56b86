// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bench/scheduled_work.h"

namespace tandem::cuda {

ScheduledWork::ScheduledWork(std::span<const std::int32_t> lengths, const DecodeScheduleOptions& options,
                             const DecodeMergeShape& shape)
    : schedule_(schedule_decode(lengths, options)) {
  pieces_ = DeviceMemory::of(schedule_.pieces);
  merges_ = DeviceMemory::of(schedule_.merges);
  const auto partials = static_cast<std::size_t>(schedule_.partials);
  partials_ =
      DeviceMemory(partials * static_cast<std::size_t>(shape.units()) * kDecodePartialValues * sizeof(std::uint16_t));
  partial_stats_ =
      DeviceMemory(partials * static_cast<std::size_t>(shape.head_groups) * kDecodePartialStatsFloats * sizeof(float));
}

DecodeWork ScheduledWork::work() const {
  return {.pieces = pieces_.as<DecodePiece>(),
          .merges = merges_.as<DecodeMerge>(),
          .blocks = schedule_.blocks,
          .rounds = schedule_.rounds,
          .merge_count = static_cast<std::int32_t>(schedule_.merges.size()),
          .merge_count_max = schedule_.merge_count_max,
          .deterministic = schedule_.deterministic,
          .partials = partials_.as<std::uint16_t>(),
          .partial_stats = partial_stats_.as<float>()};
}

}  // namespace tandem::cuda
