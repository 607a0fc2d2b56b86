// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// An attention worker: owns requests, KV cache and the attention half of the model. Its thread takes requests from the
// inbox, lets the scheduler plan a step, walks the step's commands, commits, and sends the news to each request's
// queue.
//
// In the local layout it is the FFN worker too: the same walk, with the hand-over a view instead of a frame. There, and
// where it hands over to its only FFN worker by flags (engine/hand_over/device_seam.h), plain decoding over a backend
// that computes beside the host can run ahead: step n+1 is given before the host has heard the tokens of step n, which
// it takes from where they were drawn.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "engine/attention/hand_over_link.h"
#include "engine/attention/recorded_steps.h"
#include "engine/attention/return_sum.h"
#include "engine/attention/step_inputs.h"
#include "engine/attention/token_draws.h"
#include "engine/hand_over/device_seam.h"
#include "engine/worker/event_stream.h"
#include "engine/worker/observer.h"
#include "engine/worker/pipeline.h"
#include "engine/worker/trace.h"
#include "engine/worker/worker_config.h"
#include "engine/worker/workers.h"
#include "sched/scheduler.h"

namespace tandem {

// KV of a prefix in canonical pages, one per block of kBlockTokens tokens. Behind it stands that of the windowed
// layers, where the model has some and positions after the prefix see into the block.
using Pages = std::vector<std::vector<std::byte>>;

// What an attention worker leaves to the next one of its process: the cache, and whose KV is in it. So when a
// deployment meets again, sequences go on from the last whole block of what they had computed.
struct KeptKv {
  std::unique_ptr<KvCache> cache, window_cache;  // of the backend that the next worker gets, too
  KvAccounts accounts;
};

class AttentionWorker final : public RequestTaker {
 public:
  struct Parts {
    WorkerConfig config;
    SchedulerConfig scheduler;
    KvSpec kv;
    KvSpec window_kv;  // of windowed layers; no layers where the model has none
    bool prefix_cache = true;
    bool run_ahead = false;           // where the backend runs behind, and steps repeat themselves
    std::optional<KeptKv> kept = {};  // of the same model, kv and backend; not in the local layout (Backend::replay)
    std::int32_t index = 0;
    std::shared_ptr<const Model> model;
    std::unique_ptr<Backend> backend;
    std::unique_ptr<Transport> transport;  // in the local layout only to be woken by
    std::shared_ptr<DeviceSeam> seam;      // with the only FFN worker, where there is one
    const Clock* clock = nullptr;
    TraceTrack* track = nullptr;
    Observer* observer = nullptr;
  };
  explicit AttentionWorker(Parts parts);
  ~AttentionWorker() override;

  // The worker's thread: works until stop().
  void run();
  // The end of a worker that does not run any more.
  struct Remains {
    std::unique_ptr<Backend> backend;  // first: the cache's memory is its
    std::optional<KeptKv> kv;          // none: numbers were bad, and nobody knows since when
  };
  static Remains dismantle(std::unique_ptr<AttentionWorker> worker);

  // Any thread.
  void stop();
  void submit(Request request, std::shared_ptr<EventStream> events) override;
  void cancel(RequestId id) override;
  // With KV of the request's first blocks, from another worker that gave it up. What of it is wrong or has no room is
  // computed instead.
  void submit(Request request, std::shared_ptr<EventStream> events, Pages pages);
  // Another worker is to have the request: it leaves without a last event. done gets the KV of its whole blocks, from
  // the first one, bytes_max of them at most, on the worker's thread and after all its news; none where it is not here.
  // done is not called when the worker stops before.
  void give_up(RequestId id, std::size_t bytes_max, std::function<void(Pages)> done);
  // Runs action on the worker's thread between two steps and waits for it. False when the worker has stopped.
  bool between_steps(const std::function<void()>& action);

  // Within between_steps, or when the worker is not running.
  Scheduler& scheduler() { return scheduler_; }
  // Pages of the longest prefix of tokens that the cache knows under salt, bytes_max at most.
  Pages export_pages(std::uint64_t salt, std::span<const std::int32_t> tokens, std::size_t bytes_max = SIZE_MAX);
  // Puts pages into the cache as the KV of the first tokens; false when there is no room. Throws Error{kInvalidData}.
  bool import_pages(std::uint64_t salt, std::span<const std::int32_t> tokens, const Pages& pages);

  const WorkerStats& stats() const override { return stats_; }
  std::int64_t outstanding() const override { return outstanding_; }
  Scheduler::Load load() const override;

