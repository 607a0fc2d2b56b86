// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What the front and the workers of a deployment say to each other over their control connection: who they are, how a
// deployment is formed, requests and their news. Hand-overs do not pass here.
//
//   front                         worker
//   Greeting            →                                 who I am, and which rank I mean
//                       ←   Welcome or Refusal            the same of the worker, or why not
//   Prepare             →                                 epoch, its session number, and who takes part: whatever ran
//                                                         before is dropped
//                       ←   Addresses                     what each peer has to get (transport/ucx/hello.h)
//   Connect             →                                 those of the peers
//                       ←   Ready
//   Rows, Submit, Cancel →                                to attention workers (request_parcel.h)
//                       ←   News
//   Yield               →                                 to an attention worker: another one takes this request
//                       ←   Page, Yielded                 its KV, after all news of it; what there is of it
//   Page                →                                 to that other one, ahead of the Submit
//   Dissolve            →                                 somebody is gone: drop what runs
//   Beat                →   ← Report                      at least every heartbeat_ms
//
//   tandem ctl                    front
//   Order               →
//                       ←   Told or Refusal
//
// Where the deployment has trust, all of that passes within TLS, and so do the numbers and keys that hand-overs are
// known by: the session number in every frame, the tokens in the hellos, and the shares of the keys that seal frames.
//
// On the wire: a header of 16 bytes (magic, kind, length), then the fields in order, little-endian; lists and texts
// with their length before them. parse_control takes bytes from outside: every length is checked before memory is
// taken. Of another version's Greeting and Welcome only the version is read, so that it can be refused for that.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/error.h"
#include "sched/request.h"
#include "sched/scheduler.h"

namespace tandem {

inline constexpr std::uint32_t kControlVersion = 4;
inline constexpr std::size_t kControlHeaderBytes = 16;
inline constexpr std::size_t kControlBytesMax = 64 << 20;   // of one message without its header
inline constexpr std::size_t kGreetingBytesMax = 64 << 10;  // of one from who has not been greeted yet

// What all processes of a deployment have in common. Two that differ refuse each other.
struct Identity {
  std::uint32_t version = kControlVersion;
  std::string deployment;      // its name
  std::string layout;          // 2A1F
  std::string numbers;         // types of KV and activations
  std::string links;           // whether frames are sealed
  std::uint64_t settings = 0;  // checksum of all that the deployment file says
  std::uint64_t model = 0;     // fingerprint of the checkpoint

  bool operator==(const Identity&) const = default;
};

struct Greeting {
  Identity identity;
  std::int32_t rank = 0;  // that the front means
  bool operator==(const Greeting&) const = default;
};
struct Welcome {
  Identity identity;
  std::int32_t rank = 0;
  std::int64_t process = 0;
  std::int64_t weight_bytes = 0;
  std::int64_t kv_tokens = 0;  // attention workers
  std::string backend;
  bool operator==(const Welcome&) const = default;
};
struct Refusal {
  ErrorCode code = ErrorCode::kInternal;
  std::string why;
  bool operator==(const Refusal&) const = default;
};
struct Prepare {
  std::uint32_t epoch = 0;
  std::uint64_t session = 0;          // of this epoch alone, and not to be guessed; in every frame
  std::vector<std::uint8_t> present;  // by seat (deploy/deployment.h): 1: somebody has it
  bool operator==(const Prepare&) const = default;
};
// From one worker to another.
struct Introduction {
  std::vector<std::byte> hello;      // empty: they do not meet
  std::vector<std::byte> key_share;  // where frames are sealed (trust/frame_cipher.h)
  bool operator==(const Introduction&) const = default;
};
struct Addresses {
  std::uint32_t epoch = 0;
  std::vector<Introduction> introductions;  // by seat of who gets it
  bool operator==(const Addresses&) const = default;
};
struct Connect {
  std::uint32_t epoch = 0;
  std::vector<Introduction> introductions;  // by seat of who it is from
  bool operator==(const Connect&) const = default;
};
struct Ready {
  std::uint32_t epoch = 0;
  bool operator==(const Ready&) const = default;
};
struct Dissolve {
  bool operator==(const Dissolve&) const = default;
};
// Rows made elsewhere, or some of them, for the Submit that follows.
struct Rows {
  bool begins = true;                     // false: goes on with the rows of the one before
  std::array<std::uint8_t, 32> digest{};  // of all of them
  std::int64_t hidden = 0;
  std::vector<float> values;  // [rows, hidden]
  bool operator==(const Rows&) const = default;
};
struct Submit {
  Request request;                           // spans of embedded rows without rows, and no constraint
  std::vector<std::uint32_t> contents = {};  // by span: which of those that came ahead it takes of
  std::optional<ConstraintRecipe> constraint = {};
};
struct Cancel {
  RequestId id = 0;
  bool operator==(const Cancel&) const = default;
};
struct News {
  std::uint32_t epoch = 0;
  RequestEvent event;
};
struct Yield {
  RequestId id = 0;
  bool operator==(const Yield&) const = default;
};
// A piece of the KV of one block of a request, which is a page in canonical form (engine/attention/attention_worker.h):
// blocks in order, and the pieces of each.
struct Page {
  std::uint32_t epoch = 0;
  RequestId id = 0;
  std::uint32_t index = 0;
  bool last = true;  // piece of the block
  std::vector<std::byte> bytes;
  bool operator==(const Page&) const = default;
};
struct Yielded {
  std::uint32_t epoch = 0;
  RequestId id = 0;
  bool operator==(const Yielded&) const = default;
};
// Counters of a worker (WorkerStats).
struct Report {
  std::int64_t steps = 0, rows = 0, busy_ns = 0, wait_ns = 0, resends = 0, frames_refused = 0;
  Scheduler::Load load;  // of attention workers
};
struct Beat {
  bool operator==(const Beat&) const = default;
};
// To a running front, from tandem ctl (roles/front_control.h).
enum class OrderKind : std::uint8_t { kStatus, kDrain, kAdd };
struct Order {
  std::uint32_t version = kControlVersion;
  std::string deployment;  // its name
  OrderKind kind = OrderKind::kStatus;
  std::int32_t rank = 0;  // of whom; not of kStatus
  bool operator==(const Order&) const = default;
};
// Its answer, where it is no Refusal: JSON.
struct Told {
  std::string json;
  bool operator==(const Told&) const = default;
};

using ControlMessage = std::variant<Greeting, Welcome, Refusal, Prepare, Addresses, Connect, Ready, Dissolve, Submit,
                                    Cancel, News, Report, Beat, Order, Told, Rows, Yield, Page, Yielded>;

// With its header.
std::vector<std::byte> to_bytes(const ControlMessage& message);

// The length of the message that begins with these bytes, header included; 0 when there are too few to tell. Refuses a
// wrong magic and a length above the limit.
Result<std::size_t> control_message_bytes(std::span<const std::byte> bytes, std::size_t bytes_max = kControlBytesMax);
// Of one whole message. Refuses an unknown kind, a length that is not the message's, values outside their range.
Result<ControlMessage> parse_control(std::span<const std::byte> bytes);

}  // namespace tandem
