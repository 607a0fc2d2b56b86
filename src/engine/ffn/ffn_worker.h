// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// An FFN worker: takes hand-overs, runs its share of the experts, sends the results back. It knows no request, position
// or cache, and keeps nothing between hand-overs: any frame can be answered again with the same bits.
//
// A step opens when the control words of all attention workers are here; each (layer, micro-batch) then runs once for
// all of them together. That is for speed only: a frame that comes too late, or a second time, is answered alone, and
// when a worker repeats itself because another one is late, nobody is waited for any longer.
//
// Where the transport carries rows from device to device, operators work on them where they arrived, and returns are on
// their way before they are computed: the host reads only who was chosen, and an only FFN worker's not even that. Steps
// that such a one has been ordered by its attention worker are recorded and launched as a whole
// (engine/hand_over/device_seam.h).
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/ffn/expert_share.h"
#include "engine/hand_over/device_seam.h"
#include "engine/hand_over/hand_over_frame.h"
#include "engine/worker/pipeline.h"
#include "engine/worker/trace.h"
#include "engine/worker/worker_config.h"
#include "transport/transport.h"

namespace tandem {

class FfnWorker {
 public:
  FfnWorker(const WorkerConfig& config, std::int32_t index, std::shared_ptr<const Model> model,
            std::unique_ptr<Backend> backend, std::unique_ptr<Transport> transport, const Clock& clock,
            TraceTrack* track, std::shared_ptr<DeviceSeam> seam = nullptr);
  ~FfnWorker();

  // The worker's thread: serves until stop() is called or every attention worker is gone.
  void run();
  // Any thread.
  void stop();
  const WorkerStats& stats() const { return stats_; }

 private:
  // A received hand-over. Its buffer is held until it has been answered.
  struct Held {
    std::int32_t buffer = -1;
    std::int32_t layer = -1;
    HandOver hand_over;      // where operators take it
    std::int64_t slots = 0;  // how many of its slots are this worker's: all, where it is the only one
    bool present() const { return buffer >= 0; }
  };
  struct Arrived {  // a message
    std::int32_t buffer;
    std::size_t bytes, row_bytes;
  };
  struct Reply {                         // a return on its way out
    std::span<std::byte> frame, device;  // the second where rows are on one
    std::size_t bytes = 0, device_bytes = 0;
    std::int32_t sends_in_flight = 0;
  };
  struct Peer {                      // one attention worker
    std::vector<std::int32_t> rows;  // of the open step, by micro-batch
    std::uint64_t control_step = 0;  // latest control word
    std::vector<std::int32_t> control_rows;
    std::vector<Held> held;      // by micro-batch, for the open step
    std::vector<Reply> replies;  // by micro-batch, and one for answers outside the step
    std::vector<Arrived> early;  // frames of a step that is not open yet
    bool gone = false;
  };

  void join_seam();

  // ---- steps
  void try_open();
  // Nobody waits any longer for hand-overs of worker a in the open step (layer < 0: in all layers).
  void stop_waiting(std::int32_t a, std::int32_t layer, std::int32_t m);
  void execute(const Command& command);
  void run_experts(std::int32_t layer, std::int32_t m);
  void run_alone(std::int32_t m, const Held& held, Reply& reply, std::uint64_t step);
  void run_together(std::int32_t m, std::span<const std::int32_t> workers);

  // ---- steps by flags
  void take_orders();
  void carry_out(const DeviceSeam::Order& order);
  void record_step(std::span<const std::int64_t> rows);
  void experts_by_flags(std::int32_t layer, std::int32_t m, std::int64_t rows);

  // ---- frames, in ffn_frames.cpp
  std::span<std::byte> buffer(std::int32_t a, std::int32_t i);
  std::span<std::byte> rows(std::int32_t a, std::int32_t i);  // on the device, of the same receive
  void post_receive(std::int32_t a, std::int32_t i);
  void drain(Nanoseconds wait);
  void handle(const TransportEvent& event);
  void accept(std::int32_t a, const Arrived& arrived);
  void accept_control(std::int32_t a, const FrameHeader& header, std::span<const std::byte> rows);
  void accept_hand_over(std::int32_t a, const Arrived& arrived, const FrameHeader& header);
  bool read_hand_over(std::int32_t a, const Arrived& arrived, const FrameHeader& header, Held& held);
  void release(std::int32_t a, Held& held);
  void peer_is_gone(std::int32_t a);
  FfnOutput begin_reply(const Held& held, Reply& reply);
  void seal_reply(const Held& held, std::int32_t m, Reply& reply, std::uint64_t step);
  void post_reply(std::int32_t a, std::int32_t m, Reply& reply);

  WorkerConfig config_;
  std::int32_t index_;
  std::shared_ptr<const Model> model_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Transport> transport_;
  const Clock& clock_;
  TraceTrack* track_;
  std::shared_ptr<DeviceSeam> seam_;  // with the only attention worker, where there is one
  std::optional<DeviceSeam::Order> order_;
  FfnShare share_;
  bool device_rows_;
  FrameLimits limits_;
  WorkerStats stats_;
  std::atomic<bool> stopping_{false};

  ExpertShare experts_;
  Buffer memory_;       // frames
  Buffer rows_memory_;  // where rows are on a device, those of frames
  Buffer seam_memory_;  // hand-overs by flags that another device has made, by micro-batch
  Buffer seam_ids_;     // choices of experts of the one that is computed
  std::byte* buffers_ = nullptr;
  std::size_t buffer_bytes_ = 0, rows_bytes_ = 0;
  std::int32_t buffers_each_ = 0;
  std::vector<Peer> peers_;
  Pipeline pipeline_;
  Walk walk_;
  std::uint64_t step_ = 0;
  bool open_ = false;
};

}  // namespace tandem
