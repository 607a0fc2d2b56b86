// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A transport that loses, delays, repeats and damages what is sent through it, and dies when told: recovery code that
// never runs does not work. It wraps any other transport and acts on the sending side only; what it does follows from
// the policy, the seed, the order of the posts and the clock handed in.
//
// It is a tool for tests and the simulator, made to be repeatable and not to be fast. With an empty policy it is the
// inner transport, which tests/transport holds it to.
//
// A message with rows on a device is dropped, or the last before the end, or goes unharmed: it is not copied.
//
// A message that is delayed, repeated or damaged travels as a copy, in memory of our own with named bounds. As far as
// the caller is told it is sent when copied, like a message that a network card has taken. A dropped message is sent
// too.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/rng.h"
#include "transport/transport.h"

namespace tandem {

struct FaultPolicy {
  // Probabilities per message, drawn one by one. A dropped message has no other fault.
  double drop = 0;
  double delay = 0;
  double duplicate = 0;
  double corrupt = 0;  // one random bit is flipped

  Nanoseconds delay_by = 0;  // messages sent meanwhile overtake the delayed one
  // After so many messages the endpoint dies: the inner transport is destroyed, so that all peers see this one gone,
  // and everything posted here, the message that was one too many included, ends as kPeerGone.
  std::optional<std::uint64_t> fail_after;
  // Which messages the policy is for, and counts; unless given, all.
  std::function<bool(PeerRank to, std::span<const std::byte> message)> applies;

  // Room for copies, used when delay, duplicate or corrupt are above 0. Copies count as sends of the inner transport,
  // therefore capabilities().sends_max is smaller by copies_max. A message that finds no room goes unharmed (uncopied).
  std::int32_t copies_max = 16;
  std::size_t copy_bytes_max = std::size_t{1} << 20;
};

// What a FaultyTransport did.
struct FaultCounts {
  std::uint64_t messages = 0;  // that the policy applied to
  std::uint64_t dropped = 0;
  std::uint64_t delayed = 0;
  std::uint64_t duplicated = 0;
  std::uint64_t corrupted = 0;
  std::uint64_t uncopied = 0;
};

class FaultyTransport final : public Transport {
 public:
  // The clock must outlive the transport. Throws Error{kInvalidArgument} for a policy that makes no sense.
  FaultyTransport(std::unique_ptr<Transport> inner, FaultPolicy policy, std::uint64_t seed, const Clock& clock);

  TransportCapabilities capabilities() const override { return capabilities_; }
  PeerRank rank() const override { return rank_; }
  std::int32_t peers() const override { return peers_; }
  Status register_region(std::span<std::byte> region) override;
  // With room for copies, the copies_max highest operation ids are the transport's own, and refused.
  Status post_send(PeerRank to, std::span<const std::byte> message, OperationId operation) override;
  Status post_receive(PeerRank from, std::span<std::byte> buffer, OperationId operation) override;
  Status post_send_rows(PeerRank to, std::span<const std::byte> message, std::span<const std::byte> rows,
                        OperationId operation) override;
  Status post_receive_rows(PeerRank from, std::span<std::byte> buffer, std::span<std::byte> rows,
                           OperationId operation) override;
  std::size_t poll(std::span<TransportEvent> events, Nanoseconds wait) override;
  void wake() override;

  const FaultCounts& counts() const { return counts_; }
  bool failed() const { return inner_ == nullptr; }

 private:
  struct Operation {
    PeerRank peer;
    OperationId id;
    bool is_send;
  };
  struct Finished {
    TransportEvent event;
    bool of_send;
  };
  enum class CopyState { kFree, kDelayed, kPosted };
  struct Copy {
    CopyState state = CopyState::kFree;
    PeerRank to = 0;
    std::size_t bytes = 0;
    Nanoseconds due = 0;
    std::uint64_t order = 0;  // among copies that are due at the same time
  };

  Status check_post(PeerRank peer, OperationId operation) const;
  Status check_send(PeerRank to, std::span<const std::byte> message) const;
  // A message on its way in, with its rows where it has some.
  struct Outgoing {
    PeerRank to;
    std::span<const std::byte> message;
    OperationId operation;
    std::optional<std::span<const std::byte>> rows = std::nullopt;
  };
  Status post(const Outgoing& out);
  Status pass(const Outgoing& out);
  Status post_with_faults(const Outgoing& out);
  Copy* copy_of(const Outgoing& out);
  void finish(TransportEvent::Kind kind, const Operation& operation);
  void fail();

  std::span<std::byte> bytes_of(const Copy& copy);
  Copy* make_copy(PeerRank to, std::span<const std::byte> message);
  void flip_a_bit(std::span<std::byte> bytes);
  void post_copy(Copy& copy);
  Copy* next_due();
  void post_due_copies();

  std::size_t take_finished(std::span<TransportEvent> events);
  std::size_t keep_own(std::span<TransportEvent> events);
  void wait_without_inner(Nanoseconds wait);

  const FaultPolicy policy_;
  const Clock& clock_;
  Rng rng_;
  FaultCounts counts_;

  std::vector<Copy> copies_;
  std::vector<std::byte> copy_memory_;  // a region of inner_, which it outlives
  std::uint64_t copy_order_ = 0;

  std::vector<Operation> posted_;  // what inner_ holds for the caller
  std::deque<Finished> finished_;  // ended here, and not yet reported

  // wake comes from any thread and may meet fail, which destroys inner_: both hold the mutex.
  std::mutex mutex_;
  std::condition_variable woken_without_inner_;
  std::atomic<bool> woken_ = false;
  std::unique_ptr<Transport> inner_;  // null after fail

  TransportCapabilities capabilities_;
  const PeerRank rank_;
  const std::int32_t peers_;
};

}  // namespace tandem
