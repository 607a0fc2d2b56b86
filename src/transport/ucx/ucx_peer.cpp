// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/ucx/ucx_peer.h"

#include <algorithm>
#include <cstring>

#include "base/format.h"
#include "base/random_bytes.h"

namespace tandem {
namespace {

ucp_request_param_t with_callback(void* user_data) {
  ucp_request_param_t param = {};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  param.user_data = user_data;
  return param;
}

// Also where the threshold is 0: nobody fetches nothing.
void never_fetched(ucp_request_param_t& param) {
  param.op_attr_mask |= UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_AM_SEND_FLAG_EAGER;
}

void add_region(ucp_request_param_t& param, ucp_mem_h region) {
  if (!region) return;
  param.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMH;
  param.memh = region;
}

}  // namespace

UcxPeer::UcxPeer(UcxWorker& worker, PeerRank self, PeerRank rank, const UcxConfig& config)
    : worker_(worker),
      self_(self),
      rank_(rank),
      message_bytes_max_(config.message_bytes_max),
      notices_death_(config.notice_dead_peers),
      token_in_(random_number()),
      sends_(static_cast<std::size_t>(config.sends_max)),
      receives_(static_cast<std::size_t>(config.receives_max)),
      arrivals_(static_cast<std::size_t>(config.sends_max)) {}

void UcxPeer::release_arrivals() {
  for (Arrival& arrival : arrivals_) {
    if (arrival.there && arrival.rendezvous) ucp_am_data_release(worker_.handle(), arrival.descriptor);
    arrival.there = false;
  }
}

void UcxPeer::connect(std::span<const std::byte> address, std::uint64_t token) {
  token_out_ = token;
  ucp_ep_params_t param = {};
  param.field_mask =
      UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
  param.address = reinterpret_cast<const ucp_address_t*>(address.data());
  param.err_mode = notices_death_ ? UCP_ERR_HANDLING_MODE_PEER : UCP_ERR_HANDLING_MODE_NONE;
  param.err_handler = {.cb = &UcxPeer::failed, .arg = this};
  if (const ucs_status_t status = ucp_ep_create(worker_.handle(), &param, &endpoint_); status != UCS_OK) {
    endpoint_ = nullptr;
    throw Error(
        ErrorCode::kUnavailable,
        ucx_message(format("ucx transport: no route from rank {} to rank {} with the transports and devices of both",
                           self_, rank_),
                    status));
  }
  tell(kUcxHello);
}

Status UcxPeer::refuse_gone() const {
  return {ErrorCode::kUnavailable, format("peer {} is gone", rank_)};
}

Status UcxPeer::post_send(std::span<const std::byte> message, OperationId operation, ucp_mem_h region) {
  if (gone_) return refuse_gone();
  if (sends_posted_ - sends_reported_ == sends_.size())
    return {ErrorCode::kOutOfResources,
            format("peer {} has {} sends in flight, limit is {} (sends_max)", rank_, sends_.size(), sends_.size())};
  Send& send = this->send(sends_posted_);
  send = {
      .header = {.token = token_out_, .number = sends_posted_, .from = self_}, .operation = operation, .busy = true};
  ++sends_posted_;
  ucp_request_param_t param = with_callback(&send);
  param.cb.send = &UcxPeer::sent;
  add_region(param, region);
  if (message.empty()) never_fetched(param);
  const ucs_status_ptr_t request =
      ucp_am_send_nbx(endpoint_, kUcxMessage, &send.header, sizeof send.header, message.data(), message.size(), &param);
  if (!UCS_PTR_IS_PTR(request)) send.busy = false;
  if (UCS_PTR_IS_ERR(request)) lose();
  return Status::ok();
}

Status UcxPeer::post_receive(std::span<std::byte> buffer, OperationId operation, ucp_mem_h region) {
  if (gone_) return refuse_gone();
  if (receives_posted_ - receives_reported_ == receives_.size())
    return {ErrorCode::kOutOfResources, format("peer {} has {} receives in flight, limit is {} (receives_max)", rank_,
                                               receives_.size(), receives_.size())};
  receive(receives_posted_) = {.buffer = buffer, .operation = operation, .region = region, .peer = this};
  ++receives_posted_;
  return Status::ok();
}

std::size_t UcxPeer::take(std::span<TransportEvent> out) {
  std::size_t count = 0;
  while (count < out.size() && sends_reported_ < sends_posted_) {
    const Send& send = this->send(sends_reported_);
    const bool arrived = sends_reported_ < sends_finished_;
    if (held(send.busy) || (!arrived && !gone_)) break;
    out[count++] = {.kind = arrived ? TransportEvent::Kind::kSent : TransportEvent::Kind::kPeerGone,
                    .peer = rank_,
                    .operation = send.operation};
    ++sends_reported_;
  }
  while (count < out.size() && receives_reported_ < receives_posted_) {
    const Receive& receive = this->receive(receives_reported_);
    if (held(receive.busy) || (!receive.done && !gone_)) break;
    using Kind = TransportEvent::Kind;
    const Kind filled = receive.truncated ? Kind::kTruncated : Kind::kReceived;
    out[count++] = {.kind = receive.done ? filled : Kind::kPeerGone,
                    .peer = rank_,
                    .operation = receive.operation,
                    .bytes = receive.bytes};
    ++receives_reported_;
  }
  return count;
}

void UcxPeer::go_on() {
  match();
  while (finished_ < matched_ && receive(finished_).done) ++finished_;
  if (gone_) {
    close();
  } else if (endpoint_ && told_ < finished_ && !own_.busy) {
    told_ = finished_;
    tell(kUcxFinished);
  }
}

// Gives receives the messages that wait for them.
void UcxPeer::match() {
  while (!gone_ && matched_ < receives_posted_ && arrival(matched_).there) {
    Receive& receive = this->receive(matched_);
    Arrival& arrival = this->arrival(matched_);
    arrival.there = false;
    ++matched_;
    if (arrival.rendezvous) {
      fetch(receive, arrival);
    } else {
      deliver(receive, arrival.copy.data(), arrival.bytes);
    }
  }
}

void UcxPeer::deliver(Receive& receive, const std::byte* data, std::size_t bytes) {
  receive.bytes = std::min(bytes, receive.buffer.size());
  receive.truncated = bytes > receive.buffer.size();
  if (receive.bytes > 0) std::memcpy(receive.buffer.data(), data, receive.bytes);
  receive.done = true;
}

// A large message comes straight into the buffer; one that does not fit comes whole beside it, since UCX cannot cut.
void UcxPeer::fetch(Receive& receive, Arrival& arrival) {
  receive.bytes = arrival.bytes;
  receive.truncated = arrival.bytes > receive.buffer.size();
  receive.arrival = static_cast<std::size_t>(&arrival - arrivals_.data());
  receive.busy = true;
  std::span<std::byte> into = receive.buffer.first(std::min(arrival.bytes, receive.buffer.size()));
  ucp_request_param_t param = with_callback(&receive);
  param.cb.recv_am = &UcxPeer::fetched;
  if (receive.truncated) {
    arrival.copy.resize(arrival.bytes);
    into = arrival.copy;
  } else {
    add_region(param, receive.region);
  }
  param.op_attr_mask |= UCP_OP_ATTR_FLAG_NO_IMM_CMPL;
  const ucs_status_ptr_t request =
      ucp_am_recv_data_nbx(worker_.handle(), arrival.descriptor, into.data(), into.size(), &param);
  if (!UCS_PTR_IS_ERR(request)) return;
  receive.busy = false;
  lose();
}

void UcxPeer::fetched(void* request, ucs_status_t status, std::size_t, void* user_data) {
  Receive& receive = *static_cast<Receive*>(user_data);
  receive.busy = false;
  if (status != UCS_OK) {
    receive.peer->lose();
  } else if (receive.truncated) {
    const std::vector<std::byte>& whole = receive.peer->arrivals_[receive.arrival].copy;
    receive.peer->deliver(receive, whole.data(), whole.size());
  } else {
    receive.done = true;
  }
  if (request) ucp_request_free(request);
}

ucs_status_t UcxPeer::on_message(std::uint64_t number, void* data, std::size_t bytes, bool rendezvous) {
  // A window of sends_max: what is below has been matched, what is above the peer may not have sent yet.
  if (gone_) return UCS_OK;
  if (number < matched_ || number - matched_ >= arrivals_.size() || arrival(number).there ||
      bytes > message_bytes_max_) {
    lose();
    return UCS_OK;
  }
  if (!rendezvous && number == matched_ && matched_ < receives_posted_) {
    deliver(receive(matched_++), static_cast<const std::byte*>(data), bytes);
    return UCS_OK;
  }
  Arrival& arrival = this->arrival(number);
  arrival.there = true;
  arrival.rendezvous = rendezvous;
  arrival.bytes = bytes;
  arrival.descriptor = rendezvous ? data : nullptr;
  if (rendezvous) return UCS_INPROGRESS;  // kept until fetched or released
  const auto* begin = static_cast<const std::byte*>(data);
  arrival.copy.assign(begin, begin + bytes);
  return UCS_OK;
}

void UcxPeer::on_finished(std::uint64_t number) {
  if (number < sends_finished_ || number > sends_posted_) {
    lose();
  } else if (!gone_) {
    sends_finished_ = number;
  }
}

void UcxPeer::on_bye(std::uint64_t number) {
  on_finished(number);
  lose();
}

void UcxPeer::tell(unsigned id) {
  own_ = {.header = {.token = token_out_, .number = finished_, .from = self_}, .busy = true};
  ucp_request_param_t param = with_callback(&own_);
  param.cb.send = &UcxPeer::told;
  never_fetched(param);
  const ucs_status_ptr_t request = ucp_am_send_nbx(endpoint_, id, &own_.header, sizeof own_.header, nullptr, 0, &param);
  if (!UCS_PTR_IS_PTR(request)) own_.busy = false;
  if (UCS_PTR_IS_ERR(request)) lose();
}

void UcxPeer::sent(void* request, ucs_status_t, void* send) {
  // What failed is told by `failed`; what did not is sent when the peer says so.
  static_cast<Send*>(send)->busy = false;
  ucp_request_free(request);
}

void UcxPeer::told(void* request, ucs_status_t, void* control) {
  static_cast<Control*>(control)->busy = false;
  ucp_request_free(request);
}

void UcxPeer::failed(void* peer, ucp_ep_h, ucs_status_t) {
  static_cast<UcxPeer*>(peer)->lose();
}

void UcxPeer::lose() {
  gone_ = true;
}

void UcxPeer::leave() {
  release_arrivals();
  if (endpoint_ && !gone_ && !own_.busy) tell(kUcxBye);
}

void UcxPeer::close() {
  if (endpoint_ && notices_death_) {
    ucp_request_param_t param = {};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = UCP_EP_CLOSE_FLAG_FORCE;
    closing_ = ucp_ep_close_nbx(endpoint_, &param);
    endpoint_ = nullptr;
    if (!UCS_PTR_IS_PTR(closing_)) closing_ = nullptr;
  }
  if (closing_ && ucp_request_check_status(closing_) != UCS_INPROGRESS) {
    ucp_request_free(closing_);
    closing_ = nullptr;
  }
}

}  // namespace tandem
