// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The worker's thread: steps, and orders of steps by flags. Frames in and out are in ffn_frames.cpp.
#include "engine/ffn/ffn_worker.h"

#include <algorithm>

#include "engine/ffn/expert_share.h"

namespace tandem {

namespace {
constexpr Nanoseconds kIdleWait = 100 * kMillisecond;
}

FfnWorker::FfnWorker(const WorkerConfig& config, std::int32_t index, std::shared_ptr<const Model> model,
                     std::unique_ptr<Backend> backend, std::unique_ptr<Transport> transport, const Clock& clock,
                     TraceTrack* track, std::shared_ptr<DeviceSeam> seam)
    : config_(config),
      index_(index),
      model_(std::move(model)),
      backend_(std::move(backend)),
      transport_(std::move(transport)),
      clock_(clock),
      track_(track),
      seam_(std::move(seam)),
      share_(ffn_share(index, config.layout.ffn_split(), model_->config().experts)),
      device_rows_(transport_->capabilities().device_rows),
      limits_(config.frame_limits(model_->config(), device_rows_)),
      experts_(model_, *backend_, config,
               {.share = share_, .device_rows = device_rows_, .await_device = track != nullptr}) {
  const ModelConfig& m = model_->config();
  const std::size_t output_bytes = return_bytes(config.rows_max * m.experts_per_token, config.rows_max, m.hidden);
  const std::size_t hand_over = hand_over_bytes(config.rows_max, m.hidden, m.experts_per_token, config.activations);
  const std::size_t reply_bytes = aligned(sizeof(FrameHeader) + (device_rows_ ? 0 : output_bytes));
  const std::size_t a_count = config.layout.attention_workers, m_count = config.micro_batches;
  // For each attention worker: the open step's frames, as many of the next step, control words and repeats.
  buffers_each_ = static_cast<std::int32_t>(2 * m_count) + 4;
  buffer_bytes_ =
      aligned(sizeof(FrameHeader) +
              std::max(device_rows_ ? choices_bytes(config.rows_max, m.experts_per_token) : hand_over, m_count * 4));
  memory_ = backend_->allocate_shared(a_count * (buffers_each_ * buffer_bytes_ + (m_count + 1) * reply_bytes));
  rows_bytes_ = aligned(hand_over);
  if (device_rows_)
    rows_memory_ = backend_->allocate(a_count * (buffers_each_ * rows_bytes_ + (m_count + 1) * aligned(output_bytes)));
  if (const Status registered = transport_->register_region({memory_.bytes_data(), memory_.bytes()}); !registered)
    throw registered.error();
  buffers_ = memory_.bytes_data();
  std::byte* at = buffers_ + a_count * buffers_each_ * buffer_bytes_;
  std::byte* device_at = device_rows_ ? rows_memory_.bytes_data() + a_count * buffers_each_ * rows_bytes_ : nullptr;
  peers_.resize(a_count);
  for (Peer& peer : peers_) {
    peer.rows.assign(m_count, 0);
    peer.control_rows.assign(m_count, 0);
    peer.held.resize(m_count);
    peer.replies.resize(m_count + 1);
    peer.early.reserve(buffers_each_);
    for (Reply& reply : peer.replies) {
      reply.frame = {at, reply_bytes};
      at += reply_bytes;
      if (!device_rows_) continue;
      reply.device = {device_at, output_bytes};
      device_at += aligned(output_bytes);
    }
  }
  for (std::int32_t a = 0; a < static_cast<std::int32_t>(a_count); ++a)
    for (std::int32_t i = 0; i < buffers_each_; ++i) post_receive(a, i);
  if (seam_) join_seam();
}

void FfnWorker::join_seam() {
  TANDEM_CHECK(device_rows_ && peers_.size() == 1 && !config_.shares_slots(), "a seam is of two workers alone");
  for (std::int32_t m = 0; m < config_.micro_batches; ++m) seam_->returns.push_back(peers_[0].replies[m].device);
  if (!seam_->same_memory())
    seam_memory_ = backend_->allocate(static_cast<std::size_t>(config_.micro_batches) * rows_bytes_);
  seam_ids_ =
      backend_->allocate(static_cast<std::size_t>(config_.rows_max * std::max(1, model_->config().experts_per_token)) *
                         sizeof(std::int32_t));
  seam_->on_order([this] { transport_->wake(); });
}

// The transport goes first: it holds buffers of this worker's memory.
FfnWorker::~FfnWorker() {
  transport_.reset();
}

void FfnWorker::stop() {
  stopping_ = true;
  transport_->wake();
}

void FfnWorker::run() {
  while (!stopping_) {
    if (seam_) take_orders();
    if (!open_) try_open();
    if (open_) {
      while (const std::optional<Command> command = walk_.next()) {
        execute(*command);
        walk_.complete(command->id);
        drain(0);
      }
      if (walk_.done()) {
        open_ = false;
        ++stats_.steps;
        continue;
      }
    }
    const Nanoseconds begin = clock_.now();
    drain(kIdleWait);
    if (open_) stats_.wait_ns += clock_.now() - begin;
    if (std::all_of(peers_.begin(), peers_.end(), [](const Peer& p) { return p.gone; })) break;
  }
  if (seam_) seam_->end();
  backend_->come_to_rest();  // what is still computed uses memory that goes with the worker
}

// ---- the step

void FfnWorker::try_open() {
  bool anybody = false;
  for (const Peer& peer : peers_) {
    if (!peer.gone && peer.control_step <= step_) return;
    anybody |= !peer.gone;
  }
  if (!anybody) return;
  // Steps are opened in order by everybody; after losses the latest that all have reached counts.
  std::uint64_t next = 0;
  for (const Peer& peer : peers_)
    if (!peer.gone) next = next == 0 ? peer.control_step : std::min(next, peer.control_step);
  step_ = next;
  StepShape shape{
      model_->config().layers, config_.micro_batches, config_.layout.attention_workers, config_.layout.ffn_workers, {}};
  for (Peer& peer : peers_) {
    const bool takes_part = !peer.gone && peer.control_step == step_;
    for (std::size_t m = 0; m < peer.rows.size(); ++m) {
      peer.rows[m] = takes_part ? peer.control_rows[m] : 0;
      shape.occupied.push_back(peer.rows[m] > 0);
    }
  }
  walk_.start(pipeline_.graph(shape), [&](const Command& c) {
    return (c.kind == CommandKind::kExperts || c.kind == CommandKind::kReturn) && c.ffn == index_;
  });
  open_ = true;
  for (std::int32_t a = 0; a < config_.layout.attention_workers; ++a) {
    Arrived early[2 * kWorkersMax];
    const std::size_t count = peers_[a].early.size();
    std::copy(peers_[a].early.begin(), peers_[a].early.end(), early);
    peers_[a].early.clear();
    for (std::size_t i = 0; i < count; ++i) accept(a, early[i]);
  }
}

void FfnWorker::stop_waiting(std::int32_t a, std::int32_t layer, std::int32_t m) {
  if (!open_) return;
  const std::int32_t first = layer < 0 ? 0 : layer, last = layer < 0 ? model_->config().layers - 1 : layer;
  for (std::int32_t l = first; l <= last; ++l) {
    const std::int32_t id = walk_.graph().find(CommandKind::kHandOver, l, m, a, index_);
    if (id >= 0) walk_.complete(id);
  }
}

void FfnWorker::execute(const Command& command) {
  const Nanoseconds begin = clock_.now();
  std::int32_t rows = 0;
  if (command.kind == CommandKind::kExperts) {
    for (const Peer& peer : peers_) rows += peer.rows[command.micro_batch];
    run_experts(command.layer, command.micro_batch);
  } else {
    Reply& reply = peers_[command.attention].replies[command.micro_batch];
    if (reply.bytes > 0) post_reply(command.attention, command.micro_batch, reply);
  }
  const Nanoseconds end = clock_.now();
  stats_.busy_ns += end - begin;
  stats_.rows += rows;
  if (track_ && command.kind == CommandKind::kExperts)
    track_->record({"experts", begin, end, step_, command.layer, command.micro_batch, rows});
}

void FfnWorker::run_experts(std::int32_t layer, std::int32_t m) {
  std::int32_t workers[kWorkersMax];
  std::int32_t count = 0;
  for (std::int32_t a = 0; a < config_.layout.attention_workers; ++a) {
    Peer& peer = peers_[a];
    peer.replies[m].bytes = 0;
    if (!peer.held[m].present()) continue;
    // An earlier answer that is still on its way keeps its buffer; the worker will ask again.
    if (peer.held[m].layer == layer && peer.replies[m].sends_in_flight == 0)
      workers[count++] = a;
    else
      release(a, peer.held[m]);
  }
  if (count == 1) run_alone(m, peers_[workers[0]].held[m], peers_[workers[0]].replies[m], step_);
  if (count > 1) run_together(m, std::span(workers, static_cast<std::size_t>(count)));
  for (std::int32_t i = 0; i < count; ++i) release(workers[i], peers_[workers[i]].held[m]);
}

void FfnWorker::run_alone(std::int32_t m, const Held& held, Reply& reply, std::uint64_t step) {
  experts_.run(held.layer, {&held.hand_over, begin_reply(held, reply)});
  seal_reply(held, m, reply, step);
}

void FfnWorker::run_together(std::int32_t m, std::span<const std::int32_t> workers) {
  ExpertShare::Part parts[kWorkersMax];
  for (std::size_t i = 0; i < workers.size(); ++i) {
    Peer& peer = peers_[workers[i]];
    parts[i] = {&peer.held[m].hand_over, begin_reply(peer.held[m], peer.replies[m])};
  }
  experts_.run_together(peers_[workers[0]].held[m].layer, std::span(parts, workers.size()));
  for (const std::int32_t a : workers) seal_reply(peers_[a].held[m], m, peers_[a].replies[m], step_);
}

// ---- steps by flags

void FfnWorker::take_orders() {
  if (!order_) order_ = seam_->next();
  if (order_ && open_) {  // its sender has left the step that is open, which ends with what there is
    for (std::int32_t m = 0; m < config_.micro_batches; ++m) stop_waiting(0, -1, m);
    return;
  }
  for (; order_; order_ = seam_->next()) carry_out(*order_);
}

void FfnWorker::carry_out(const DeviceSeam::Order& order) {
  const Nanoseconds begin = clock_.now();
  if (order.epoch == 0) {
    backend_->prepare(order.rows, [&] { record_step(order.rows); });
  } else {
    seam_->ffn_flags().begin(order.epoch);
    backend_->launch(order.rows);
    ++stats_.steps;
    for (const std::int64_t rows : order.rows) stats_.rows += rows * model_->config().layers;
  }
  seam_->done();
  stats_.busy_ns += clock_.now() - begin;
}

// This worker's commands, in the order in which it prefers them.
void FfnWorker::record_step(std::span<const std::int64_t> rows) {
  StepShape shape{model_->config().layers, config_.micro_batches, 1, 1, {}};
  for (const std::int64_t count : rows) shape.occupied.push_back(count > 0);
  Walk walk;
  walk.start(pipeline_.graph(shape), [](const Command&) { return true; });
  while (const std::optional<Command> command = walk.next()) {
    if (command->kind == CommandKind::kExperts)
      experts_by_flags(command->layer, command->micro_batch, rows[static_cast<std::size_t>(command->micro_batch)]);
    walk.complete(command->id);
  }
}

void FfnWorker::experts_by_flags(std::int32_t layer, std::int32_t m, std::int64_t rows) {
  const std::int64_t hidden = model_->config().hidden, k = top_k(model_->config(), layer);
  const std::size_t bytes = hand_over_bytes(rows, hidden, k, config_.activations);
  std::span<std::byte> at = seam_->hand_overs[static_cast<std::size_t>(m)];
  seam_->ffn_flags().wait(seam_->flag(layer, m));
  if (!seam_->same_memory()) {
    std::byte* here = seam_memory_.bytes_data() + static_cast<std::size_t>(m) * rows_bytes_;
    backend_->copy(here, at.data(), bytes);
    at = {here, bytes};
  }
  HandOver in = hand_over_in(at, rows, hidden, k, config_.activations);
  if (in.expert_ids) {  // behind a poisoned wait these may be of other rows, or are being written
    const Tensor ids(seam_ids_.data(), DType::kI32, in.expert_ids.shape);
    backend_->run(ClampIds{ids, in.expert_ids, static_cast<std::int32_t>(model_->config().experts)});
    in.expert_ids = ids;
  }
  experts_.run(layer, {&in, return_in(seam_->returns[static_cast<std::size_t>(m)], in.slots(),
                                      partial_rows(model_->config(), share_, layer, rows), hidden)});
  seam_->ffn_flags().raise(seam_->flag(layer, m));
}

}  // namespace tandem
