// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// One peer of an endpoint: what is posted with it, what came from it, and what each side owes the other (rules: ucx.h).
//
// Message n fills receive n, and both lie at n modulo the size of their ring. Three numbers walk along the receives:
// reported ≤ finished ≤ posted; `matched` between reported and posted is the next to get its message. The peer hears
// `finished`, which tells it what counts as sent. Events come in the order of the posts.
#pragma once

#include <ucp/api/ucp.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "transport/transport.h"
#include "transport/ucx/ucx_worker.h"

namespace tandem {

// Ahead of every active message.
struct UcxHeader {
  std::uint64_t token = 0;
  std::uint64_t number = 0;  // kMessage: which one; kFinished, kBye: how many messages of the receiver are in place
  std::int32_t from = 0;
  std::uint32_t reserved = 0;
};
enum UcxMessageId : unsigned { kUcxMessage = 1, kUcxFinished = 2, kUcxBye = 3, kUcxHello = 4 };

// Outlives the worker.
class UcxPeer {
 public:
  UcxPeer(UcxWorker& worker, PeerRank self, PeerRank rank, const UcxConfig& config);
  UcxPeer(const UcxPeer&) = delete;
  UcxPeer& operator=(const UcxPeer&) = delete;

  std::uint64_t token_of_peer() const { return token_in_; }  // that it has to show
  // Throws Error{kUnavailable} when no transport reaches it.
  void connect(std::span<const std::byte> address, std::uint64_t token);
  bool connected() const { return endpoint_ != nullptr || gone_; }
  bool ready() const { return heard_ || gone_; }
  bool gone() const { return gone_; }

  Status post_send(std::span<const std::byte> message, OperationId operation, ucp_mem_h region);
  Status post_receive(std::span<std::byte> buffer, OperationId operation, ucp_mem_h region);
  // Moves events into out, oldest first, and returns how many.
  std::size_t take(std::span<TransportEvent> out);
  // After UCX made progress: fills receives, tells the peer, closes what is gone.
  void go_on();
  void lose();  // the peer is gone
  // Says good-bye. leaving: UCX still has something under way that this side ends.
  void leave();
  bool leaving() const { return closing_ != nullptr || own_.busy; }
  // Ends what UCX has under way, so that its buffers come back; called until it is no longer leaving.
  void close();
  // The senders of large messages that nobody fetches get their buffers back.
  void release_arrivals();

  // From UCX, within progress or the worker's end. The header's token has been checked.
  ucs_status_t on_message(std::uint64_t number, void* data, std::size_t bytes, bool rendezvous);
  void on_finished(std::uint64_t number);
  void on_bye(std::uint64_t number);
  void on_hello() { heard_ = true; }

 private:
  struct Send {
    UcxHeader header;
    OperationId operation = 0;
    bool busy = false;  // UCX has the buffer
  };
  struct Receive {
    std::span<std::byte> buffer;
    OperationId operation = 0;
    ucp_mem_h region = nullptr;
    std::size_t bytes = 0;
    bool busy = false;  // UCX fills it
    bool done = false;
    bool truncated = false;
    std::size_t arrival = 0;
    UcxPeer* peer = nullptr;
  };
  struct Arrival {
    bool there = false;
    bool rendezvous = false;
    void* descriptor = nullptr;  // of a rendezvous
    std::size_t bytes = 0;
    std::vector<std::byte> copy;  // of a small message without receive, or all of a large one that does not fit
  };
  struct Control {
    UcxHeader header;
    bool busy = false;
  };

  bool held(bool busy) const { return busy && !(gone_ && !notices_death_); }
  Send& send(std::uint64_t number) { return sends_[number % sends_.size()]; }
  Receive& receive(std::uint64_t number) { return receives_[number % receives_.size()]; }
  Arrival& arrival(std::uint64_t number) { return arrivals_[number % arrivals_.size()]; }

  void match();
  void deliver(Receive& receive, const std::byte* data, std::size_t bytes);
  void fetch(Receive& receive, Arrival& arrival);
  void tell(unsigned id);
  Status refuse_gone() const;

  static void sent(void* request, ucs_status_t status, void* send);
  static void told(void* request, ucs_status_t status, void* control);
  static void fetched(void* request, ucs_status_t status, std::size_t bytes, void* receive);
  static void failed(void* peer, ucp_ep_h endpoint, ucs_status_t status);

  UcxWorker& worker_;
  const PeerRank self_, rank_;
  const std::size_t message_bytes_max_;
  const bool notices_death_;  // else UCX ends nothing of a peer that is gone, and does nothing more for it either
  const std::uint64_t token_in_;
  std::uint64_t token_out_ = 0;
  ucp_ep_h endpoint_ = nullptr;
  ucs_status_ptr_t closing_ = nullptr;
  bool heard_ = false, gone_ = false;

  std::vector<Send> sends_;
  std::uint64_t sends_posted_ = 0, sends_finished_ = 0, sends_reported_ = 0;
  std::vector<Receive> receives_;
  std::vector<Arrival> arrivals_;
  std::uint64_t receives_posted_ = 0, matched_ = 0, finished_ = 0, receives_reported_ = 0;
  std::uint64_t told_ = 0;  // of finished_
  Control own_;             // one control message is under way at a time
};

}  // namespace tandem
