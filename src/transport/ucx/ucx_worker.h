// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What an endpoint has of UCX: a context with its options, one worker, memory made known to it, and waiting. Frees what
// it made. One thread, wake excepted.
#pragma once

#include <ucp/api/ucp.h>

#include <atomic>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "transport/ucx/ucx.h"

namespace tandem {

// "what: UCX's words for status".
std::string ucx_message(std::string_view what, ucs_status_t status);

class UcxWorker {
 public:
  // Throws as UcxTransport::make.
  explicit UcxWorker(const UcxConfig& config);
  ~UcxWorker();
  UcxWorker(const UcxWorker&) = delete;
  UcxWorker& operator=(const UcxWorker&) = delete;

  ucp_worker_h handle() const { return worker_; }
  std::vector<std::byte> address() const;
  void handle_messages(unsigned id, ucp_am_recv_callback_t callback, void* argument);

  // Maps the region, and remembers it. Takes its time: while set up, or once for memory that grows.
  Status register_region(std::span<std::byte> region);
  std::size_t regions() const { return regions_.size(); }
  // The handle of the region that holds these bytes; nullptr when none does.
  ucp_mem_h region_of(std::span<const std::byte> bytes) const;

  // Everything that is there to be done.
  void progress();
  // Sleeps until UCX has something, a wake, or the time is over.
  void sleep(Nanoseconds time);
  // A wake since the last call; forgets it.
  bool take_wake();
  void wake();  // any thread

 private:
  struct Region {
    std::span<const std::byte> bytes;
    ucp_mem_h handle;
  };

  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  int ucx_events_ = -1;  // UCX's descriptor
  int wakes_ = -1;       // an eventfd
  std::atomic<bool> woken_ = false;
  std::vector<Region> regions_;
};

}  // namespace tandem
