// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/ffn_worker.h"

#include <algorithm>
#include <cstring>

#include "model/layer_pieces.h"

namespace tandem {

namespace {

// Operation ids: receives count up from 0, sends carry this bit.
constexpr OperationId kSendBit = 1ull << 63;
constexpr Nanoseconds kIdleWait = 100 * kMillisecond;

std::int64_t rows_of_all(const WorkerConfig& config) {
  return config.rows_max * config.layout.attention_workers;
}

std::size_t together_bytes(const WorkerConfig& config, const ModelConfig& model) {
  const std::int64_t rows = rows_of_all(config), k = model.experts_per_token;
  return aligned(hand_over_bytes(rows, model.hidden, k, config.activations)) +
         aligned(return_bytes(rows * k, rows, model.hidden));
}

}  // namespace

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
      arena_(*backend_, model_->ffn_scratch_bytes(rows_of_all(config))) {
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
  memory_ = backend_->allocate_shared(
      a_count * (buffers_each_ * buffer_bytes_ + (m_count + 1) * reply_bytes) +
      (device_rows_ ? choices_bytes(rows_of_all(config), m.experts_per_token) : together_bytes(config, m)));
  if (!backend_->host_memory() && !(device_rows_ && a_count == 1))  // nothing is put together for one
    far_memory_ = backend_->allocate(together_bytes(config, m));
  rows_bytes_ = aligned(hand_over);
  if (device_rows_)
    rows_memory_ = backend_->allocate(a_count * (buffers_each_ * rows_bytes_ + (m_count + 1) * aligned(output_bytes)));
  if (device_rows_ && share_.cuts_experts()) allocate_ones();
  if (config.activations == Activations::kFp8)
    widened_ = backend_->allocate(static_cast<std::size_t>(rows_of_all(config) * m.hidden) * sizeof(float));
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
  choices_together_ = at;
  together_ = device_rows_ ? far_memory_.bytes_data() : at;
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

void FfnWorker::allocate_ones() {
  const std::vector<float> ones(static_cast<std::size_t>(rows_of_all(config_) * model_->config().experts_per_token), 1);
  ones_ = backend_->allocate(ones.size() * sizeof(float));
  backend_->copy(ones_.data(), ones.data(), ones_.bytes());
  backend_->synchronise();
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

// ---- frames in

std::span<std::byte> FfnWorker::buffer(std::int32_t a, std::int32_t i) {
  return {buffers_ + static_cast<std::size_t>(a * buffers_each_ + i) * buffer_bytes_, buffer_bytes_};
}

std::span<std::byte> FfnWorker::rows(std::int32_t a, std::int32_t i) {
  return {rows_memory_.bytes_data() + static_cast<std::size_t>(a * buffers_each_ + i) * rows_bytes_, rows_bytes_};
}

void FfnWorker::post_receive(std::int32_t a, std::int32_t i) {
  if (peers_[a].gone) return;
  const PeerRank rank = config_.layout.attention_rank(a);
  const OperationId id = a * buffers_each_ + i;
  const Status posted = device_rows_ ? transport_->post_receive_rows(rank, buffer(a, i), rows(a, i), id)
                                     : transport_->post_receive(rank, buffer(a, i), id);
  if (!posted) peer_is_gone(a);
}

void FfnWorker::drain(Nanoseconds wait) {
  TransportEvent events[32];
  const std::size_t count = transport_->poll(events, wait);
  for (std::size_t i = 0; i < count; ++i) handle(events[i]);
}

void FfnWorker::handle(const TransportEvent& event) {
  if (event.operation & kSendBit) {
    const auto index = static_cast<std::int32_t>(event.operation & ~kSendBit);
    const auto replies = static_cast<std::int32_t>(peers_[0].replies.size());
    --peers_[index / replies].replies[index % replies].sends_in_flight;
    return;
  }
  const auto a = static_cast<std::int32_t>(event.operation) / buffers_each_;
  const auto i = static_cast<std::int32_t>(event.operation) % buffers_each_;
  if (event.kind == TransportEvent::Kind::kPeerGone) return peer_is_gone(a);
  accept(a, {i, event.kind == TransportEvent::Kind::kReceived ? event.bytes : 0, event.row_bytes});
}

void FfnWorker::accept(std::int32_t a, const Arrived& arrived) {
  const std::int32_t i = arrived.buffer;
  const std::span<const std::byte> message = buffer(a, i).first(arrived.bytes);
  Result<FrameHeader> checked = check_frame(message, limits_);
  if (checked.is_ok() && checked.value().source == config_.layout.attention_rank(a)) {
    const FrameHeader& header = checked.value();
    if (header.kind == FrameKind::kHandOver) return accept_hand_over(a, arrived, header);
    if (header.kind == FrameKind::kControl && payload(message).size() == peers_[a].rows.size() * 4) {
      accept_control(a, header, payload(message));
      return post_receive(a, i);
    }
  }
  ++stats_.frames_refused;
  post_receive(a, i);
}

void FfnWorker::accept_control(std::int32_t a, const FrameHeader& header, std::span<const std::byte> rows) {
  Peer& peer = peers_[a];
  if (header.step <= peer.control_step) return;  // a repeat
  // The worker has gone on: whatever it still owes the open step will not come.
  if (open_ && header.step > step_)
    for (std::int32_t m = 0; m < config_.micro_batches; ++m) stop_waiting(a, -1, m);
  peer.control_step = header.step;
  std::memcpy(peer.control_rows.data(), rows.data(), rows.size());
  for (std::int32_t& count : peer.control_rows) count = std::clamp<std::int32_t>(count, 0, limits_.rows_max);
}

bool FfnWorker::read_hand_over(std::int32_t a, const Arrived& arrived, const FrameHeader& header, Held& held) {
  const std::int64_t k = top_k(header.layer), hidden = model_->config().hidden;
  const std::size_t bytes = hand_over_bytes(header.rows, hidden, k, config_.activations);
  const std::span<std::byte> here = payload(buffer(a, arrived.buffer));
  const std::size_t in_frame = !device_rows_ ? bytes : config_.shares_slots() ? choices_bytes(header.rows, k) : 0;
  if (header.rows == 0 || header.payload_bytes != in_frame) return false;
  HandOver& hand_over = held.hand_over;
  if (!device_rows_) {
    hand_over = hand_over_in(here, header.rows, hidden, k, config_.activations);
  } else {
    if (arrived.row_bytes != bytes) return false;
    held.on_device = hand_over = hand_over_in(rows(a, arrived.buffer), header.rows, hidden, k, config_.activations);
    if (!config_.shares_slots()) return true;  // its choices are the router's own, which no host has seen
    const HandOver choices = choices_in(here, header.rows, k);
    hand_over.expert_ids = choices.expert_ids;
    hand_over.expert_weights = choices.expert_weights;
  }
  const auto* ids = hand_over.expert_ids.as<const std::int32_t>();
  for (std::int64_t s = 0; s < header.rows * k; ++s)
    if (ids[s] < 0 || ids[s] >= model_->config().experts) return false;
  return true;
}

// How many of its slots are this worker's: all, where it is the only one.
std::int64_t FfnWorker::slots_of(const HandOver& hand_over) const {
  return config_.shares_slots() ? count_slots(hand_over, share_) : hand_over.slots();
}

void FfnWorker::accept_hand_over(std::int32_t a, const Arrived& arrived, const FrameHeader& header) {
  Peer& peer = peers_[a];
  const std::int32_t i = arrived.buffer;
  Held held{.buffer = i, .layer = header.layer};
  if (!read_hand_over(a, arrived, header, held)) {
    ++stats_.frames_refused;
    return post_receive(a, i);
  }
  if (header.step > step_) {  // the next step, before it is open here; a full list means repeats, which come again
    if (static_cast<std::int32_t>(peer.early.size()) < config_.micro_batches) return peer.early.push_back(arrived);
    return post_receive(a, i);
  }
  const std::int32_t m = header.micro_batch;
  const std::int32_t id =
      open_ && header.step == step_ ? walk_.graph().find(CommandKind::kHandOver, header.layer, m, a, index_) : -1;
  if (id >= 0 && !walk_.is_complete(id) && header.rows == peer.rows[m] && !peer.held[m].present()) {
    peer.held[m] = held;
    walk_.complete(id);
    return;
  }
  if (id >= 0 && peer.held[m].present() && peer.held[m].layer == header.layer) {
    // It repeats itself because it has waited long: run with those who are here.
    for (std::int32_t other = 0; other < config_.layout.attention_workers; ++other)
      stop_waiting(other, header.layer, m);
    return post_receive(a, i);
  }
  Reply& spare = peer.replies.back();
  if (spare.sends_in_flight == 0) {
    run_alone(m, held, spare, header.step);
    post_reply(a, config_.micro_batches, spare);
  }
  release(a, held);
}

void FfnWorker::peer_is_gone(std::int32_t a) {
  Peer& peer = peers_[a];
  if (peer.gone) return;
  peer.gone = true;
  if (!open_) return;
  for (std::int32_t m = 0; m < config_.micro_batches; ++m) stop_waiting(a, -1, m);
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
  const std::int64_t hidden = model_->config().hidden;
  const std::size_t bytes = hand_over_bytes(rows, hidden, top_k(layer), config_.activations);
  std::span<std::byte> at = seam_->hand_overs[static_cast<std::size_t>(m)];
  seam_->ffn_flags().wait(seam_->flag(layer, m));
  if (!seam_->same_memory()) {
    std::byte* here = seam_memory_.bytes_data() + static_cast<std::size_t>(m) * rows_bytes_;
    backend_->copy(here, at.data(), bytes);
    at = {here, bytes};
  }
  HandOver in = hand_over_in(at, rows, hidden, top_k(layer), config_.activations);
  if (in.expert_ids) {  // behind a poisoned wait these may be of other rows, or are being written
    const Tensor ids(seam_ids_.data(), DType::kI32, in.expert_ids.shape);
    backend_->run(ClampIds{ids, in.expert_ids, static_cast<std::int32_t>(model_->config().experts)});
    in.expert_ids = ids;
  }
  run_model(layer, in,
            return_in(seam_->returns[static_cast<std::size_t>(m)], in.slots(),
                      partial_rows(model_->config(), share_, layer, rows), hidden));
  seam_->ffn_flags().raise(seam_->flag(layer, m));
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
  if (count > 1) run_together(layer, m, std::span(workers, static_cast<std::size_t>(count)));
  for (std::int32_t i = 0; i < count; ++i) release(workers[i], peers_[workers[i]].held[m]);
}

void FfnWorker::run_alone(std::int32_t m, const Held& held, Reply& reply, std::uint64_t step) {
  const std::int64_t rows = held.hand_over.rows(), slots = slots_of(held.hand_over);
  const FfnOutput output = begin_reply(held.layer, reply, rows, slots);
  run_model(held.layer, weighed(device_rows_ ? held.on_device : held.hand_over), output);
  seal_reply(held.layer, m, rows, slots, reply, step);
}

// A part of an expert's sum is not weighted: who adds the parts up does that, or the bits would not be those of a sum
// that is weighted as a whole. 1 · x is x.
HandOver FfnWorker::weighed(HandOver hand_over) const {
  if (!share_.cuts_experts() || !hand_over.expert_weights) return hand_over;
  const Shape shape = hand_over.expert_weights.shape;
  if (device_rows_)
    hand_over.expert_weights = Tensor(ones_.data(), DType::kF32, shape);
  else
    std::fill_n(hand_over.expert_weights.as<float>(), shape.elements(), 1.0f);
  return hand_over;
}

void FfnWorker::run_model(std::int32_t layer, const HandOver& hand_over, const FfnOutput& output) {
  if (!device_rows_) return run_on_host_frames(layer, hand_over, output);
  HandOver in = hand_over;
  if (config_.activations == Activations::kFp8) {
    in.hidden = Tensor(widened_.data(), DType::kF32, {in.rows(), model_->config().hidden});
    backend_->run(WidenRows{in.hidden, in.codes, in.scales});
  }
  model_->experts(workspace(), layer, in, output);
  if (track_) backend_->synchronise();  // it shows how long that takes
}

// From frame to frame. Where operators have memory of their own, a frame's arrays go there and back in one piece.
void FfnWorker::run_on_host_frames(std::int32_t layer, const HandOver& hand_over, const FfnOutput& output) {
  const std::int64_t rows = hand_over.rows(), hidden = model_->config().hidden, k = top_k(layer);
  const std::int64_t slots = output.slot_rows.rows(), partials = output.partial ? output.partial.rows() : 0;
  const std::size_t in_bytes = hand_over_bytes(rows, hidden, k, config_.activations);
  const std::size_t out_bytes = return_bytes(slots, partials, hidden);
  const bool far = !backend_->host_memory(), widens = config_.activations == Activations::kFp8;
  HandOver in = hand_over;
  FfnOutput out = output;
  if (far) {
    std::byte* at = far_memory_.bytes_data();
    backend_->copy(at, (widens ? hand_over.scales : hand_over.hidden).data, in_bytes);
    in = hand_over_in({at, in_bytes}, rows, hidden, k, config_.activations);
    out = return_in({at + aligned(in_bytes), out_bytes}, slots, partials, hidden);
  }
  if (widens) {
    in.hidden = Tensor(widened_.data(), DType::kF32, {rows, hidden});
    backend_->run(WidenRows{in.hidden, in.codes, in.scales});
  }
  model_->experts(workspace(), layer, in, out);
  if (far) backend_->copy(output.slot_rows.data, out.slot_rows.data, out_bytes);
  backend_->synchronise();
}

void FfnWorker::run_together(std::int32_t layer, std::int32_t m, std::span<const std::int32_t> workers) {
  const std::int64_t hidden = model_->config().hidden, k = top_k(layer);
  std::int64_t rows = 0;
  for (const std::int32_t a : workers) rows += peers_[a].held[m].hand_over.rows();
  const std::size_t in_bytes = hand_over_bytes(rows, hidden, k, config_.activations);
  const HandOver all = hand_over_in({together_, in_bytes}, rows, hidden, k, config_.activations);
  HandOver chosen = all;  // as the host reads it
  const bool counts = device_rows_ && config_.shares_slots();
  if (counts) chosen.expert_ids = choices_in({choices_together_, choices_bytes(rows, k)}, rows, k).expert_ids;
  std::int64_t row = 0;
  for (const std::int32_t a : workers) {
    const Held& held = peers_[a].held[m];
    const std::int64_t part_rows = held.hand_over.rows();
    const HandOver& part = device_rows_ ? held.on_device : held.hand_over;
    for (const auto array :
         {&HandOver::hidden, &HandOver::scales, &HandOver::codes, &HandOver::expert_ids, &HandOver::expert_weights})
      if (part.*array) move((all.*array).slice_rows(row, part_rows), part.*array);
    if (const Tensor& from = held.hand_over.expert_ids; counts && from)
      std::memcpy(chosen.expert_ids.slice_rows(row, part_rows).data, from.data,
                  static_cast<std::size_t>(from.shape.elements()) * 4);
    row += part_rows;
  }
  const std::int64_t slots = slots_of(chosen), partials = partial_rows(model_->config(), share_, layer, rows);
  const FfnOutput output =
      return_in({together_ + aligned(in_bytes), return_bytes(slots, partials, hidden)}, slots, partials, hidden);
  run_model(layer, weighed(all), output);

  // Results are in order of rows, so each worker's are one piece.
  std::int64_t slot = 0;
  row = 0;
  for (const std::int32_t a : workers) {
    const HandOver& part = peers_[a].held[m].hand_over;
    const std::int64_t part_slots = slots_of(part);
    Reply& reply = peers_[a].replies[m];
    const FfnOutput own = begin_reply(layer, reply, part.rows(), part_slots);
    move(own.slot_rows, output.slot_rows.slice_rows(slot, part_slots));
    if (own.partial) move(own.partial, output.partial.slice_rows(row, part.rows()));
    seal_reply(layer, m, part.rows(), part_slots, reply, step_);
    slot += part_slots;
    row += part.rows();
  }
}

// Dense rows, between frames or on the device.
void FfnWorker::move(Tensor to, const Tensor& from) {
  const std::size_t bytes = row_bytes(from.dtype, static_cast<std::size_t>(from.shape.elements()));
  if (device_rows_)
    backend_->copy(to.data, from.data, bytes);
  else if (bytes > 0)
    std::memcpy(to.data, from.data, bytes);
}

// ---- frames out

FfnOutput FfnWorker::begin_reply(std::int32_t layer, Reply& reply, std::int64_t rows, std::int64_t slots) {
  const std::int64_t partials = partial_rows(model_->config(), share_, layer, rows), hidden = model_->config().hidden;
  const std::size_t bytes = return_bytes(slots, partials, hidden);
  reply.bytes = sizeof(FrameHeader) + (device_rows_ ? 0 : bytes);
  reply.device_bytes = device_rows_ ? bytes : 0;
  return return_in(device_rows_ ? reply.device : payload(reply.frame), slots, partials, hidden);
}

void FfnWorker::seal_reply(std::int32_t layer, std::int32_t m, std::int64_t rows, std::int64_t slots, Reply& reply,
                           std::uint64_t step) {
  FrameHeader header;
  header.kind = FrameKind::kReturn;
  header.deployment = config_.deployment;
  header.epoch = config_.epoch;
  header.source = transport_->rank();
  header.step = step;
  header.layer = layer;
  header.micro_batch = m;
  header.rows = static_cast<std::int32_t>(rows);
  header.slot_rows = static_cast<std::int32_t>(slots);
  seal_frame(header, reply.frame.first(reply.bytes));
}

void FfnWorker::post_reply(std::int32_t a, std::int32_t m, Reply& reply) {
  const auto replies = static_cast<std::int32_t>(peers_[a].replies.size());
  const PeerRank rank = config_.layout.attention_rank(a);
  const std::span<const std::byte> message = reply.frame.first(reply.bytes);
  const OperationId id = kSendBit | static_cast<std::uint32_t>(a * replies + m);
  const Status sent = device_rows_
                          ? transport_->post_send_rows(rank, message, reply.device.first(reply.device_bytes), id)
                          : transport_->post_send(rank, message, id);
  if (sent)
    ++reply.sends_in_flight;
  else if (sent.error().code() != ErrorCode::kOutOfResources)
    peer_is_gone(a);
}

void FfnWorker::release(std::int32_t a, Held& held) {
  const std::int32_t i = held.buffer;
  held = {};
  post_receive(a, i);
}

std::int64_t FfnWorker::top_k(std::int32_t layer) const {
  return model_->config().is_routed(layer) ? model_->config().experts_per_token : 0;
}

}  // namespace tandem
