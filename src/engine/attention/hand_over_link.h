// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// An attention worker's side of framed mode: its hand-overs out to every FFN worker, their returns in. Keeps frames,
// buffers and timers; computes nothing. One thread.
//
// A hand-over that is not answered in time is sent again, with the step's control word ahead of it, up to a limit: FFN
// workers keep no state, so a second answer is the same bits, and whichever comes first is used. Frames that do not fit
// what is awaited (damaged, doubled, late) are dropped and counted.
//
// Where the transport carries rows from device to device, they never come here: frames have the choices alone, and not
// even those for an only FFN worker; what is computed into and used where it arrived is device memory.
//
// Buffers: the hand-over of a micro-batch is computed inside its frame; it is not touched again before every return is
// here and no send of it is in flight. Returns are used where they arrived, until release().
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/hand_over/hand_over_frame.h"
#include "engine/worker/worker_config.h"
#include "transport/transport.h"

namespace tandem {

class HandOverLink {
 public:
  HandOverLink(Transport& transport, const Clock& clock, Backend& backend, const WorkerConfig& config,
               const ModelConfig& model, WorkerStats& stats);

  // Opens a step: its control word, with the rows of each micro-batch, to every FFN worker (which waits for those of
  // all attention workers) and to every other attention worker (which opens the step too, with zero rows if it is
  // idle).
  void open(std::uint64_t step, std::span<const std::int32_t> rows);
  // False while an abandoned send of the micro-batch's frame has not come back: it cannot be computed into.
  bool frame_free(std::int32_t m) const { return flight(m).sends_in_flight == 0; }
  // The frame of a micro-batch, as tensors to compute into.
  HandOver hand_over(std::int32_t m, std::int64_t rows, std::int64_t top_k);
  // Where hand_over() is, in the memory of the backend's device.
  std::span<std::byte> place(std::int32_t m) const { return flight(m).device; }
  // Where rows, and choices beside them, are in the memory of the backend's device: where hosts read the choices of the
  // micro-batch, to be copied there before send() when several FFN workers share slots out.
  HandOver choices(std::int32_t m);
  // Sends it to every FFN worker. slots[f] is how many routed rows worker f will return.
  void send(std::int32_t m, std::int32_t layer, std::span<const std::int64_t> slots);

  struct News {
    std::int32_t micro_batch;
    bool failed;  // given up; else every FFN worker has answered
  };
  // Takes what arrived, sends again what is overdue. Waits up to wait when there is nothing. news is overwritten.
  void poll(Nanoseconds wait, std::vector<News>& news);

  // What worker f returned for m; valid from the news until release.
  const FfnOutput& returned(std::int32_t m, std::int32_t f) const { return flight(m).returns[f].output; }
  void release(std::int32_t m);
  // Why a micro-batch failed.
  const Status& failure(std::int32_t m) const { return flight(m).failure; }

  // The latest step that another attention worker has opened.
  std::uint64_t opened_by_peers() const { return opened_by_peers_; }

 private:
  struct Return {
    FfnOutput output;
    std::int32_t buffer = -1;  // which receive buffer holds it
    std::int64_t slots = 0;    // expected routed rows
    bool awaited = false;
  };
  struct Flight {                        // one micro-batch under way
    std::span<std::byte> frame, device;  // the second where rows are on one
    std::size_t message_bytes = 0, device_bytes = 0;
    std::int64_t rows = 0, top_k = 0;
    std::int32_t layer = 0;
    std::vector<Return> returns;  // by FFN worker
    std::int32_t awaited = 0, sends_in_flight = 0, resends = 0;
    Nanoseconds sent_at = 0;
    bool under_way = false;
    Status failure;
  };
  struct Control {
    std::span<std::byte> frame;
    std::int32_t sends_in_flight = 0;
  };

  const Flight& flight(std::int32_t m) const { return flights_[m]; }
  std::span<std::byte> ffn_buffer(std::int32_t f, std::int32_t i);
  std::span<std::byte> ffn_rows(std::int32_t f, std::int32_t i);
  std::span<std::byte> peer_buffer(std::int32_t a, std::int32_t i);
  void post_ffn_receive(std::int32_t f, std::int32_t i);
  void post_peer_receive(std::int32_t a, std::int32_t i);
  // To FFN workers, and to the other attention workers too or not.
  void send_control(bool to_peers = true);
  void accept_control(std::int32_t a, std::uint64_t step);
  void transmit(std::int32_t m);
  void handle(const TransportEvent& event);
  void accept_return(std::int32_t f, std::int32_t buffer, std::size_t bytes, std::size_t row_bytes);
  void give_up(std::int32_t m, Status why);
  void check_timers();
  Nanoseconds until_next_timer(Nanoseconds wait) const;

  Transport& transport_;
  const Clock& clock_;
  WorkerConfig config_;
  ModelConfig model_;
  bool device_rows_;
  FrameLimits limits_;
  WorkerStats& stats_;
  Buffer memory_, device_memory_;
  std::size_t ffn_buffer_bytes_ = 0, ffn_rows_bytes_ = 0, peer_buffer_bytes_ = 0;
  std::byte *ffn_buffers_ = nullptr, *ffn_rows_ = nullptr, *peer_buffers_ = nullptr;
  std::int32_t ffn_buffers_each_ = 0;
  std::vector<Flight> flights_;
  std::vector<Control> controls_;
  std::vector<std::int32_t> rows_;  // of the open step
  std::vector<bool> ffn_gone_;
  std::uint64_t step_ = 0, opened_by_peers_ = 0;
  std::vector<std::uint64_t> heard_steps_;  // by attention worker: the last it said
};

}  // namespace tandem
