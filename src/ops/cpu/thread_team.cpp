// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cpu/thread_team.h"

#include <algorithm>
#include <cstdlib>

namespace tandem::cpu {

namespace {

// About 20 µs, several times what a sleeping thread takes to wake.
constexpr int kSpins = 1000;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

Nanoseconds now() {
  return RealClock().now();
}

// Waits until value differs from old, and returns it.
int wait_change(const std::atomic<int>& value, int old) {
  for (int i = 0; i < kSpins; ++i) {
    const int now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    pause();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

}  // namespace

ThreadTeam::ThreadTeam(int threads, Together together) {
  if (threads == 2 && together == Together::kWhenFaster) pace_.emplace();
  members_.reserve(static_cast<std::size_t>(threads - 1));
  for (int member = 1; member < threads; ++member) members_.emplace_back([this, member] { serve(member); });
}

ThreadTeam::~ThreadTeam() {
  entry_ = nullptr;
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& member : members_) member.join();
}

void ThreadTeam::run_entry(Entry entry, const void* task) {
  const Nanoseconds begin = pace_ ? now() : 0;
  if (pace_ && pace_->alone()) {
    entry(task, 0);
    entry(task, 1);
    pace_->by_one(now() - begin);
    return;
  }
  if (!members_.empty()) begin_round(entry, task);
  entry(task, 0);
  if (!pace_) return wait_for_members();
  const Nanoseconds own = now();
  wait_for_members();
  const Nanoseconds other = done_.load(std::memory_order_relaxed);
  pace_->together(std::max(own, other) - begin, std::abs(own - other));
}

void ThreadTeam::begin_round(Entry entry, const void* task) {
  entry_ = entry;
  task_ = task;
  busy_.store(static_cast<int>(members_.size()), std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
}

void ThreadTeam::wait_for_members() {
  for (int busy = busy_.load(std::memory_order_acquire); busy != 0;) busy = wait_change(busy_, busy);
}

void ThreadTeam::serve(int member) {
  for (int seen = 0;;) {
    seen = wait_change(round_, seen);
    if (entry_ == nullptr) return;
    entry_(task_, member);
    if (pace_) done_.store(now(), std::memory_order_relaxed);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_one();
  }
}

}  // namespace tandem::cpu
