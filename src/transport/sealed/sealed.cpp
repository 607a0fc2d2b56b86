// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/sealed/sealed.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/format.h"

namespace tandem {
namespace {

constexpr std::size_t kBlockBytesMin = 4096;

}  // namespace

SealedTransport::SealedTransport(std::unique_ptr<Transport> inner)
    : inner_(std::move(inner)), ciphers_(static_cast<std::size_t>(inner_->peers())) {}

void SealedTransport::set_keys(PeerRank peer, const SecretKey& to, const SecretKey& from) {
  TANDEM_CHECK(peer >= 0 && peer < peers(), format("keys for rank {} of {} peers", peer, peers()));
  auto& ciphers = ciphers_[static_cast<std::size_t>(peer)];
  TANDEM_CHECK(!ciphers, format("keys for rank {} are said twice: counters would begin again", peer));
  ciphers.emplace(Ciphers{FrameCipher(FrameCipher::Side::kSeals, to), FrameCipher(FrameCipher::Side::kOpens, from)});
}

TransportCapabilities SealedTransport::capabilities() const {
  TransportCapabilities inner = inner_->capabilities();
  inner.zero_copy = false;
  inner.device_rows = false;
  inner.message_bytes_max -= std::min(inner.message_bytes_max, kSealBytes);
  return inner;
}

Status SealedTransport::register_region(std::span<std::byte> region) {
  regions_.push_back(region);
  return Status::ok();
}

Status SealedTransport::check_post(const char* what, PeerRank peer, std::span<const std::byte> bytes) const {
  if (peer < 0 || peer >= peers())
    return {ErrorCode::kInvalidArgument, format("{} names peer {}, limit is {} peers", what, peer, peers())};
  const auto holds = [bytes](std::span<const std::byte> region) {
    const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data()),
               start = reinterpret_cast<std::uintptr_t>(region.data());
    return begin >= start && begin - start <= region.size() && bytes.size() <= region.size() - (begin - start);
  };
  if (!bytes.empty() && std::ranges::none_of(regions_, holds))
    return {ErrorCode::kInvalidArgument, format("{} of {} bytes for peer {} is in none of {} registered regions", what,
                                                bytes.size(), peer, regions_.size())};
  if (!ciphers_[static_cast<std::size_t>(peer)]) return {ErrorCode::kUnavailable, format("peer {} has no keys", peer)};
  return Status::ok();
}

// The smallest free one that is large enough, or a new one: for sends by powers of two, so that messages of any length
// soon find one.
Result<std::size_t> SealedTransport::take_block(std::size_t bytes, bool of_send) {
  std::size_t best = blocks_.size();
  for (std::size_t i = 0; i < blocks_.size(); ++i)
    if (!blocks_[i].taken && blocks_[i].bytes >= bytes &&
        (best == blocks_.size() || blocks_[i].bytes < blocks_[best].bytes))
      best = i;
  if (best == blocks_.size()) {
    const std::size_t size = std::max(of_send ? std::bit_ceil(bytes) : bytes, kBlockBytesMin);
    Block block{.memory = std::make_unique_for_overwrite<std::byte[]>(size), .bytes = size};
    if (Status known = inner_->register_region({block.memory.get(), size}); !known)
      return {known.error().code(), known.error().message()};
    blocks_.push_back(std::move(block));
  }
  blocks_[best].taken = true;
  return best;
}

std::size_t SealedTransport::add(Posted posted) {
  posted.under_way = true;
  const auto free = std::ranges::find(posted_, false, &Posted::under_way);
  const auto index = static_cast<std::size_t>(free - posted_.begin());
  if (free == posted_.end())
    posted_.push_back(posted);
  else
    *free = posted;
  return index;
}

Status SealedTransport::end_unposted(std::size_t index, Status why) {
  blocks_[posted_[index].block].taken = false;
  posted_[index].under_way = false;
  return why;
}

Status SealedTransport::post_send(PeerRank to, std::span<const std::byte> message, OperationId operation) {
  if (Status status = check_post("message", to, message); !status) return status;
  if (const std::size_t bytes_max = capabilities().message_bytes_max; message.size() > bytes_max)
    return {ErrorCode::kInvalidArgument,
            format("message to peer {} has {} bytes, limit is {} (message_bytes_max)", to, message.size(), bytes_max)};
  Result<std::size_t> block = take_block(message.size() + kSealBytes, true);
  if (!block) return {block.error().code(), block.error().message()};
  const std::size_t index = add({.buffer = {}, .operation = operation, .block = block.value(), .is_send = true});
  const std::span<std::byte> sealed(blocks_[block.value()].memory.get(), message.size() + kSealBytes);
  if (Status status = ciphers_[static_cast<std::size_t>(to)]->to.seal(message, sealed); !status)
    return end_unposted(index, std::move(status));
  // A counter that is not used is not missed.
  if (Status status = inner_->post_send(to, sealed, index); !status) return end_unposted(index, std::move(status));
  return Status::ok();
}

Status SealedTransport::post_receive(PeerRank from, std::span<std::byte> buffer, OperationId operation) {
  if (Status status = check_post("receive buffer", from, buffer); !status) return status;
  Result<std::size_t> block = take_block(buffer.size() + kSealBytes, false);
  if (!block) return {block.error().code(), block.error().message()};
  const std::size_t index = add({.buffer = buffer, .operation = operation, .block = block.value()});
  const Block& into = blocks_[block.value()];
  Status status = inner_->post_receive(from, {into.memory.get(), into.bytes}, index);
  return status ? std::move(status) : end_unposted(index, std::move(status));
}

std::size_t SealedTransport::poll(std::span<TransportEvent> events, Nanoseconds wait) {
  const std::size_t count = inner_->poll(events, wait);
  for (TransportEvent& event : events.first(count)) {
    Posted& posted = posted_[event.operation];
    Block& block = blocks_[posted.block];
    if (event.kind == TransportEvent::Kind::kReceived || event.kind == TransportEvent::Kind::kTruncated)
      open(event, posted, {block.memory.get(), event.bytes});
    event.operation = posted.operation;
    block.taken = false;
    posted.under_way = false;
  }
  return count;
}

void SealedTransport::open(TransportEvent& event, const Posted& posted, std::span<std::byte> sealed) {
  const auto refuse = [&](std::string why) {
    event.kind = TransportEvent::Kind::kTruncated;
    event.bytes = 0;
    ++refused_;
    last_refusal_ = std::move(why);
  };
  // What was cut has lost its tag.
  if (event.kind == TransportEvent::Kind::kTruncated) return refuse("sealed frame: longer than its receive");
  FrameCipher& cipher = ciphers_[static_cast<std::size_t>(event.peer)]->from;
  const std::size_t bytes = sealed.size() - std::min(sealed.size(), kSealBytes);
  if (bytes <= posted.buffer.size()) {
    if (Status opened = cipher.open(sealed, posted.buffer.first(bytes)); !opened)
      return refuse(opened.error().message());
    event.bytes = bytes;
    return;
  }
  std::vector<std::byte> whole(bytes);  // longer than it should be: the exception
  if (Status opened = cipher.open(sealed, whole); !opened) return refuse(opened.error().message());
  if (!posted.buffer.empty()) std::memcpy(posted.buffer.data(), whole.data(), posted.buffer.size());
  event.kind = TransportEvent::Kind::kTruncated;
  event.bytes = posted.buffer.size();
}

}  // namespace tandem
