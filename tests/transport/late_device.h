// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A device without one: work is done in order and as late as can be, when somebody waits for it; copies too, or as soon
// as can be. What is not ordered is then found in the wrong order every time, not now and then.
#pragma once

#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "tensor/copy_lane.h"

namespace tandem {

// Work in its order. Streams may wait for each other's.
class LateStream {
 public:
  // Returns its place.
  std::size_t give(std::function<void()> work) {
    const std::lock_guard lock(everything());
    work_.push_back(std::move(work));
    return work_.size();
  }
  std::size_t given() const {
    const std::lock_guard lock(everything());
    return work_.size();
  }
  void do_until(std::size_t place) {
    const std::lock_guard lock(everything());
    while (done_ < place) {
      const std::function<void()> next = std::move(work_[done_++]);
      next();
    }
  }
  void do_all() { do_until(given()); }

 private:
  // One for all streams: one's work may be another's.
  static std::recursive_mutex& everything() {
    static std::recursive_mutex mutex;
    return mutex;
  }
  std::vector<std::function<void()>> work_;
  std::size_t done_ = 0;
};

class LatePoint final : public CopyPoint {
 public:
  LatePoint(std::shared_ptr<LateStream> stream, std::size_t place) : stream_(std::move(stream)), place_(place) {}
  void reach() const { stream_->do_until(place_); }

 private:
  std::shared_ptr<LateStream> stream_;
  std::size_t place_;
};

class LateLane final : public CopyLane {
 public:
  explicit LateLane(std::shared_ptr<LateStream> stream, bool copies_early = false)
      : stream_(std::move(stream)), copies_early_(copies_early) {}

  void reach(const CopyLane&) override {}
  CopyPointPtr point() override { return std::make_shared<LatePoint>(stream_, stream_->given()); }
  CopyPointPtr copy(void* to, const void* from, std::size_t bytes, const CopyPoint& from_ready,
                    const CopyPoint& to_ready) override {
    const std::size_t place = copies_->give([=, from_point = as_late(from_ready), to_point = as_late(to_ready)] {
      from_point.reach();
      to_point.reach();
      std::memcpy(to, from, bytes);
    });
    if (copies_early_) copies_->do_until(place);
    return std::make_shared<LatePoint>(copies_, place);
  }
  void follow(const CopyPoint& point) override {
    stream_->give([late = as_late(point)] { late.reach(); });
  }
  void wait(const CopyPoint& point) override { as_late(point).reach(); }

 private:
  static LatePoint as_late(const CopyPoint& point) { return static_cast<const LatePoint&>(point); }

  std::shared_ptr<LateStream> stream_, copies_ = std::make_shared<LateStream>();
  bool copies_early_;
};

}  // namespace tandem
