// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/ffn/expert_share.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace tandem {

namespace {

std::int64_t rows_of_all(const WorkerConfig& config) {
  return config.rows_max * config.layout.attention_workers;
}

}  // namespace

ExpertShare::ExpertShare(std::shared_ptr<const Model> model, Backend& backend, const WorkerConfig& config,
                         const Place& place)
    : model_(std::move(model)),
      backend_(backend),
      share_(place.share),
      activations_(config.activations),
      device_rows_(place.device_rows),
      await_device_(place.await_device),
      arena_(backend, model_->ffn_scratch_bytes(rows_of_all(config))) {
  const ModelConfig& m = model_->config();
  const std::int64_t rows = rows_of_all(config), slots = rows * m.experts_per_token;
  const std::size_t bytes = aligned(hand_over_bytes(rows, m.hidden, m.experts_per_token, activations_)) +
                            aligned(return_bytes(slots, rows, m.hidden));
  const bool puts_together = config.layout.attention_workers > 1;
  if (puts_together && !device_rows_) together_memory_ = backend.allocate_shared(bytes);
  if (!backend.host_memory() && (puts_together || !device_rows_)) far_memory_ = backend.allocate(bytes);
  if (device_rows_ && share_.cuts_experts()) allocate_ones(slots);
  if (activations_ == Activations::kFp8)
    widened_ = backend.allocate(static_cast<std::size_t>(rows * m.hidden) * sizeof(float));
}

void ExpertShare::allocate_ones(std::int64_t slots) {
  const std::vector<float> ones(static_cast<std::size_t>(slots), 1);
  ones_ = backend_.allocate(ones.size() * sizeof(float));
  backend_.copy(ones_.data(), ones.data(), ones_.bytes());
  backend_.synchronise();
}

void ExpertShare::run(std::int32_t layer, const Part& part) {
  HandOver in = weighed(*part.hand_over);
  if (!device_rows_) return run_on_host_frames(layer, in, part.output);
  if (activations_ == Activations::kFp8) {
    in.hidden = Tensor(widened_.data(), DType::kF32, {in.rows(), model_->config().hidden});
    backend_.run(WidenRows{in.hidden, in.codes, in.scales});
  }
  model_->experts(workspace(), layer, in, part.output);
  if (await_device_) backend_.synchronise();
}

// A part of an expert's sum is not weighted: who adds the parts up does that, or the bits would not be those of a sum
// that is weighted as a whole. 1 · x is x.
HandOver ExpertShare::weighed(HandOver hand_over) const {
  if (!share_.cuts_experts() || !hand_over.expert_weights) return hand_over;
  const Shape shape = hand_over.expert_weights.shape;
  if (device_rows_)
    hand_over.expert_weights = Tensor(ones_.data(), DType::kF32, shape);
  else
    std::fill_n(hand_over.expert_weights.as<float>(), shape.elements(), 1.0f);
  return hand_over;
}

// From frame to frame. Where operators have memory of their own, a frame's arrays go there and back in one piece.
void ExpertShare::run_on_host_frames(std::int32_t layer, const HandOver& hand_over, const FfnOutput& output) {
  const std::int64_t rows = hand_over.rows(), hidden = model_->config().hidden, k = top_k(model_->config(), layer);
  const std::int64_t slots = output.slot_rows.rows(), partials = output.partial ? output.partial.rows() : 0;
  const std::size_t in_bytes = hand_over_bytes(rows, hidden, k, activations_);
  const std::size_t out_bytes = return_bytes(slots, partials, hidden);
  const bool far = !backend_.host_memory(), widens = activations_ == Activations::kFp8;
  HandOver in = hand_over;
  FfnOutput out = output;
  if (far) {
    std::byte* at = far_memory_.bytes_data();
    backend_.copy(at, (widens ? hand_over.scales : hand_over.hidden).data, in_bytes);
    in = hand_over_in({at, in_bytes}, rows, hidden, k, activations_);
    out = return_in({at + aligned(in_bytes), out_bytes}, slots, partials, hidden);
  }
  if (widens) {
    in.hidden = Tensor(widened_.data(), DType::kF32, {rows, hidden});
    backend_.run(WidenRows{in.hidden, in.codes, in.scales});
  }
  model_->experts(workspace(), layer, in, out);
  if (far) backend_.copy(output.slot_rows.data, out.slot_rows.data, out_bytes);
  backend_.synchronise();
}

void ExpertShare::run_together(std::int32_t layer, std::span<const Part> parts) {
  const std::int64_t hidden = model_->config().hidden, k = top_k(model_->config(), layer);
  std::int64_t rows = 0, slots = 0;
  for (const Part& part : parts) {
    rows += part.hand_over->rows();
    slots += part.output.slot_rows.rows();
  }
  std::byte* const at = (device_rows_ ? far_memory_ : together_memory_).bytes_data();
  const std::size_t in_bytes = hand_over_bytes(rows, hidden, k, activations_);
  const HandOver all = hand_over_in({at, in_bytes}, rows, hidden, k, activations_);
  std::int64_t row = 0;
  for (const Part& part : parts) {
    for (const auto array :
         {&HandOver::hidden, &HandOver::scales, &HandOver::codes, &HandOver::expert_ids, &HandOver::expert_weights})
      if (const Tensor& from = part.hand_over->*array) move((all.*array).slice_rows(row, from.rows()), from);
    row += part.hand_over->rows();
  }
  const std::int64_t partials = partial_rows(model_->config(), share_, layer, rows);
  const FfnOutput output =
      return_in({at + aligned(in_bytes), return_bytes(slots, partials, hidden)}, slots, partials, hidden);
  run(layer, {&all, output});

  // Results are in order of rows, so each part's are one piece.
  std::int64_t slot = 0;
  row = 0;
  for (const Part& part : parts) {
    const FfnOutput& own = part.output;
    move(own.slot_rows, output.slot_rows.slice_rows(slot, own.slot_rows.rows()));
    if (own.partial) move(own.partial, output.partial.slice_rows(row, own.partial.rows()));
    slot += own.slot_rows.rows();
    row += part.hand_over->rows();
  }
}

// Dense rows, between frames or on the device.
void ExpertShare::move(Tensor to, const Tensor& from) {
  const std::size_t bytes = row_bytes(from.dtype, static_cast<std::size_t>(from.shape.elements()));
  if (device_rows_)
    backend_.copy(to.data, from.data, bytes);
  else if (bytes > 0)
    std::memcpy(to.data, from.data, bytes);
}

}  // namespace tandem
