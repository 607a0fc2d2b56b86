// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "model/read_ahead.h"

#include <algorithm>

namespace tandem {

namespace {

// A tensor, or the scales of one, that has an expert on each place of its leading axis.
bool is_stacked(const TensorInfo& tensor, const TensorRole& role) {
  return role.part == Part::kExperts && tensor.shape.rank == 3 && tensor.shape[0] > 0;
}

}  // namespace

std::vector<Stretch> reading_order(const Checkpoint& checkpoint, const WeightReader& declared,
                                   const ModelShare& share) {
  std::vector<Stretch> order;
  std::vector<const TensorInfo*> stacked;  // of one layer
  const auto end_layer = [&] {
    for (std::int64_t e = 0; !stacked.empty() && e < stacked.front()->shape[0]; ++e) {
      if (!share.experts.owns(static_cast<std::int32_t>(e))) continue;
      for (const TensorInfo* tensor : stacked) {
        const std::uint64_t bytes = tensor->bytes / static_cast<std::uint64_t>(tensor->shape[0]);
        order.push_back({tensor, static_cast<std::uint64_t>(e) * bytes, bytes});
      }
    }
    stacked.clear();
  };
  for (std::size_t i = 0; i < declared.roles().size(); ++i) {
    const TensorInfo* tensor = checkpoint.find(declared.requirements().required[i].name);
    if (!tensor) continue;
    const bool joins = is_stacked(*tensor, declared.roles()[i]);
    if (!joins || (!stacked.empty() && stacked.front()->shape[0] != tensor->shape[0])) end_layer();
    if (joins)
      stacked.push_back(tensor);
    else
      order.push_back({tensor, 0, tensor->bytes});
  }
  end_layer();
  return order;
}

ReadAhead::ReadAhead(std::vector<Stretch> order, std::function<void(const Stretch&)> start)
    : order_(std::move(order)), start_(std::move(start)), thread_([this] { run(); }) {}

ReadAhead::~ReadAhead() {
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void ReadAhead::advance(std::int64_t bytes) {
  {
    std::lock_guard lock(mutex_);
    ahead_ -= bytes;
  }
  changed_.notify_one();
}

// Waits for room. False at the end.
bool ReadAhead::may_start(std::uint64_t bytes) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ended_ || ahead_ < kReadAheadBytes; });
  ahead_ += static_cast<std::int64_t>(bytes);
  return !ended_;
}

void ReadAhead::run() {
  for (const Stretch& stretch : order_) {
    for (std::uint64_t done = 0; done < stretch.bytes; done += kReadAheadPieceBytes) {
      const std::uint64_t bytes = std::min<std::uint64_t>(stretch.bytes - done, kReadAheadPieceBytes);
      if (!may_start(bytes)) return;
      start_({stretch.tensor, stretch.offset + done, bytes});
    }
  }
}

}  // namespace tandem
