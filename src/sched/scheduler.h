// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Decides what each step computes: admission, chunked prefill, decode, preemption. A state machine on one thread:
// events in (submit, cancel, commit), a batch out (plan). It waits for nothing and knows no clock, backend or socket.
//
// Rules, in the order plan() applies them:
//   1. every decoding sequence gets its next row, oldest first, and drafts if there is a drafter; when blocks run out,
//      the youngest sequence is preempted: its blocks are released and it will be computed again from its tokens
//      (prompt and answer so far)
//   2. what is left of rows_per_step_max goes to prefill chunks, oldest first, each at most prefill_chunk rows
//   3. waiting requests are admitted, in order of arrival, while sequences_max allows and their tokens fit beside what
//      the running ones still need for theirs and the next block of each
// Preempted sequences come back before new ones. Tokens already given out are never changed.
// Some sequence gets rows in every step, room goes to the oldest first, and alone any of them fits: so all end.
//
// plan() and commit()/abandon() alternate; after an empty batch plan() may follow at once. Between the two,
// plan_ahead() may give the step after: then commit() is for the first of them, and settle(), plan_ahead() again or
// not, and commit() for the second follow. Decisions depend on nothing but the order of calls and their arguments.
// Tests and the simulator call check_integrity().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kv/kv_space.h"
#include "sched/batch.h"
#include "sched/request.h"

namespace tandem {

// Each has a flag of the same name: --queue-max and so on.
struct SchedulerConfig {
  std::int64_t queue_max = 1024;    // waiting requests
  std::int64_t sequences_max = 64;  // running at once
  std::int64_t rows_per_step_max = 512;
  std::int64_t prefill_chunk = 256;        // rows of one prompt in one step
  std::int64_t context_tokens_max = 8192;  // prompt and answer of one request
  std::int32_t vocab = 0;
  std::int32_t embedded_hidden = 0;  // of embedded rows; 0: the model takes none
  std::int32_t micro_batches = 1;
};

// Guesses the next tokens of a sequence from those it has; any number, also none. The scheduler takes as many as have
// room.
using Drafter = std::function<std::vector<std::int32_t>(std::span<const std::int32_t> tokens)>;

// Whose KV is in the cache, and what its embedded rows are called there: what the next scheduler over the same memory
// goes on with.
struct KvAccounts {
  KvSpace space;
  ContentIds content_ids = {};
};

class Scheduler {
 public:
  // Throws Error when the configuration does not hold together.
  Scheduler(const SchedulerConfig& config, const KvSpace::Config& kv);
  Scheduler(const SchedulerConfig& config, KvAccounts kv);  // which nobody holds blocks of
  ~Scheduler();

  // Takes a request into the queue, or says why not: queue full, prompt empty or too long, token id outside the
  // vocabulary, answer longer than the context, more KV than the machine has, embedded rows that do not fit the prompt.
  Status submit(Request request);
  // Ends a request at once; its blocks are given back when the last step in flight that has rows of it ends. An unknown
  // or finished id is nothing to do.
  void cancel(RequestId id);
  // What the prefix cache compares of a request that is here and may share its KV.
  struct Prefix {
    std::uint64_t cache_salt = 0;
    std::vector<std::int32_t> tokens;
  };
  std::optional<Prefix> prefix_of(RequestId id) const;
  // Takes a request out without an event, between steps. Its blocks are given back, and stay known as any prefix does.
  // False: it is not here.
  bool take_out(RequestId id);
  // From now on, plan() adds drafts to decoding rows.
  void set_drafter(Drafter drafter);

  Batch plan();
  // While a step is in flight in which every running sequence decodes one token: the step after it, with the next row
  // of each sequence that the token does not bring to its greatest length. tokens, prompt and answer are not known yet.
  // Nothing when plan() would do anything else besides, when a waiting request may soon have a place, or when blocks
  // would run out.
  std::optional<Batch> plan_ahead();
  // Of the batch planned ahead, after the commit of the step before: fills in what is known now. Rows of a sequence
  // that has ended, or whose token did not come, are retracted: their result keeps no rows.
  void settle(Batch& ahead) const;
  // Every sequence of the batch is in exactly one of results (it went well) and failed (its micro-batch did not come
  // back, for the reason why). Results of sequences cancelled meanwhile are dropped.
  void commit(std::span<const SequenceResult> results, std::span<const RequestId> failed, const Status& why = {});
  // No step was run: everything is as before plan(), apart from preemptions and admissions.
  void abandon();

  // News since the last call, in order.
  std::vector<RequestEvent> take_events();

  bool idle() const;  // nothing waits and nothing runs
  // Preempts the youngest running sequence, between steps; false when none runs. For tests and for shedding memory.
  bool preempt_youngest();

  struct Load {
    std::int64_t waiting = 0, running = 0;
    std::int64_t preemptions = 0;  // since the start
    KvSpace::Usage kv;
  };
  Load load() const;
  // The cache's accounts, for KV that comes from elsewhere or goes there; between steps.
  KvSpace& kv();
  // The scheduler's end: whatever is still here gives its blocks back, and nothing but the destructor may follow.
  KvAccounts take_accounts();
  // A request has ended for logits that were not finite: KV that is known may be bad, too.
  bool has_seen_bad_numbers() const;
  void check_integrity() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tandem
