// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/copy_lane.h"

#include "base/error.h"
#include "ops/cuda/machine.cuh"
#include "ops/cuda/peer/devices.h"

namespace tandem::cuda {

namespace {

// Recorded once.
class EventPoint final : public CopyPoint {
 public:
  // The thread works on the stream's device.
  explicit EventPoint(cudaStream_t stream) {
    need(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "noting a place in a stream");
    const cudaError_t recorded = cudaEventRecord(event_, stream);
    if (recorded != cudaSuccess) (void)cudaEventDestroy(event_);
    need(recorded, "noting a place in a stream");
  }
  EventPoint(const EventPoint&) = delete;
  EventPoint& operator=(const EventPoint&) = delete;
  ~EventPoint() override { (void)cudaEventDestroy(event_); }

  cudaEvent_t event() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

cudaEvent_t event_of(const CopyPoint& point) {
  return static_cast<const EventPoint&>(point).event();
}

// Threads stay on the device that they worked on here: one that has never chosen would go back to GPU 0, and choosing
// a GPU takes some of its memory.
class StreamLane final : public CopyLane {
 public:
  StreamLane(int device, cudaStream_t stream) : device_(device), stream_(stream) {
    use_device(device_);
    need(cudaStreamCreateWithFlags(&copies_, cudaStreamNonBlocking), "creating a stream for copies");
  }
  ~StreamLane() override {
    (void)cudaStreamSynchronize(copies_);
    (void)cudaStreamDestroy(copies_);
  }

  void reach(const CopyLane& other) override {
    const int peer = static_cast<const StreamLane&>(other).device_;
    try {
      connect_devices(device_, peer);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnavailable) throw;  // no way between them: through the host
    }
  }
  CopyPointPtr point() override {
    use_device(device_);
    return std::make_shared<EventPoint>(stream_);
  }
  CopyPointPtr copy(void* to, const void* from, std::size_t bytes, const CopyPoint& from_ready,
                    const CopyPoint& to_ready) override {
    use_device(device_);
    for (const CopyPoint* ready : {&from_ready, &to_ready})
      need(cudaStreamWaitEvent(copies_, event_of(*ready), 0), "ordering a copy");
    if (bytes > 0) need(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, copies_), "copying to a peer");
    return std::make_shared<EventPoint>(copies_);
  }
  void follow(const CopyPoint& point) override {
    use_device(device_);
    need(cudaStreamWaitEvent(stream_, event_of(point), 0), "following a copy");
  }
  void wait(const CopyPoint& point) override { need(cudaEventSynchronize(event_of(point)), "waiting for a copy"); }

 private:
  int device_;
  cudaStream_t stream_, copies_ = nullptr;
};

}  // namespace

std::unique_ptr<CopyLane> make_copy_lane(int device, Stream stream) {
  return std::make_unique<StreamLane>(device, stream);
}

}  // namespace tandem::cuda
