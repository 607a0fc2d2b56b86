// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/hand_over/device_seam.h"

#include <chrono>
#include <utility>

namespace tandem {

std::shared_ptr<DeviceSeam> DeviceSeam::make(Backend& attention, Backend& ffn, std::int32_t layers,
                                             std::int32_t micro_batches, Nanoseconds patience) {
  const std::int32_t flags = layers * micro_batches;
  std::unique_ptr<StepFlags> a = attention.make_step_flags(flags, patience);
  std::unique_ptr<StepFlags> f = a ? ffn.make_step_flags(flags, patience) : nullptr;
  if (!a || !f || !a->connect(*f)) return nullptr;
  return std::shared_ptr<DeviceSeam>(new DeviceSeam(std::move(a), std::move(f), micro_batches));
}

DeviceSeam::DeviceSeam(std::unique_ptr<StepFlags> attention, std::unique_ptr<StepFlags> ffn, std::int32_t micro_batches)
    : attention_flags_(std::move(attention)),
      ffn_flags_(std::move(ffn)),
      micro_batches_(micro_batches),
      same_memory_(attention_flags_->same_memory(*ffn_flags_)) {}

bool DeviceSeam::prepare(std::vector<std::int64_t> rows, Nanoseconds limit) {
  give({.rows = std::move(rows)});
  return await_launch(limit);
}

std::uint64_t DeviceSeam::start(std::vector<std::int64_t> rows) {
  give({.rows = std::move(rows), .epoch = ++epoch_});  // to one that has ended: the wait for it ends, too
  return epoch_;
}

bool DeviceSeam::await_launch(Nanoseconds limit) {
  std::unique_lock lock(mutex_);
  done_.wait_for(lock, std::chrono::nanoseconds(limit), [&] { return finished_ == given_ || ended_; });
  return finished_ == given_ && !ended_;
}

void DeviceSeam::give(Order order) {
  {
    const std::lock_guard lock(mutex_);
    orders_.push_back(std::move(order));
    ++given_;
  }
  wake_();
}

std::optional<DeviceSeam::Order> DeviceSeam::next() {
  const std::lock_guard lock(mutex_);
  if (orders_.empty()) return std::nullopt;
  std::optional<Order> order = std::move(orders_.front());
  orders_.pop_front();
  return order;
}

void DeviceSeam::done() {
  {
    const std::lock_guard lock(mutex_);
    ++finished_;
  }
  done_.notify_all();
}

void DeviceSeam::end() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  done_.notify_all();
}

}  // namespace tandem
