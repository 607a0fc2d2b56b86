// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Timelines of workers, written as Chrome/Perfetto JSON. Each worker owns a Track and records spans into memory that
// was set aside; when it is full, later spans are counted and dropped. Without a trace a track is null and costs one
// branch.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"

namespace tandem {

class TraceTrack {
 public:
  struct Span {
    std::string_view name;  // of a literal
    Nanoseconds begin, end;
    std::uint64_t step;
    std::int32_t layer, micro_batch, rows;
  };
  TraceTrack(std::string name, std::size_t spans_max) : name_(std::move(name)), spans_max_(spans_max) {
    spans_.reserve(spans_max);
  }
  void record(const Span& span) {
    if (spans_.size() < spans_max_)
      spans_.push_back(span);
    else
      ++dropped_;
  }
  const std::string& name() const { return name_; }
  const std::vector<Span>& spans() const { return spans_; }
  std::uint64_t dropped() const { return dropped_; }

 private:
  std::string name_;
  std::size_t spans_max_;
  std::vector<Span> spans_;
  std::uint64_t dropped_ = 0;
};

class Trace {
 public:
  static constexpr std::size_t kSpansMax = 400'000;  // per track, about 20 MB each when full
  // Before the workers start.
  TraceTrack* add_track(const std::string& name);
  // After the workers have stopped.
  Status write(const std::string& path) const;

 private:
  std::vector<std::unique_ptr<TraceTrack>> tracks_;
};

}  // namespace tandem
