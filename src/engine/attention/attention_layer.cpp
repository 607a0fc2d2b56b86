// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What an attention worker computes for a micro-batch: its rows at the start, then layer by layer the sum of what the
// experts of the layer before returned, attention, and the hand-over to the next experts; at the end its logits.
#include "engine/attention/attention_worker.h"
#include "engine/attention/observed_rows.h"
#include "engine/attention/return_sum.h"
#include "model/layer_pieces.h"

namespace tandem {

void AttentionWorker::embed(State& state) {
  const RowBatch& rows = state.inputs->rows();
  parts_.model->embed(workspace(), rows, state.residual);
  if (rows.embedded && rows.embedded.rows() > 0)  // a model that takes none has no place for them
    parts_.backend->run(
        ScatterScaledRows{state.residual.stream, rows.embedded, rows.embedded_at, rows.embedded_weights});
}

void AttentionWorker::attention(std::int32_t layer, std::int32_t m) {
  State& state = states_[m];
  if (layer > 0) combine(layer - 1, state, m);
  const std::int64_t rows = state.inputs->rows().rows(), k = top_k(model_, layer);
  state.layer = layer;
  const Activations activations = parts_.config.activations;
  state.hand_over = hand_over_in_frame() ? link_->hand_over(m, rows, k)
                                         : hand_over_in(state.hand_over_memory, rows, model_.hidden, k, activations);
  if (quantises()) state.hand_over.hidden = state.hidden.slice_rows(0, rows);
  parts_.model->attention(workspace(), layer, state.inputs->rows(), state.residual, state.hand_over);
  if (k > 0) parts_.model->route(workspace(), layer, state.hand_over);
  if (quantises())
    parts_.backend->run(QuantiseRows{state.hand_over.codes, state.hand_over.scales, state.hand_over.hidden});
  if (parts_.observer && k > 0) show_choices(*parts_.observer, *parts_.backend, *state.plan, layer, state.hand_over);
  if (local() || by_flags()) return;
  if (device_rows()) return read_choices(state, m);
  if (!hand_over_in_frame()) {
    state.hand_over = link_->hand_over(m, rows, k);
    const Tensor& first = quantises() ? state.hand_over.scales : state.hand_over.hidden;
    parts_.backend->copy(first.data, state.hand_over_memory.data(),
                         hand_over_bytes(rows, model_.hidden, k, activations));
  }
  parts_.backend->synchronise();
}

// Rows stay where they are, and are sent while they are still being computed. Where several workers are to have them,
// the host has to know who.
void AttentionWorker::read_choices(State& state, std::int32_t m) {
  HandOver& hand_over = state.hand_over;
  if (!hand_over.expert_ids || !parts_.config.shares_slots()) {
    if (parts_.track) parts_.backend->synchronise();  // it shows how long that takes
    return;
  }
  const HandOver here = link_->choices(m);
  parts_.backend->copy(here.expert_ids.data, hand_over.expert_ids.data,
                       choices_bytes(here.expert_ids.rows(), here.expert_ids.shape[1]));
  parts_.backend->synchronise();
  hand_over.expert_ids = here.expert_ids;
  hand_over.expert_weights = here.expert_weights;
}

void AttentionWorker::hand_over(std::int32_t layer, std::int32_t m) {
  std::int64_t slots[kWorkersMax];
  const HandOver& all = states_[m].hand_over;
  for (std::size_t f = 0; f < shares_.size(); ++f)
    slots[f] = parts_.config.shares_slots() ? count_slots(all, shares_[f]) : all.slots();
  link_->send(m, layer, std::span(slots, shares_.size()));
}

void AttentionWorker::local_experts(std::int32_t layer, std::int32_t m) {
  State& state = states_[m];
  const std::int64_t rows = state.hand_over.rows();
  state.local_output = return_in(state.local_return, rows * top_k(model_, layer),
                                 partial_rows(model_, shares_.front(), layer, rows), model_.hidden);
  if (quantises())  // as it would cross
    parts_.backend->run(WidenRows{state.hand_over.hidden, state.hand_over.codes, state.hand_over.scales});
  parts_.model->experts(workspace(), layer, state.hand_over, state.local_output);
}

void AttentionWorker::combine(std::int32_t layer, State& state, std::int32_t m) {
  if (by_flags()) await_return(layer, state, m);
  const FfnOutput* returned[kWorkersMax];
  for (std::size_t f = 0; f < shares_.size(); ++f)
    returned[f] = local() || by_flags() ? &state.local_output : &link_->returned(m, static_cast<std::int32_t>(f));
  sum_.run(m, top_k(model_, layer), state.hand_over, std::span(returned, shares_.size()), state.residual.ffn);
  state.residual.has_ffn = true;
  if (local() || by_flags()) return;
  if (!device_rows()) parts_.backend->synchronise();  // it read the frames
  link_->release(m);
}

// Work that follows finds the return of the only FFN worker, in the memory where it is computed.
void AttentionWorker::await_return(std::int32_t layer, State& state, std::int32_t m) {
  const std::int64_t rows = state.inputs->rows().rows();
  parts_.seam->attention_flags().wait(parts_.seam->flag(layer, m));
  state.local_output = return_in(parts_.seam->returns[static_cast<std::size_t>(m)], rows * top_k(model_, layer),
                                 partial_rows(model_, shares_.front(), layer, rows), model_.hidden);
}

void AttentionWorker::head(std::int32_t m) {
  State& state = states_[m];
  combine(model_.layers - 1, state, m);
  parts_.model->head(workspace(), state.inputs->rows(), state.residual, state.logits);
}

}  // namespace tandem
