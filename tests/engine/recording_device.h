// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A processor's backend that claims to be a device which records steps and waits for another's flags inside them: what
// a GPU does with them, in software. A step that is launched is what was recorded, and asks nobody; a wait blocks the
// thread that launched.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "engine/settings/engine_config.h"
#include "ops/forwarding.h"
#include "tests/engine/lasting_operators.h"
#include "tests/engine/late_backend.h"

namespace tandem {

using RecordedCalls = std::vector<std::function<void()>>;

// Words as on a GPU, under one lock for everybody.
class SoftwareFlags final : public StepFlags {
 public:
  // Calls go to *recording while it points somewhere.
  SoftwareFlags(RecordedCalls* const& recording, std::int32_t count, Nanoseconds patience)
      : recording_(recording), patience_(patience), flags_(static_cast<std::size_t>(count), 0) {}

  bool connect(StepFlags& other) override {
    other_ = static_cast<SoftwareFlags*>(&other);
    other_->other_ = this;
    return true;
  }
  bool same_memory(const StepFlags&) const override { return same_memory_; }
  void begin(std::uint64_t epoch) override {
    const std::lock_guard lock(everybody().mutex);
    epoch_ = epoch;
  }
  void raise(std::int32_t flag) override {
    give([this, flag] {
      const std::lock_guard lock(everybody().mutex);
      if (poisoned_ >= epoch_) return;
      std::uint64_t& word = other_->flags_.at(static_cast<std::size_t>(flag));
      word = epoch_;
      everybody().changed.notify_all();
    });
  }
  void wait(std::int32_t flag) override {
    give([this, flag] {
      std::unique_lock lock(everybody().mutex);
      const std::uint64_t& word = flags_.at(static_cast<std::size_t>(flag));
      const bool ended = everybody().changed.wait_for(lock, std::chrono::nanoseconds(patience_),
                                                      [&] { return word >= epoch_ || poisoned_ >= epoch_; });
      if (word >= epoch_) return;
      if (!ended) {
        for (SoftwareFlags* side : {this, other_}) side->poisoned_ = std::max(side->poisoned_, epoch_);
        everybody().changed.notify_all();
      }
      seen_ = std::max(seen_, epoch_);
    });
  }
  bool poisoned(std::uint64_t epoch) const override {
    const std::lock_guard lock(everybody().mutex);
    return seen_ >= epoch;
  }

  static inline bool same_memory_ = true;  // of all

 private:
  struct Everybody {
    std::mutex mutex;
    std::condition_variable changed;
  };
  static Everybody& everybody() {
    static Everybody all;
    return all;
  }
  void give(std::function<void()> call) {
    if (recording_)
      recording_->push_back(std::move(call));
    else
      call();
  }

  RecordedCalls* const& recording_;
  const Nanoseconds patience_;
  SoftwareFlags* other_ = nullptr;
  std::uint64_t epoch_ = 0, poisoned_ = 0, seen_ = 0;
  std::vector<std::uint64_t> flags_;
};

class RecordingDevice final : public LateBackend {
 public:
  RecordingDevice(std::unique_ptr<Backend> inner, bool behind) : LateBackend(std::move(inner)), behind_(behind) {}

  bool runs_behind() const override { return behind_; }
  void run(const Operator& op) override {
    if (recording_) return recording_->push_back([this, kept = lasting_.keep(op)] { ForwardingBackend::run(kept); });
    LateBackend::run(op);
  }
  void copy(void* to, const void* from, std::size_t bytes) override {
    if (recording_) return recording_->push_back([=, this] { ForwardingBackend::copy(to, from, bytes); });
    LateBackend::copy(to, from, bytes);
  }

  std::unique_ptr<StepFlags> make_step_flags(std::int32_t count, Nanoseconds patience) override {
    return std::make_unique<SoftwareFlags>(recording_, count, patience);
  }
  bool prepare(std::span<const std::int64_t> key, const std::function<void()>& record) override {
    const auto [step, is_new] = steps_.try_emplace(std::vector(key.begin(), key.end()));
    if (!is_new) return false;
    recording_ = &step->second;
    record();
    recording_ = nullptr;
    return true;
  }
  void launch(std::span<const std::int64_t> key) override {
    stream_->do_all();
    for (const std::function<void()>& call : steps_.at(std::vector(key.begin(), key.end()))) call();
  }

 private:
  const bool behind_;
  std::map<std::vector<std::int64_t>, RecordedCalls> steps_;
  RecordedCalls* recording_ = nullptr;
  LastingOperators lasting_;
};

// Counts launches, and does with each what it is told to. Passes on all that a device can do.
class WatchedDevice final : public ForwardingBackend {
 public:
  struct Watch {
    std::atomic<int> launches{0};
    std::function<bool(int launch)> goes;  // called first; false: this launch does not happen
  };
  WatchedDevice(std::unique_ptr<Backend> inner, Watch& watch) : ForwardingBackend(std::move(inner)), watch_(watch) {}

  bool runs_behind() const override { return inner().runs_behind(); }
  std::unique_ptr<Draw> begin(const Sample& op, const Tensor& ids) override { return inner().begin(op, ids); }
  std::unique_ptr<StepFlags> make_step_flags(std::int32_t count, Nanoseconds patience) override {
    return inner().make_step_flags(count, patience);
  }
  bool prepare(std::span<const std::int64_t> key, const std::function<void()>& record) override {
    return inner().prepare(key, record);
  }
  void launch(std::span<const std::int64_t> key) override {
    const int launch = ++watch_.launches;
    if (!watch_.goes || watch_.goes(launch)) inner().launch(key);
  }

 private:
  Watch& watch_;
};

}  // namespace tandem
