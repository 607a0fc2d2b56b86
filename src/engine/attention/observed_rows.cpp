// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/attention/observed_rows.h"

#include <vector>

namespace tandem {

namespace {

// Valid after the backend's next synchronise().
template <class T>
std::vector<T> copy_of(Backend& backend, const Tensor& tensor) {
  std::vector<T> copy(static_cast<std::size_t>(tensor.shape.elements()));
  backend.copy(copy.data(), tensor.data, copy.size() * sizeof(T));
  return copy;
}

}  // namespace

void show_logits(Observer& observer, Backend& backend, const MicroBatch& plan, const Tensor& logits) {
  const std::vector<float> values = copy_of<float>(backend, logits);
  backend.synchronise();
  const auto vocab = static_cast<std::size_t>(logits.shape[1]);
  std::size_t row = 0;
  for (const SequenceRows& sequence : plan.sequences)
    for (std::int64_t i = sequence.logits_from; i < sequence.rows(); ++i, ++row)
      observer.on_logits(sequence.request, sequence.position + i, {&values[row * vocab], vocab});
}

void show_choices(Observer& observer, Backend& backend, const MicroBatch& plan, std::int32_t layer,
                  const HandOver& choices) {
  const std::vector<std::int32_t> ids = copy_of<std::int32_t>(backend, choices.expert_ids);
  const std::vector<float> weights = copy_of<float>(backend, choices.expert_weights);
  backend.synchronise();
  const auto k = static_cast<std::size_t>(choices.expert_ids.shape[1]);
  std::size_t first = 0;
  for (const SequenceRows& sequence : plan.sequences)
    for (std::int64_t i = 0; i < sequence.rows(); ++i, first += k)
      observer.on_route(sequence.request, sequence.position + i, layer, {&ids[first], k}, {&weights[first], k});
}

}  // namespace tandem
