// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The attention GPU of a slice: embedding, 61 layers of MFA with a paged FP8 cache, routers, head and sampling, with
// random weights at full size. One micro-batch is a chain of its own; nothing of it comes to the CPU.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/cuda/bench/scheduled_work.h"
#include "ops/cuda/device_memory.h"
#include "ops/cuda/gemm/fp8_gemm.h"
#include "ops/cuda/gemm/norm_quantise.h"
#include "ops/cuda/split/seal.h"
#include "slice/hand_over_layout.h"
#include "slice/side_operator.h"
#include "slice/slice_shape.h"

namespace tandem {

struct AttentionSideOptions {
  SliceModel model;
  std::int32_t rows = 0, micro_batches = 3, context = 4096;
  std::int32_t ffn_servers = 1;    // whose returns are added up
  std::int32_t return_blocks = 1;  // that come over the link, at least one
};

class AttentionSide {
 public:
  // On the thread's device. Throws Error{kOutOfResources} with the bytes needed and free.
  explicit AttentionSide(const AttentionSideOptions& options);

  // Another batch, with the same weights. Throws as the constructor, then it has none.
  void resize(const SliceBatch& batch, std::int32_t return_blocks);

  static std::int64_t bytes_needed(const AttentionSideOptions& options) {
    return weight_bytes(options) + row_bytes(options);
  }

  // Each begins with the return of the layer before; layer 0 with that of the last step's last layer, its head and its
  // tokens.
  void run_layer(std::int32_t layer, std::int32_t micro_batch, cuda::Stream stream) const;
  // The same one by one: of a layer alone, and what stands before layer 0.
  std::vector<SideOperator> layer_operators(std::int32_t layer, std::int32_t micro_batch) const;
  std::vector<SideOperator> head_operators(std::int32_t micro_batch) const;
  void restart() const;  // the next step is the first

  // Where layers write what they hand over: the other GPU's memory, else a place of their own.
  void send_to(std::int32_t micro_batch, std::byte* hand_over) {
    batches_[static_cast<std::size_t>(micro_batch)].target = hand_over;
  }
  std::byte* returned(std::int32_t micro_batch) const { return batch(micro_batch).returned.as<std::byte>(); }
  const HandOverLayout& layout() const { return layout_; }
  // On the device: steps that have ended; of layer 0's begin one is not counted yet.
  const std::uint32_t* step(std::int32_t micro_batch) const { return batch(micro_batch).step.as<std::uint32_t>(); }

  double layer_bytes() const;  // that a layer reads and writes for a micro-batch, at least
  double layer_flops() const;
  std::uint32_t mismatches() const;
  // Throws Error{kInternal} saying which sequence has no valid token.
  void check_tokens() const;

 private:
  struct Layer {
    cuda::DeviceMemory down, up, o, router;
    cuda::DeviceMemory down_scales, up_scales, o_scales;
  };
  struct MicroBatch {
    cuda::DeviceMemory residual, x, x_scales, x_squares, down, up_x, up_x_scales, up_x_squares, q, q_tiles, q_scales,
        attention, o_x, o_x_scales, o;
    cuda::DeviceMemory normed, hand_over, returned, logits, drawn;
    cuda::DeviceMemory table, lengths, positions, slots, step, mismatches;
    cuda::ScheduledWork work;
    std::byte* target = nullptr;
  };
  const MicroBatch& batch(std::int32_t m) const { return batches_[static_cast<std::size_t>(m)]; }
  cuda::NormQuantise norm(std::int32_t m) const;
  cuda::NormQuantise norm_in(std::int32_t layer, std::int32_t m) const;
  cuda::NormQuantise norm_out(std::int32_t m) const;
  void add_returns(std::int32_t m, cuda::NormQuantise& op) const;
  cuda::Fp8Gemm product(const cuda::DeviceMemory& x, const cuda::DeviceMemory& x_scales,
                        const cuda::DeviceMemory& weight, const cuda::DeviceMemory& scales, std::int32_t n,
                        std::int32_t k) const;
  std::uint8_t* pages_of_layer(std::int32_t layer) const;
  void rotate_and_append(std::int32_t layer, std::int32_t m, cuda::Stream stream) const;
  void attend(std::int32_t layer, std::int32_t m, cuda::Stream stream) const;
  void route(std::int32_t layer, std::int32_t m, cuda::Stream stream) const;
  void sample(std::int32_t m, cuda::Stream stream) const;
  void begin_step(std::int32_t m, cuda::Stream stream) const;
  std::byte* target(std::int32_t m) const {
    return batch(m).target != nullptr ? batch(m).target : batch(m).hand_over.as<std::byte>();
  }
  static std::int64_t weight_bytes(const AttentionSideOptions& options);
  static std::int64_t row_bytes(const AttentionSideOptions& options);
  void need_room(std::int32_t rows, std::int64_t weight_bytes) const;
  void make_weights();
  void make_rows();
  void make_cache();
  void make_batch(std::int32_t m);

  AttentionSideOptions options_;
  HandOverLayout layout_;
  std::int32_t pages_of_sequence_;
  std::int64_t pages_of_layer_ = 0;
  std::vector<Layer> layers_;
  std::vector<MicroBatch> batches_;
  cuda::DeviceMemory embedding_, head_, head_scales_, gain_, inv_freq_, pages_;
};

}  // namespace tandem
