// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/step_flags.h"

#include <atomic>

#include "base/check.h"
#include "base/error.h"
#include "ops/cuda/machine.cuh"
#include "ops/cuda/peer/devices.h"
#include "ops/cuda/ptx/global_time.cuh"
#include "ops/cuda/ptx/system_word.cuh"

namespace tandem::cuda {

namespace {

using Word = unsigned long long;  // what atomicMax takes

// A side's words, in the memory of its GPU: flags are written by the other side, and waited for by this one.
struct Words {
  static constexpr std::size_t kBeforeFlags = 2;
  Word *epoch, *poisoned, *flags;
  explicit Words(void* memory) : epoch(static_cast<Word*>(memory)), poisoned(epoch + 1), flags(epoch + kBeforeFlags) {}
};

__global__ void begin_epoch(Word* word, Word epoch) {
  *word = epoch;
}

// Kernels before this one have ended, so what they wrote comes before the release.
__global__ void raise_step_flag(Words own, Word* flag) {
  if (*own.epoch <= ptx::load_acquire(own.poisoned)) return;
  __threadfence_system();
  ptx::store_release(flag, *own.epoch);
}

struct StepWait {
  Words own;
  std::int32_t flag;
  Word* other_poisoned;
  Word* seen;  // of the host: the last epoch that a wait found poisoned
  std::uint64_t patience_ns;
};

__global__ void wait_for_step_flag(StepWait w) {
  const Word epoch = *w.own.epoch;
  const std::uint64_t until = ptx::global_time() + w.patience_ns;
  while (ptx::load_acquire(w.own.flags + w.flag) < epoch) {
    const bool poisoned = ptx::load_acquire(w.own.poisoned) >= epoch;
    if (!poisoned && ptx::global_time() < until) {
      __nanosleep(40);
      continue;
    }
    if (!poisoned) {
      atomicMax_system(w.other_poisoned, epoch);
      atomicMax_system(w.own.poisoned, epoch);
    }
    ptx::store_release(w.seen, epoch);
    return;
  }
}

class StreamFlags final : public StepFlags {
 public:
  StreamFlags(int device, cudaStream_t stream, std::int32_t count, Nanoseconds patience)
      : device_(device), stream_(stream), count_(count), patience_(patience) {
    use_device(device);
    const std::size_t bytes = (Words::kBeforeFlags + static_cast<std::size_t>(count)) * sizeof(Word);
    memory_ = allocate_device(bytes);
    seen_ = allocate_pinned(sizeof(Word));
    need(cudaMemsetAsync(memory_.data(), 0, bytes, stream), "clearing flags");
    need(cudaStreamSynchronize(stream), "clearing flags");
  }

  bool connect(StepFlags& other) override {
    auto& peer = static_cast<StreamFlags&>(other);
    TANDEM_CHECK(count_ == peer.count_, "sides of a step with other numbers of flags");
    try {
      connect_devices(device_, peer.device_);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnavailable) throw;
      return false;
    }
    other_ = peer.memory_.data();
    peer.other_ = memory_.data();
    return true;
  }
  bool same_memory(const StepFlags& other) const override {
    return device_ == static_cast<const StreamFlags&>(other).device_;
  }

  void begin(std::uint64_t epoch) override {
    use_device(device_);
    begin_epoch<<<1, 1, 0, stream_>>>(own().epoch, epoch);
    need(cudaGetLastError(), "beginning an epoch of a step");
  }
  void raise(std::int32_t flag) override {
    check(flag);
    use_device(device_);
    raise_step_flag<<<1, 1, 0, stream_>>>(own(), Words(other_).flags + flag);
    need(cudaGetLastError(), "raising a flag of a step");
  }
  void wait(std::int32_t flag) override {
    check(flag);
    use_device(device_);
    wait_for_step_flag<<<1, 1, 0, stream_>>>(StepWait{.own = own(),
                                                      .flag = flag,
                                                      .other_poisoned = Words(other_).poisoned,
                                                      .seen = static_cast<Word*>(seen_.data()),
                                                      .patience_ns = static_cast<std::uint64_t>(patience_)});
    need(cudaGetLastError(), "waiting for a flag of a step");
  }
  bool poisoned(std::uint64_t epoch) const override {
    return std::atomic_ref(*static_cast<Word*>(seen_.data())).load(std::memory_order_acquire) >= epoch;
  }

 private:
  Words own() const { return Words(memory_.data()); }
  void check(std::int32_t flag) const {
    TANDEM_CHECK(other_ != nullptr && flag >= 0 && flag < count_, "a flag that a step does not have");
  }

  int device_;
  cudaStream_t stream_;
  std::int32_t count_;
  Nanoseconds patience_;
  Buffer memory_, seen_;
  void* other_ = nullptr;
};

}  // namespace

std::unique_ptr<StepFlags> make_step_flags(int device, Stream stream, std::int32_t count, Nanoseconds patience) {
  return std::make_unique<StreamFlags>(device, stream, count, patience);
}

}  // namespace tandem::cuda
