// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/cuda_backend.h"

#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/copy_lane.h"
#include "ops/cuda/cuda_kv_cache.cuh"
#include "ops/cuda/cuda_weight.cuh"
#include "ops/cuda/device.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/machine.cuh"
#include "ops/cuda/step_flags.h"
#include "ops/cuda/step_graphs.h"
#include "ops/page_format.h"

namespace tandem {

namespace {

constexpr std::size_t kScratchBytes = std::size_t{64} << 20;  // of attention's parts

class CudaBackend final : public Backend {
 public:
  CudaBackend(const cuda::DeviceFacts& facts, GpuPriority priority) : name_(facts.name), device_(facts.device) {
    enter();
    machine_.multiprocessors = facts.multiprocessors;
    // Of streams the lowest is 0; what is urgent beside a worker (launch_urgent.cuh) has the highest.
    cuda::need(cudaStreamCreateWithPriority(&machine_.stream, cudaStreamNonBlocking,
                                            priority == GpuPriority::kBackground ? 0 : -1),
               "creating a stream");
    machine_.scratch = cuda::allocate_device(kScratchBytes);
  }
  ~CudaBackend() override {
    (void)cudaStreamSynchronize(machine_.stream);
    (void)cudaStreamDestroy(machine_.stream);
  }

  std::string describe() const override {
    return format("cuda/{}, {} multiprocessors", name_, machine_.multiprocessors);
  }
  Buffer allocate(std::size_t bytes) override {
    enter();
    Buffer buffer = cuda::allocate_device(bytes);
    if (bytes == 0) return buffer;
    cuda::need(cudaMemsetAsync(buffer.data(), 0, bytes, machine_.stream), "clearing memory");
    cuda::need(cudaStreamSynchronize(machine_.stream), "clearing memory");  // it may be for another stream
    return buffer;
  }
  Buffer allocate_shared(std::size_t bytes) override {
    enter();
    return cuda::allocate_pinned(bytes);
  }
  bool host_memory() const override { return false; }
  void copy(void* to, const void* from, std::size_t bytes) override {
    if (bytes == 0) return;
    enter();
    cuda::need(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, machine_.stream), "copying");
  }
  std::unique_ptr<Weight> pack(const WeightSource& source) override {
    enter();
    return cuda::CudaWeight::pack(source);
  }
  std::int64_t weights_max() const override { return cuda::kWeightsOfLaunchMax; }

  bool has_fp8_products(const Weight& weight) const override { return cuda::of(&weight).tiles() != nullptr; }

  std::unique_ptr<KvCache> make_kv_cache(const KvSpec& spec) override {
    enter();
    return std::make_unique<cuda::CudaKvCache>(spec, machine_.stream);
  }
  void zero_block(KvCache& cache, std::int32_t block) override {
    enter();
    cuda::of(&cache).zero_block(block);
  }
  void export_page(const KvCache& cache, std::int32_t block, std::span<std::byte> page) override {
    write_page_header(cache.spec(), page);
    enter();
    cuda::of(&cache).export_block(block, page.data() + sizeof(PageHeader));
  }
  void import_page(KvCache& cache, std::int32_t block, std::span<const std::byte> page) override {
    check_page_header(cache.spec(), page);
    enter();
    cuda::of(&cache).import_block(block, page.data() + sizeof(PageHeader));
  }

  void run(const Operator& op) override {
    enter();
    std::visit(
        [&]<class Op>(const Op& o) {
          if constexpr (Int8Operator<Op>)
            throw Error(ErrorCode::kUnsupported, format("the cuda backend has no int8 arithmetic: {}", name(op)));
          else
            cuda::run(machine_, o);
        },
        op);
  }
  void replay(std::span<const std::int64_t> key, const std::function<void()>& record) override {
    enter();
    graphs_.replay(machine_.stream, key, record);
  }
  bool prepare(std::span<const std::int64_t> key, const std::function<void()>& record) override {
    enter();
    return graphs_.prepare(machine_.stream, key, record);
  }
  void launch(std::span<const std::int64_t> key) override {
    enter();
    graphs_.launch(machine_.stream, key);
  }
  std::unique_ptr<StepFlags> make_step_flags(std::int32_t count, Nanoseconds patience) override {
    return cuda::make_step_flags(device_, machine_.stream, count, patience);
  }
  bool runs_behind() const override { return true; }
  std::unique_ptr<Draw> begin(const Sample& op, const Tensor& ids) override {
    enter();
    return cuda::begin(machine_, op, ids);
  }
  void synchronise() override {
    enter();
    cuda::need(cudaStreamSynchronize(machine_.stream), "running operators");
  }
  std::unique_ptr<CopyLane> make_copy_lane() override { return cuda::make_copy_lane(device_, machine_.stream); }

 private:
  // First in every call: any thread may load, run, read pages.
  void enter() const { cuda::use_device(device_); }

  std::string name_;
  int device_;
  cuda::Machine machine_;
  cuda::StepGraphs graphs_;
};

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(int device, GpuPriority priority) {
  const cuda::DeviceFacts facts = cuda::look_at_device(device);
  if (const std::string reason = cuda::why_unusable(facts); facts.devices > 0 && device >= facts.devices)
    throw Error(ErrorCode::kInvalidArgument, reason);
  if (const std::string reason = cuda::why_unusable(facts); !reason.empty())
    throw Error(ErrorCode::kUnsupported, "no CUDA here: " + reason);
  return std::make_unique<CudaBackend>(facts, priority);
}

}  // namespace tandem