 private:
  struct State {  // one micro-batch under way
    std::unique_ptr<StepInputs> inputs;
    const MicroBatch* plan = nullptr;
    Tensor stream, ffn, hidden;             // at their largest; hidden: where it does not cross itself
    std::span<std::byte> hand_over_memory;  // where it is computed when not in its frame
    std::span<std::byte> local_return;      // local layout: what would be a frame
    Residual residual;
    HandOver hand_over;
    FfnOutput local_output;  // also of an FFN worker that works on the same memory
    Tensor logits;           // of this step's rows
    std::int32_t layer = 0;  // of the hand-over
    bool failed = false;
  };
  struct Incoming {
    Request request;
    std::shared_ptr<EventStream> events;
    Pages pages;
  };
  struct GivingUp {
    RequestId id = 0;
    std::size_t bytes_max = 0;
    std::function<void(Pages)> done;
  };

  static Scheduler make_scheduler(Parts& parts);
  void allocate_states();
  void take_inbox();
  void admit(Incoming in);
  void give_up(const GivingUp& giving_up);
  void end_everything();
  bool inbox_waits() const;
  void publish_events();
  void check_page(std::span<const std::byte> page) const;
  void import_page(BlockTable& table, std::size_t i, std::span<const std::byte> page);

  // ---- a step, in attention_step.cpp
  void run_step(Batch batch);
  void open_step(const Batch& batch);
  void fill(const Batch& batch);
  void start_walk(const Batch& batch);
  bool advance();
  void execute(const Command& command);
  void wait_for_news();
  void fail(std::int32_t m);
  void commit(const Batch& batch);

  // ---- what its commands compute, in attention_layer.cpp
  void embed(State& state);
  void attention(std::int32_t layer, std::int32_t m);
  void read_choices(State& state, std::int32_t m);
  void hand_over(std::int32_t layer, std::int32_t m);
  void local_experts(std::int32_t layer, std::int32_t m);
  void combine(std::int32_t layer, State& state, std::int32_t m);
  void await_return(std::int32_t layer, State& state, std::int32_t m);
  void head(std::int32_t m);

  // ---- steps that are given as a whole, in attention_run_ahead.cpp
  bool run_repeating(Batch& batch);
  std::optional<Batch> plan_ahead(const Batch& batch);
  std::uint64_t give(const Batch& step);
  std::uint64_t give_behind(const Batch& batch, const Batch& next);
  void record(const Batch& batch);
  std::unique_ptr<Draw> begin_draw(const Batch& batch);
  void take_drawn_ids(const Batch& before, const Batch& batch);
  bool redo(const Batch& batch);
  void keep_nothing(const Batch& batch);
  bool is_repeating(const Batch& batch) const;
  bool is_prepared(const Batch& batch);
  RecordedSteps::Kind kind_of(const Batch& batch) const;
  // Inputs have two places only where the host fills another memory than operators read.
  bool runs_ahead() const {
    return parts_.run_ahead && (local() || parts_.seam) && parts_.backend->runs_behind() &&
           !parts_.backend->host_memory();
  }

  Workspace workspace() {
    return {*parts_.backend, arena_, cache_.get(), window_cache_.get(), parts_.config.activations};
  }
  bool quantises() const { return parts_.config.activations == Activations::kFp8; }
  bool local() const { return parts_.config.layout.local(); }
  // The step under way is handed over by flags alone.
  bool by_flags() const { return repeats_ && !local(); }
  // Rows go to FFN workers from device to device, without the host.
  bool device_rows() const { return !local() && parts_.transport->capabilities().device_rows; }
  // A hand-over is computed where it is sent from, unless it is not or operators cannot work there.
  bool hand_over_in_frame() const { return !local() && (parts_.backend->host_memory() || device_rows()); }

  Parts parts_;
  const ModelConfig& model_;
  std::vector<FfnShare> shares_;
  WorkerStats stats_;
  std::unique_ptr<KvCache> cache_, window_cache_;  // the second of windowed layers, if any
  Arena arena_;
  Buffer memory_;
  Tensor logits_;
  Buffer drawn_ids_;  // of a step that another runs ahead of, in row order
  std::vector<State> states_;
  Scheduler scheduler_;
  std::unique_ptr<HandOverLink> link_;  // none in the local layout
  Pipeline pipeline_;
  Walk walk_;
  RecordedSteps recorded_;
  ReturnSum sum_;
  TokenDraws draws_;
  bool repeats_ = false;  // the step under way: it is given as a whole
  std::uint64_t step_ = 0;
  std::vector<SequenceResult> results_;
  std::vector<RequestId> failed_;
  Status failure_;
  std::vector<HandOverLink::News> news_;
  std::map<RequestId, std::shared_ptr<EventStream>> queues_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable action_done_;
  std::vector<Incoming> inbox_;
  std::vector<RequestId> cancels_;
  std::vector<GivingUp> giving_up_;
  std::vector<const std::function<void()>*> actions_;
  std::uint64_t actions_finished_ = 0, actions_asked_ = 0;
  Scheduler::Load load_;
  bool stopped_ = false;

  std::atomic<bool> stopping_{false};
  std::atomic<std::int64_t> outstanding_{0};
};

}  // namespace tandem
