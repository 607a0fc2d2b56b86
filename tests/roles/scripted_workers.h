// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Workers of a deployment as far as a front can see them, in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/format.h"
#include "tests/roles/told_channel.h"

namespace tandem {

inline std::vector<std::byte> bytes_of(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// One of them. It answers by itself unless told otherwise.
struct ScriptedWorker {
  Identity identity;
  std::int32_t rank = 0, says_rank = 0;
  bool listens = true, answers = true, introduces = true, gets_ready = true, yields = true;
  std::uint32_t pages = 0;  // of each request that it gives up
  std::int32_t dialed = 0;
  std::shared_ptr<ToldWire> wire = std::make_shared<ToldWire>();  // of the last channel to it
  std::size_t answered = 0;                                       // of the wire's messages
  std::uint32_t epoch = 0;                                        // that was prepared last

  void say(ControlMessage message) const { wire->coming.push_back(std::move(message)); }
  void die() {
    listens = false;
    wire->end = Status(ErrorCode::kUnavailable, "it closed the connection");
  }
  void answer() {
    for (; answers && !wire->closed && answered < wire->sent.size(); ++answered) {
      const ControlMessage& message = wire->sent[answered];
      if (std::holds_alternative<Greeting>(message)) say(Welcome{.identity = identity, .rank = says_rank});
      if (const auto* prepare = std::get_if<Prepare>(&message)) {
        epoch = prepare->epoch;
        if (introduces) say(addresses(*prepare));
      }
      if (const auto* connect = std::get_if<Connect>(&message); connect && gets_ready) say(Ready{connect->epoch});
      if (const auto* yield = std::get_if<Yield>(&message); yield && yields) {
        for (std::uint32_t page = 0; page < pages; ++page)
          say(Page{epoch, yield->id, page, true, bytes_of(format("page {} of {}", page, yield->id))});
        say(Yielded{epoch, yield->id});
      }
    }
  }
  Addresses addresses(const Prepare& prepare) const {
    Addresses addresses{.epoch = prepare.epoch, .introductions = {}};
    for (std::size_t peer = 0; peer < prepare.present.size(); ++peer)
      addresses.introductions.push_back({.hello = bytes_of(format("{} to {}", rank, peer)), .key_share = {}});
    return addresses;
  }
};

class ScriptedWorkers final : public ControlDialer {
 public:
  std::unique_ptr<ControlChannel> dial(const WorkerPlace& place, std::string& why) override {
    ScriptedWorker& worker = all[static_cast<std::size_t>(place.rank)];
    ++worker.dialed;
    if (!worker.listens) {
      why = "nobody listens there";
      return nullptr;
    }
    worker.wire = std::make_shared<ToldWire>();
    worker.answered = 0;
    return std::make_unique<ToldChannel>(worker.wire);
  }
  std::vector<ScriptedWorker> all;
};

}  // namespace tandem
