// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/expert_parallel_slice.h"

#include <algorithm>

#include "ops/cuda/peer/held_stream.h"
#include "slice/side_memory.h"
#include "slice/step_loop.h"

namespace tandem {

using cuda::DeviceMemory;
using cuda::OnDevice;
using cuda::Stream;

ExpertParallelSlice::ExpertParallelSlice(const SliceOptions& options) : options_(options) {
  if (options.sides == SliceSides::kBoth) cuda::connect_devices(options.attention_gpu, options.ffn_gpu);
  const OnDevice on(options.attention_gpu);
  link_free_at_ = zeros(sizeof(std::uint64_t));
  give_rows();
}

void ExpertParallelSlice::take(const SliceOptions& options) {
  const bool same_batch = has_rows_ && options.batch() == options_.batch();
  options_ = options;
  if (!same_batch) give_rows();
}

// Attention and experts that are there keep their weights.
void ExpertParallelSlice::give_rows() {
  has_rows_ = false;
  load_ = load_of(options_.deployment, options_.rows);
  {
    const OnDevice on(options_.sides == SliceSides::kBoth ? options_.ffn_gpu : options_.attention_gpu);
    give_exchange_memory();
  }
  const OnDevice on(options_.attention_gpu);
  lanes_.resize(static_cast<std::size_t>(options_.micro_batches));
  const AttentionSideOptions attention{.model = options_.model,
                                       .rows = options_.rows,
                                       .micro_batches = options_.micro_batches,
                                       .context = options_.context};
  const FfnSideOptions ffn{.model = options_.model,
                           .deployment = options_.deployment,
                           .rows = options_.rows,
                           .micro_batches = options_.micro_batches,
                           .zipf_exponent = options_.zipf_exponent};
  gigabytes_ = 1e-9 * static_cast<double>(AttentionSide::bytes_needed(attention) + FfnSide::bytes_needed(ffn));
  if (attention_)
    attention_->resize(options_.batch(), attention.return_blocks);
  else
    attention_ = std::make_unique<AttentionSide>(attention);
  if (ffn_)
    ffn_->resize(options_.batch());
  else
    ffn_ = std::make_unique<FfnSide>(ffn);
  ffn_->exchange_with(
      {.out = out_.as<std::byte>(), .rows_in = rows_in_.as<std::byte>(), .results_in = results_in_.as<std::byte>()});
  for (std::int32_t m = 0; m < options_.micro_batches; ++m) record(m);
  has_rows_ = true;
}

void ExpertParallelSlice::give_exchange_memory() {
  out_ = DeviceMemory(static_cast<std::size_t>(std::max(load_.exchange_out_bytes, load_.exchange_back_bytes)));
  rows_in_ = random_tiles(1, 1, load_.exchange_out_bytes, 5);
  results_in_ = random_bf16(load_.exchange_back_bytes / 2, 1, 6);
  cuda::synchronise();
}

// What goes to other servers has one network, rows and results of all micro-batches.
void ExpertParallelSlice::hold_link(std::int64_t bytes, Stream stream) const {
  if (!options_.link.added()) return;
  cuda::run(cuda::HoldStream{.free_at = link_free_at_.as<std::uint64_t>(),
                             .occupied_ns = options_.link.occupied_ns(static_cast<double>(bytes) * load_.exchange_far),
                             .latency_ns = static_cast<std::uint32_t>(1e3 * options_.link.latency_us)},
            stream);
}

// Products are in two streams for the other micro-batch's sake, as on an FFN GPU (ffn_side.h).
void ExpertParallelSlice::record(std::int32_t m) {
  Lane& lane = lanes_[static_cast<std::size_t>(m)];
  const Stream work = lane.work.get(), down = lane.down.get();
  attention_->send_to(m, ffn_->hand_over(m));
  ffn_->return_to(m, attention_->returned(m));
  lane.step = cuda::RecordedWork(work, [&] {
    for (std::int32_t layer = 0; layer < options_.model.layers; ++layer) {
      const bool routed = !options_.model.is_dense(layer);
      attention_->run_layer(layer, m, work);
      if (routed) hold_link(load_.exchange_out_bytes, work);
      ffn_->gather(layer, m, work);
      ffn_->multiply_up(layer, m, work);
      cuda::fork_stream(work, down);
      ffn_->multiply_down(layer, m, down);
      cuda::join_stream(work, down);
      if (routed) hold_link(load_.exchange_back_bytes, work);
      ffn_->combine(layer, m, work);
    }
    ffn_->end_step(m, work);
  });
}

StepTimes ExpertParallelSlice::measure(int steps) {
  const OnDevice on(options_.attention_gpu);
  attention_->restart();
  ffn_->restart();
  cuda::synchronise_device();
  MeasuredSteps measured(steps, options_.warm_up_seconds);
  const auto launch = [this](cuda::StepClock& clock) {
    for (const Lane& lane : lanes_) lane.step.launch(lane.work.get());
    clock.mark(lanes_.back().work.get());
  };
  run_steps(measured, {launch, [](const cuda::StepClock& clock, std::size_t mark) { clock.wait_for(mark); }});
  cuda::synchronise_device();
  attention_->check_tokens();
  return measured.times();
}

}  // namespace tandem
