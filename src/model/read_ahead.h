// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Reads a checkpoint's files ahead of the loader, so that the disk works while weights are packed.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/share.h"
#include "model/weight_reader.h"

namespace tandem {

struct Stretch {
  const TensorInfo* tensor;
  std::uint64_t offset, bytes;  // within the tensor
};

// What a model reads, in about the order in which it does: tensors as they were declared, but those that hold all
// experts of a layer expert by expert, and only the experts of the share.
std::vector<Stretch> reading_order(const Checkpoint& checkpoint, const WeightReader& declared, const ModelShare& share);

// A thread that asks for one stretch after the other, as long as no more than kReadAheadBytes are asked for and not yet
// loaded.
class ReadAhead {
 public:
  // start asks the kernel for a stretch, of at most kReadAheadPieceBytes; called on the thread.
  ReadAhead(std::vector<Stretch> order, std::function<void(const Stretch&)> start);
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // So many more bytes were loaded.
  void advance(std::int64_t bytes);

 private:
  void run();
  bool may_start(std::uint64_t bytes);

  const std::vector<Stretch> order_;
  const std::function<void(const Stretch&)> start_;
  std::mutex mutex_;  // guards what is below
  std::condition_variable changed_;
  std::int64_t ahead_ = 0;
  bool ended_ = false;
  std::thread thread_;  // last: it uses the others
};

inline constexpr std::int64_t kReadAheadBytes = 64 << 20;
inline constexpr std::int64_t kReadAheadPieceBytes = 4 << 20;

}  // namespace tandem
