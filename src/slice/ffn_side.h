// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The FFN GPU of a slice: its routed experts of 56 layers, the shared expert and the dense layers for its part of the
// tokens. It keeps nothing between hand-overs. Tokens of attention GPUs that are not there, and the rows that its
// neighbours in the server would send, are in its memory from the start; who wants which expert is drawn anew for every
// layer and micro-batch. Where the width is cut, its results are parts of sums, added up with the neighbours' parts.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/cuda/device_memory.h"
#include "ops/cuda/gemm/fp8_gemm.h"
#include "ops/cuda/peer/devices.h"
#include "ops/cuda/split/expert_rows.h"
#include "slice/hand_over_layout.h"
#include "slice/side_operator.h"
#include "slice/slice_shape.h"

namespace tandem {

struct FfnSideOptions {
  SliceModel model;
  SliceDeployment deployment;
  std::int32_t rows = 0, micro_batches = 3;
  double zipf_exponent = 0;
};

// Memory of the other GPU that stands for the neighbours' during exchanges.
struct ExchangePeer {
  std::byte* out = nullptr;               // takes either exchange's bytes
  const std::byte* rows_in = nullptr;     // E4M3 codes
  const std::byte* results_in = nullptr;  // bf16
  // What the attention GPU sends to servers that are not there is fetched from it with the rows.
  const std::byte* for_others = nullptr;
  std::byte* others = nullptr;
  std::int64_t others_bytes = 0;
};

class FfnSide {
 public:
  // On the thread's device. Throws Error{kOutOfResources} with the bytes needed and free.
  explicit FfnSide(const FfnSideOptions& options);

  // Another batch, with the same weights. Throws as the constructor, then it has none.
  void resize(const SliceBatch& batch);

  static std::int64_t bytes_needed(const FfnSideOptions& options) { return weight_bytes(options) + row_bytes(options); }

  // A layer in three parts, so that one micro-batch's rows can be brought together and added up while another's are
  // multiplied: what the server's GPUs send each other, both directions at once, is in the first and last. Two products
  // in streams of their own: in one the second's blocks would be there before the first has ended, on every
  // multiprocessor, and nothing else could come in between.
  void gather(std::int32_t layer, std::int32_t micro_batch, cuda::Stream stream) const;
  void multiply_up(std::int32_t layer, std::int32_t micro_batch, cuda::Stream stream) const;
  void multiply_down(std::int32_t layer, std::int32_t micro_batch, cuda::Stream stream) const;
  void combine(std::int32_t layer, std::int32_t micro_batch, cuda::Stream stream) const;
  // All of them one by one.
  std::vector<SideOperator> layer_operators(std::int32_t layer, std::int32_t micro_batch) const;
  void end_step(std::int32_t micro_batch, cuda::Stream stream) const;
  void exchange_with(const ExchangePeer& peer) { peer_ = peer; }
  void restart() const;  // the next step is the first

  std::byte* hand_over(std::int32_t micro_batch) const { return batch(micro_batch).rail.as<std::byte>(); }
  // Where results go: the other GPU's memory, else a place of their own.
  void return_to(std::int32_t micro_batch, std::byte* returned) {
    batches_[static_cast<std::size_t>(micro_batch)].target = returned;
  }
  const HandOverLayout& layout() const { return layout_; }
  // On the device: steps that have ended.
  const std::uint32_t* step(std::int32_t micro_batch) const { return batch(micro_batch).step.as<std::uint32_t>(); }
  const SliceLoad& load() const { return load_; }

  double layer_bytes() const;  // of a routed layer, for a micro-batch, at least
  double layer_flops() const;
  std::uint32_t mismatches() const;
  // Rows of the busiest expert over all tables.
  std::int32_t expert_rows_max() const { return expert_rows_max_; }

 private:
  struct Layer {
    cuda::DeviceMemory gate_up, down;
  };
  struct Routing {
    cuda::DeviceMemory ids, row_count;
    std::int32_t first = 0;
  };
  struct MicroBatch {
    cuda::DeviceMemory rail, returned, arrived, arrived_scales, arrived_results, partial, weights;
    cuda::DeviceMemory row_begin, source, place, x, x_scales, hidden, hidden_scales, out, scratch, step, mismatches;
    std::vector<Routing> routing;  // by layer; dense ones have no ids
    std::byte* target = nullptr;
  };
  const MicroBatch& batch(std::int32_t m) const { return batches_[static_cast<std::size_t>(m)]; }
  void plan_rows(std::int32_t layer, std::int32_t m, cuda::Stream stream) const;
  void bring_rows(std::int32_t layer, std::int32_t m, cuda::Stream stream) const;
  void add_up(std::int32_t layer, std::int32_t m, cuda::Stream stream) const;
  void add_partials(std::int32_t layer, std::int32_t m, cuda::Stream stream) const;
  bool exchanges(std::int32_t layer) const;
  cuda::SealWrite seal(std::int32_t layer, std::int32_t m) const;
  std::byte* returned(std::int32_t m) const {
    return batch(m).target != nullptr ? batch(m).target : batch(m).returned.as<std::byte>();
  }
  std::int32_t width(std::int32_t layer) const;  // of an expert or a dense layer, here
  double rows_of_layer() const;                  // of a routed one, with the shared expert's
  cuda::Fp8Gemm gate_up(std::int32_t layer, std::int32_t m) const;
  cuda::Fp8Gemm down(std::int32_t layer, std::int32_t m) const;
  void exchange_rows(std::int32_t layer, std::int32_t m, cuda::Stream stream) const;
  void exchange_results(std::int32_t layer, std::int32_t m, cuda::Stream stream) const;
  cuda::ExpertShare share(std::int32_t layer, std::int32_t m) const;
  cuda::ExpertTokens tokens(std::int32_t layer) const;
  static std::int64_t weight_bytes(const FfnSideOptions& options);
  static std::int64_t row_bytes(const FfnSideOptions& options);
  void make_weights();
  void make_rows();
  void draw_routing();
  void make_batch(std::int32_t m);
  void fill_rail(const MicroBatch& b) const;

  FfnSideOptions options_;
  SliceLoad load_;
  HandOverLayout layout_;
  std::int32_t expert_rows_max_ = 0, row_stride_ = 0;
  std::vector<Layer> layers_;
  std::vector<MicroBatch> batches_;
  ExchangePeer peer_;
  std::vector<std::vector<RoutingTable>> tables_;  // by micro-batch and layer, until they are on the device
  cuda::DeviceMemory gate_up_scales_, down_scales_, dense_up_scales_, dense_down_scales_;
  cuda::WorkStream beside_;  // for the copy the other way
};

}  // namespace tandem
