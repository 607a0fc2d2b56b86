// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/attention/hand_over_link.h"

#include <algorithm>
#include <cstring>

#include "base/format.h"
#include "engine/hand_over/frame_post.h"

namespace tandem {

namespace {

// What an operation id says when it comes back.
enum class Operation : std::uint8_t { kSendHandOver, kSendControl, kReceiveReturn, kReceiveControl };

OperationId id_of(Operation kind, std::int32_t index) {
  return static_cast<OperationId>(kind) << 32 | static_cast<std::uint32_t>(index);
}
Operation kind_of(OperationId id) {
  return static_cast<Operation>(id >> 32);
}
std::int32_t index_of(OperationId id) {
  return static_cast<std::int32_t>(id & 0xffffffffu);
}

constexpr std::int32_t kControlsMax = 8;      // control words in flight: this step's, the last one's, repeats
constexpr std::int32_t kPeerBuffersEach = 4;  // for word from one other attention worker
constexpr std::int32_t kSpareReturns = 2;     // per FFN worker, for answers that come twice

}  // namespace

HandOverLink::HandOverLink(Transport& transport, const Clock& clock, Backend& backend, const WorkerConfig& config,
                           const ModelConfig& model, WorkerStats& stats)
    : transport_(transport),
      clock_(clock),
      config_(config),
      model_(model),
      device_rows_(transport.capabilities().device_rows),
      limits_(config.frame_limits(model, device_rows_)),
      stats_(stats) {
  const std::int64_t m_count = config.micro_batches, f_count = config.layout.ffn_workers,
                     a_count = config.layout.attention_workers;
  const std::size_t rows_bytes =
      hand_over_bytes(config.rows_max, model.hidden, model.experts_per_token, config.activations);
  const std::size_t output_bytes =
      return_bytes(config.rows_max * model.experts_per_token, config.rows_max, model.hidden);
  const std::size_t frame_bytes = aligned(
      sizeof(FrameHeader) + (device_rows_ ? choices_bytes(config.rows_max, model.experts_per_token) : rows_bytes));
  const std::size_t control_bytes = aligned(sizeof(FrameHeader) + static_cast<std::size_t>(m_count) * 4);
  ffn_buffers_each_ = static_cast<std::int32_t>(m_count) + kSpareReturns;
  ffn_buffer_bytes_ = aligned(sizeof(FrameHeader) + (device_rows_ ? 0 : output_bytes));
  peer_buffer_bytes_ = control_bytes;
  memory_ = backend.allocate_shared(m_count * frame_bytes + kControlsMax * control_bytes +
                                    f_count * ffn_buffers_each_ * ffn_buffer_bytes_ +
                                    a_count * kPeerBuffersEach * peer_buffer_bytes_);
  const Status registered = transport_.register_region({memory_.bytes_data(), memory_.bytes()});
  if (!registered) throw registered.error();

  std::byte* at = memory_.bytes_data();
  const auto carve = [&](std::size_t bytes) {
    std::byte* begin = at;
    at += bytes;
    return begin;
  };
  flights_.resize(m_count);
  for (Flight& flight : flights_) {
    flight.frame = {carve(frame_bytes), frame_bytes};
    flight.returns.resize(f_count);
  }
  controls_.resize(kControlsMax);
  for (Control& control : controls_) control.frame = {carve(control_bytes), control_bytes};
  ffn_buffers_ = carve(f_count * ffn_buffers_each_ * ffn_buffer_bytes_);
  peer_buffers_ = carve(a_count * kPeerBuffersEach * peer_buffer_bytes_);
  if (device_rows_) {
    ffn_rows_bytes_ = aligned(output_bytes);
    device_memory_ = backend.allocate(m_count * aligned(rows_bytes) + f_count * ffn_buffers_each_ * ffn_rows_bytes_);
    at = device_memory_.bytes_data();
    for (Flight& flight : flights_) flight.device = {carve(aligned(rows_bytes)), rows_bytes};
    ffn_rows_ = at;
  }
  rows_.assign(m_count, 0);
  ffn_gone_.assign(f_count, false);
  heard_steps_.assign(a_count, 0);
  for (std::int32_t f = 0; f < f_count; ++f)
    for (std::int32_t i = 0; i < ffn_buffers_each_; ++i) post_ffn_receive(f, i);
  for (std::int32_t a = 0; a < a_count; ++a)
    for (std::int32_t i = 0; i < kPeerBuffersEach; ++i) post_peer_receive(a, i);
}

std::span<std::byte> HandOverLink::ffn_buffer(std::int32_t f, std::int32_t i) {
  return {ffn_buffers_ + static_cast<std::size_t>(f * ffn_buffers_each_ + i) * ffn_buffer_bytes_, ffn_buffer_bytes_};
}

std::span<std::byte> HandOverLink::ffn_rows(std::int32_t f, std::int32_t i) {
  if (!device_rows_) return {};
  return {ffn_rows_ + static_cast<std::size_t>(f * ffn_buffers_each_ + i) * ffn_rows_bytes_, ffn_rows_bytes_};
}

std::span<std::byte> HandOverLink::peer_buffer(std::int32_t a, std::int32_t i) {
  return {peer_buffers_ + static_cast<std::size_t>(a * kPeerBuffersEach + i) * peer_buffer_bytes_, peer_buffer_bytes_};
}

void HandOverLink::post_ffn_receive(std::int32_t f, std::int32_t i) {
  if (ffn_gone_[f]) return;
  const PeerRank rank = config_.layout.ffn_rank(f);
  const OperationId id = id_of(Operation::kReceiveReturn, f * ffn_buffers_each_ + i);
  if (!post_receive(transport_, rank, ffn_buffer(f, i), ffn_rows(f, i), id)) ffn_gone_[f] = true;
}

void HandOverLink::post_peer_receive(std::int32_t a, std::int32_t i) {
  if (config_.layout.attention_rank(a) == transport_.rank()) return;
  // A peer that is gone opens no more steps: nothing to do about a refusal.
  (void)transport_.post_receive(config_.layout.attention_rank(a), peer_buffer(a, i),
                                id_of(Operation::kReceiveControl, a * kPeerBuffersEach + i));
}

void HandOverLink::open(std::uint64_t step, std::span<const std::int32_t> rows) {
  step_ = step;
  std::copy(rows.begin(), rows.end(), rows_.begin());
  send_control();
}

void HandOverLink::send_control(bool to_peers) {
  const auto free =
      std::find_if(controls_.begin(), controls_.end(), [](const Control& c) { return c.sends_in_flight == 0; });
  if (free == controls_.end()) return;  // earlier words are still on their way; the timer comes back to it
  const std::size_t bytes = sizeof(FrameHeader) + rows_.size() * 4;
  std::memcpy(free->frame.data() + sizeof(FrameHeader), rows_.data(), rows_.size() * 4);
  const std::span<std::byte> message = free->frame.first(bytes);
  seal_frame(config_.frame_header(FrameKind::kControl, transport_.rank(), step_), message);
  const auto index = static_cast<std::int32_t>(free - controls_.begin());
  for (PeerRank peer = 0; peer < config_.layout.workers(); ++peer) {
    if (peer == transport_.rank() || (!to_peers && peer < config_.layout.ffn_rank(0))) continue;
    if (transport_.post_send(peer, message, id_of(Operation::kSendControl, index))) ++free->sends_in_flight;
  }
}

HandOver HandOverLink::hand_over(std::int32_t m, std::int64_t rows, std::int64_t top_k) {
  Flight& flight = flights_[m];
  TANDEM_CHECK(flight.sends_in_flight == 0 && !flight.under_way,
               "a hand-over is computed while its frame is still in use");
  flight.rows = rows;
  flight.top_k = top_k;
  return hand_over_in(device_rows_ ? flight.device : payload(flight.frame), rows, model_.hidden, top_k,
                      config_.activations);
}

HandOver HandOverLink::choices(std::int32_t m) {
  const Flight& flight = flights_[m];
  return choices_in(payload(flight.frame), flight.rows, flight.top_k);
}

void HandOverLink::send(std::int32_t m, std::int32_t layer, std::span<const std::int64_t> slots) {
  Flight& flight = flights_[m];
  flight.layer = layer;
  const std::size_t rows_bytes = hand_over_bytes(flight.rows, model_.hidden, flight.top_k, config_.activations);
  flight.device_bytes = device_rows_ ? rows_bytes : 0;
  flight.message_bytes = sizeof(FrameHeader) + (!device_rows_            ? rows_bytes
                                                : config_.shares_slots() ? choices_bytes(flight.rows, flight.top_k)
                                                                         : 0);
  flight.resends = 0;
  flight.under_way = true;
  flight.awaited = static_cast<std::int32_t>(flight.returns.size());
  for (std::size_t f = 0; f < flight.returns.size(); ++f) flight.returns[f] = {.slots = slots[f], .awaited = true};
  FrameHeader header = config_.frame_header(FrameKind::kHandOver, transport_.rank(), step_);
  header.layer = layer;
  header.micro_batch = m;
  header.rows = static_cast<std::int32_t>(flight.rows);
  seal_frame(header, flight.frame.first(flight.message_bytes));
  transmit(m);
}

void HandOverLink::transmit(std::int32_t m) {
  Flight& flight = flights_[m];
  flight.sent_at = clock_.now();
  for (std::int32_t f = 0; f < static_cast<std::int32_t>(flight.returns.size()); ++f) {
    if (!flight.returns[f].awaited) continue;
    const PeerRank rank = config_.layout.ffn_rank(f);
    const std::span<const std::byte> message = flight.frame.first(flight.message_bytes);
    const OperationId id = id_of(Operation::kSendHandOver, m);
    const Status sent = post_send(transport_, rank, message, flight.device.first(flight.device_bytes), id);
    if (sent)
      ++flight.sends_in_flight;
    else if (sent.error().code() != ErrorCode::kOutOfResources)  // a full link is tried again by the timer
      return give_up(m,
                     Status(ErrorCode::kUnavailable, format("FFN worker {} is gone: {}", f, sent.error().message())));
  }
}

void HandOverLink::poll(Nanoseconds wait, std::vector<News>& news) {
  TransportEvent events[32];
  const std::size_t count = transport_.poll(events, until_next_timer(wait));
  for (std::size_t i = 0; i < count; ++i) handle(events[i]);
  check_timers();
  news.clear();
  for (std::int32_t m = 0; m < static_cast<std::int32_t>(flights_.size()); ++m) {
    Flight& flight = flights_[m];
    if (!flight.under_way) continue;
    const bool failed = !flight.failure.is_ok();
    if (!failed && (flight.awaited > 0 || flight.sends_in_flight > 0)) continue;
    flight.under_way = false;
    news.push_back({m, failed});
  }
}

void HandOverLink::release(std::int32_t m) {
  Flight& flight = flights_[m];
  for (std::int32_t f = 0; f < static_cast<std::int32_t>(flight.returns.size()); ++f) {
    Return& r = flight.returns[f];
    if (r.buffer >= 0) post_ffn_receive(f, r.buffer);
    r = {};
  }
  flight.failure = Status::ok();
}

void HandOverLink::handle(const TransportEvent& event) {
  const std::int32_t index = index_of(event.operation);
  const bool gone = event.kind == TransportEvent::Kind::kPeerGone;
  switch (kind_of(event.operation)) {
    case Operation::kSendHandOver:
      --flights_[index].sends_in_flight;
      if (gone)
        give_up(index, Status(ErrorCode::kUnavailable,
                              format("FFN worker {} is gone", event.peer - config_.layout.ffn_rank(0))));
      return;
    case Operation::kSendControl:
      --controls_[index].sends_in_flight;
      return;
    case Operation::kReceiveReturn: {
      const std::int32_t f = index / ffn_buffers_each_, buffer = index % ffn_buffers_each_;
      if (!gone)
        return accept_return(f, buffer, event.kind == TransportEvent::Kind::kReceived ? event.bytes : 0,
                             event.row_bytes);
      ffn_gone_[f] = true;
      for (std::int32_t m = 0; m < static_cast<std::int32_t>(flights_.size()); ++m)
        if (flights_[m].under_way && flights_[m].returns[f].awaited)
          give_up(m, Status(ErrorCode::kUnavailable, format("FFN worker {} is gone", f)));
      return;
    }
    case Operation::kReceiveControl: {
      if (gone) return;
      const std::int32_t a = index / kPeerBuffersEach, buffer = index % kPeerBuffersEach;
      Result<FrameHeader> header =
          check_frame(std::span<const std::byte>(peer_buffer(a, buffer)).first(event.bytes), limits_);
      if (header.is_ok() && header.value().kind == FrameKind::kControl)
        accept_control(a, header.value().step);
      else
        ++stats_.frames_refused;
      post_peer_receive(a, buffer);
      return;
    }
  }
}

// Who says a thing twice waits for FFN workers, and these may wait for our own word of the step, which was lost. One
// that joined with zero rows has no timer that would say it again, so it does so when another's goes off; only to FFN
// workers, or two would answer each other for ever.
void HandOverLink::accept_control(std::int32_t a, std::uint64_t step) {
  const bool repeated = step == heard_steps_[a];
  heard_steps_[a] = std::max(heard_steps_[a], step);
  opened_by_peers_ = std::max(opened_by_peers_, step);
  if (repeated && step <= step_) send_control(/*to_peers=*/false);
}

void HandOverLink::accept_return(std::int32_t f, std::int32_t buffer, std::size_t bytes, std::size_t row_bytes) {
  const std::span<std::byte> message = ffn_buffer(f, buffer).first(bytes);
  Result<FrameHeader> checked = check_frame(message, limits_);
  bool fits = checked.is_ok();
  if (fits) {
    const FrameHeader& h = checked.value();
    fits = h.kind == FrameKind::kReturn && h.source == config_.layout.ffn_rank(f);
    // A second answer, or one to a question of an earlier step, is not damage.
    const bool wanted = fits && h.step == step_ && flights_[h.micro_batch].under_way &&
                        flights_[h.micro_batch].layer == h.layer && flights_[h.micro_batch].returns[f].awaited;
    if (fits && !wanted) return post_ffn_receive(f, buffer);
    if (fits) {
      Flight& flight = flights_[h.micro_batch];
      Return& r = flight.returns[f];
      const FfnShare share = ffn_share(f, config_.layout.ffn_split(), model_.experts);
      const std::int64_t partials = partial_rows(model_, share, h.layer, flight.rows);
      const std::span<std::byte> output = device_rows_ ? ffn_rows(f, buffer).first(row_bytes) : payload(message);
      fits = h.rows == flight.rows && h.slot_rows == r.slots &&
             output.size() == return_bytes(r.slots, partials, model_.hidden);
      if (fits) {
        r.output = return_in(output, r.slots, partials, model_.hidden);
        r.buffer = buffer;
        r.awaited = false;
        --flight.awaited;
        return;
      }
    }
  }
  ++stats_.frames_refused;
  post_ffn_receive(f, buffer);
}

void HandOverLink::give_up(std::int32_t m, Status why) {
  if (flights_[m].under_way && flights_[m].failure.is_ok()) flights_[m].failure = std::move(why);
}

void HandOverLink::check_timers() {
  const Nanoseconds now = clock_.now();
  for (std::int32_t m = 0; m < static_cast<std::int32_t>(flights_.size()); ++m) {
    Flight& flight = flights_[m];
    if (!flight.under_way || flight.awaited == 0 || !flight.failure.is_ok() ||
        now - flight.sent_at < config_.resend_after)
      continue;
    if (flight.resends == config_.resends_max) {
      give_up(m, Status(ErrorCode::kUnavailable,
                        format("FFN workers did not answer layer {} within {} ms, sent {} times", flight.layer,
                               config_.resend_after / kMillisecond, flight.resends + 1)));
      continue;
    }
    ++flight.resends;
    ++stats_.resends;
    send_control();
    if (flight.sends_in_flight == 0) transmit(m);
    flight.sent_at = now;
  }
}

Nanoseconds HandOverLink::until_next_timer(Nanoseconds wait) const {
  const Nanoseconds now = wait > 0 ? clock_.now() : 0;
  for (const Flight& flight : flights_) {
    if (!flight.under_way || wait <= 0) continue;
    wait = std::min(wait, std::max<Nanoseconds>(flight.sent_at + config_.resend_after - now, 1));
  }
  return wait;
}

}  // namespace tandem
