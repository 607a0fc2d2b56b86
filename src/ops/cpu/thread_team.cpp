// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cpu/thread_team.h"

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

ThreadTeam::ThreadTeam(int threads) {
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
  if (!members_.empty()) {
    entry_ = entry;
    task_ = task;
    busy_.store(static_cast<int>(members_.size()), std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
  }
  entry(task, 0);
  for (int busy = busy_.load(std::memory_order_acquire); busy != 0;) busy = wait_change(busy_, busy);
}

void ThreadTeam::serve(int member) {
  for (int seen = 0;;) {
    seen = wait_change(round_, seen);
    if (entry_ == nullptr) return;
    entry_(task_, member);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_one();
  }
}

}  // namespace tandem::cpu
