// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What an FFN worker receives and sends: frames are checked and held until their step wants them, returns are sealed.
#include <algorithm>
#include <cstring>

#include "engine/ffn/ffn_worker.h"
#include "engine/hand_over/frame_post.h"
#include "model/layer_pieces.h"

namespace tandem {

namespace {
constexpr OperationId kSendBit = 1ull << 63;  // receives count up from 0, sends carry this bit
}

// ---- in

std::span<std::byte> FfnWorker::buffer(std::int32_t a, std::int32_t i) {
  return {buffers_ + static_cast<std::size_t>(a * buffers_each_ + i) * buffer_bytes_, buffer_bytes_};
}

std::span<std::byte> FfnWorker::rows(std::int32_t a, std::int32_t i) {
  if (!device_rows_) return {};
  return {rows_memory_.bytes_data() + static_cast<std::size_t>(a * buffers_each_ + i) * rows_bytes_, rows_bytes_};
}

void FfnWorker::post_receive(std::int32_t a, std::int32_t i) {
  if (peers_[a].gone) return;
  const OperationId id = a * buffers_each_ + i;
  if (!tandem::post_receive(*transport_, config_.layout.attention_rank(a), buffer(a, i), rows(a, i), id))
    peer_is_gone(a);
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

bool FfnWorker::read_hand_over(std::int32_t a, const Arrived& arrived, const FrameHeader& header, Held& held) {
  const ModelConfig& model = model_->config();
  const std::int64_t k = top_k(model, header.layer);
  const std::size_t bytes = hand_over_bytes(header.rows, model.hidden, k, config_.activations);
  const std::span<std::byte> here = payload(buffer(a, arrived.buffer));
  const std::size_t in_frame = !device_rows_ ? bytes : config_.shares_slots() ? choices_bytes(header.rows, k) : 0;
  if (header.rows == 0 || header.payload_bytes != in_frame) return false;
  if (device_rows_ && arrived.row_bytes != bytes) return false;
  held.hand_over =
      hand_over_in(device_rows_ ? rows(a, arrived.buffer) : here, header.rows, model.hidden, k, config_.activations);
  held.slots = held.hand_over.slots();
  if (device_rows_ && !config_.shares_slots()) return true;  // its choices are the router's own; no host has seen them
  const HandOver choices = device_rows_ ? choices_in(here, header.rows, k) : held.hand_over;
  const auto* ids = choices.expert_ids.as<const std::int32_t>();
  for (std::int64_t s = 0; s < header.rows * k; ++s)
    if (ids[s] < 0 || ids[s] >= model.experts) return false;
  if (config_.shares_slots()) held.slots = count_slots(choices, share_);
  return true;
}

void FfnWorker::release(std::int32_t a, Held& held) {
  const std::int32_t i = held.buffer;
  held = {};
  post_receive(a, i);
}

void FfnWorker::peer_is_gone(std::int32_t a) {
  Peer& peer = peers_[a];
  if (peer.gone) return;
  peer.gone = true;
  if (!open_) return;
  for (std::int32_t m = 0; m < config_.micro_batches; ++m) stop_waiting(a, -1, m);
}

// ---- out

FfnOutput FfnWorker::begin_reply(const Held& held, Reply& reply) {
  const std::int64_t hidden = model_->config().hidden;
  const std::int64_t partials = partial_rows(model_->config(), share_, held.layer, held.hand_over.rows());
  const std::size_t bytes = return_bytes(held.slots, partials, hidden);
  reply.bytes = sizeof(FrameHeader) + (device_rows_ ? 0 : bytes);
  reply.device_bytes = device_rows_ ? bytes : 0;
  return return_in(device_rows_ ? reply.device : payload(reply.frame), held.slots, partials, hidden);
}

void FfnWorker::seal_reply(const Held& held, std::int32_t m, Reply& reply, std::uint64_t step) {
  FrameHeader header = config_.frame_header(FrameKind::kReturn, transport_->rank(), step);
  header.layer = held.layer;
  header.micro_batch = m;
  header.rows = static_cast<std::int32_t>(held.hand_over.rows());
  header.slot_rows = static_cast<std::int32_t>(held.slots);
  seal_frame(header, reply.frame.first(reply.bytes));
}

void FfnWorker::post_reply(std::int32_t a, std::int32_t m, Reply& reply) {
  const auto replies = static_cast<std::int32_t>(peers_[a].replies.size());
  const PeerRank rank = config_.layout.attention_rank(a);
  const std::span<const std::byte> message = reply.frame.first(reply.bytes);
  const OperationId id = kSendBit | static_cast<std::uint32_t>(a * replies + m);
  const Status sent = post_send(*transport_, rank, message, reply.device.first(reply.device_bytes), id);
  if (sent)
    ++reply.sends_in_flight;
  else if (sent.error().code() != ErrorCode::kOutOfResources)
    peer_is_gone(a);
}

}  // namespace tandem
