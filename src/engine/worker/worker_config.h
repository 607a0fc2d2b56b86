// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What attention and FFN workers are told when they are made, and the counters they keep.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "engine/hand_over/hand_over_frame.h"
#include "engine/worker/layout.h"
#include "model/config.h"
#include "model/share.h"
#include "transport/frame.h"

namespace tandem {

struct WorkerConfig {
  Layout layout;
  std::int32_t micro_batches = 1;
  std::int64_t rows_max = 512;  // of one micro-batch of one attention worker
  Activations activations = Activations::kF32;
  std::uint64_t deployment = 0;             // identifies model and layout in frames
  std::uint32_t epoch = 0;                  // of the deployment, in frames
  Nanoseconds resend_after = 10 * kSecond;  // a hand-over unanswered for this long is sent again
  std::int32_t resends_max = 3;             // then its requests fail

  std::vector<FfnShare> shares(const ModelConfig& model) const {
    std::vector<FfnShare> shares;
    const FfnSplit split = layout.ffn_split();
    shares.reserve(static_cast<std::size_t>(split.workers()));
    for (std::int32_t f = 0; f < split.workers(); ++f) shares.push_back(ffn_share(f, split, model.experts));
    return shares;
  }
  // Whether hosts have to know who was chosen, to tell who returns how many rows: one FFN worker returns all.
  bool shares_slots() const { return layout.ffn_workers > 1; }
  // Of a frame from this rank in this step; what else it says is to be filled in.
  FrameHeader frame_header(FrameKind kind, std::int32_t source, std::uint64_t step) const {
    FrameHeader header;
    header.kind = kind;
    header.deployment = deployment;
    header.epoch = epoch;
    header.source = source;
    header.step = step;
    return header;
  }
  // device_rows: of frames whose rows lie in device memory.
  FrameLimits frame_limits(const ModelConfig& model, bool device_rows = false) const {
    const auto row_bytes = static_cast<std::int32_t>(hand_over_row_bytes(model.hidden, activations));
    return {.deployment = deployment,
            .epoch = epoch,
            .ranks = layout.workers(),
            .layers = model.layers,
            .micro_batches = micro_batches,
            .rows_max = static_cast<std::int32_t>(rows_max),
            .slot_rows_max = static_cast<std::int32_t>(rows_max * model.experts_per_token),
            .hidden = device_rows ? 0 : model.hidden,
            .hand_over_row_bytes = device_rows ? 0 : row_bytes};
  }
};

// Written by the worker, read by anybody.
struct WorkerStats {
  std::atomic<std::int64_t> steps{0}, rows{0};
  // Computing, or giving a device work and waiting for it; waiting for a peer within a step. Where rows go from device
  // to device, devices wait for each other: what an attention worker's waits is in the former, what an FFN worker's
  // computes, in the latter.
  std::atomic<std::int64_t> busy_ns{0}, wait_ns{0};
  std::atomic<std::int64_t> resends{0}, frames_refused{0};
};

}  // namespace tandem
