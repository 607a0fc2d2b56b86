// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The worker's thread: inbox, step, news; and KV that comes and goes. A step is in attention_step.cpp.
#include "engine/attention/attention_worker.h"

#include <algorithm>

#include "ops/page_format.h"

namespace tandem {

namespace {

constexpr Nanoseconds kIdleWait = 100 * kMillisecond;

// Scratch for the attention half and, in the local layout, the FFN half.
std::size_t scratch_of(const AttentionWorker::Parts& p) {
  const std::size_t attention = p.model->attention_scratch_bytes(p.config.rows_max, p.config.rows_max);
  return p.config.layout.local() ? std::max(attention, p.model->ffn_scratch_bytes(p.config.rows_max)) : attention;
}

SchedulerConfig with_micro_batches(SchedulerConfig config, const WorkerConfig& worker) {
  config.micro_batches = worker.micro_batches;
  return config;
}

}  // namespace

AttentionWorker::AttentionWorker(Parts parts)
    : parts_(std::move(parts)),
      model_(parts_.model->config()),
      shares_(parts_.config.shares(model_)),
      arena_(*parts_.backend, scratch_of(parts_)),
      scheduler_(make_scheduler(parts_)),
      recorded_(*parts_.backend, parts_.seam.get(), parts_.config),
      sum_(*parts_.backend, parts_.config, model_, device_rows()),
      draws_(*parts_.backend, model_.vocab, parts_.config.rows_max) {
  if (parts_.kept) {
    TANDEM_CHECK(!local(), "a worker of the local layout goes on with another's cache");
    cache_ = std::move(parts_.kept->cache);
    window_cache_ = std::move(parts_.kept->window_cache);
  } else {
    cache_ = parts_.backend->make_kv_cache(parts_.kv);
    if (parts_.window_kv.layers > 0) window_cache_ = parts_.backend->make_kv_cache(parts_.window_kv);
  }
  allocate_states();
  if (!local())
    link_ = std::make_unique<HandOverLink>(*parts_.transport, *parts_.clock, *parts_.backend, parts_.config, model_,
                                           stats_);
  for (std::int32_t m = 0; parts_.seam && m < parts_.config.micro_batches; ++m)
    parts_.seam->hand_overs.push_back(link_->place(m));
}

Scheduler AttentionWorker::make_scheduler(Parts& parts) {
  const SchedulerConfig config = with_micro_batches(parts.scheduler, parts.config);
  if (parts.kept) return {config, std::move(parts.kept->accounts)};
  return {config, KvSpace::Config{parts.kv.blocks, parts.prefix_cache, parts.model->config().window.tokens,
                                  parts.window_kv.blocks}};
}

AttentionWorker::Remains AttentionWorker::dismantle(std::unique_ptr<AttentionWorker> worker) {
  worker->parts_.backend->synchronise();  // of a step that was left in its middle
  Remains remains;
  if (!worker->scheduler_.has_seen_bad_numbers())
    remains.kv = KeptKv{.cache = std::move(worker->cache_),
                        .window_cache = std::move(worker->window_cache_),
                        .accounts = worker->scheduler_.take_accounts()};
  remains.backend = std::move(worker->parts_.backend);
  return remains;  // and then the worker's own memory goes
}

// The transport goes first: the memory that it was given is the link's.
AttentionWorker::~AttentionWorker() {
  parts_.transport.reset();
}

void AttentionWorker::allocate_states() {
  const std::int64_t rows = parts_.config.rows_max, hidden = model_.hidden, k = model_.experts_per_token;
  const std::size_t stream = static_cast<std::size_t>(rows * hidden) * 4;
  const std::size_t hand_over = hand_over_in_frame() ? 0 : hand_over_bytes(rows, hidden, k, parts_.config.activations);
  const std::size_t output = local() ? return_bytes(rows * k, rows, hidden) : 0;
  const std::size_t unquantised = quantises() ? stream : 0;
  const std::size_t logits = static_cast<std::size_t>(rows * model_.vocab) * 4;
  const std::size_t count = parts_.config.micro_batches;
  memory_ = parts_.backend->allocate(count * (2 * stream + unquantised + aligned(hand_over) + output) + logits);
  std::byte* at = memory_.bytes_data();
  const auto carve = [&](std::size_t bytes) {
    const std::span<std::byte> piece(at, bytes);
    at += bytes;
    return piece;
  };
  logits_ = Tensor(carve(logits).data(), DType::kF32, {rows, model_.vocab});
  if (runs_ahead()) drawn_ids_ = parts_.backend->allocate(static_cast<std::size_t>(rows) * 4);
  const std::int64_t blocks = (parts_.scheduler.context_tokens_max + kBlockTokens - 1) / kBlockTokens;
  states_.resize(count);
  for (State& state : states_) {
    state.inputs = std::make_unique<StepInputs>(
        *parts_.backend, StepInputs::Limits{rows, std::min(rows, parts_.scheduler.sequences_max), blocks,
                                            model_.window.tokens, parts_.scheduler.embedded_hidden});
    state.stream = Tensor(carve(stream).data(), DType::kF32, {rows, hidden});
    state.ffn = Tensor(carve(stream).data(), DType::kF32, {rows, hidden});
    if (quantises()) state.hidden = Tensor(carve(unquantised).data(), DType::kF32, {rows, hidden});
    state.hand_over_memory = carve(aligned(hand_over));
    state.local_return = carve(output);
  }
}

// ---- from other threads

void AttentionWorker::stop() {
  stopping_ = true;
  parts_.transport->wake();
}

void AttentionWorker::submit(Request request, std::shared_ptr<EventStream> events) {
  submit(std::move(request), std::move(events), {});
}

void AttentionWorker::submit(Request request, std::shared_ptr<EventStream> events, Pages pages) {
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return events->push({.id = request.id, .tokens = {}, .finish = FinishReason::kCancelled});
    ++outstanding_;
    inbox_.push_back({std::move(request), std::move(events), std::move(pages)});
  }
  parts_.transport->wake();
}

void AttentionWorker::give_up(RequestId id, std::size_t bytes_max, std::function<void(Pages)> done) {
  {
    std::lock_guard lock(mutex_);
    giving_up_.push_back({id, bytes_max, std::move(done)});
  }
  parts_.transport->wake();
}

void AttentionWorker::cancel(RequestId id) {
  {
    std::lock_guard lock(mutex_);
    cancels_.push_back(id);
  }
  parts_.transport->wake();
}

bool AttentionWorker::between_steps(const std::function<void()>& action) {
  std::unique_lock lock(mutex_);
  if (stopped_) return false;
  actions_.push_back(&action);
  const std::uint64_t mine = ++actions_asked_;
  parts_.transport->wake();
  action_done_.wait(lock, [&] { return actions_finished_ >= mine || stopped_; });
  return actions_finished_ >= mine;
}

Scheduler::Load AttentionWorker::load() const {
  std::lock_guard lock(mutex_);
  return load_;
}

// ---- the worker's thread

void AttentionWorker::run() {
  while (!stopping_) {
    take_inbox();
    publish_events();
    Batch batch = scheduler_.plan();
    const bool peers_wait = link_ && link_->opened_by_peers() > step_;
    if (!batch.empty() || peers_wait) {
      run_step(std::move(batch));
    } else {
      scheduler_.abandon();
      publish_events();
      if (link_)
        link_->poll(kIdleWait, news_);
      else
        parts_.transport->poll({}, kIdleWait);
    }
  }
  end_everything();
  parts_.backend->come_to_rest();  // a step that was left in its middle uses memory that goes with the worker
}

// What is still here when the worker stops ends as cancelled; what comes later is refused by submit.
void AttentionWorker::end_everything() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    giving_up_.clear();  // nobody waits for them
    actions_.clear();    // those who wait for them are told that they did not run
    action_done_.notify_all();
  }
  take_inbox();
  for (const auto& [id, events] : queues_) scheduler_.cancel(id);
  publish_events();
}

bool AttentionWorker::inbox_waits() const {
  std::lock_guard lock(mutex_);
  return !inbox_.empty() || !cancels_.empty() || !giving_up_.empty() || !actions_.empty();
}

void AttentionWorker::take_inbox() {
  std::vector<Incoming> incoming;
  std::vector<RequestId> cancels;
  std::vector<GivingUp> giving_up;
  std::vector<const std::function<void()>*> actions;
  {
    std::lock_guard lock(mutex_);
    incoming.swap(inbox_);
    cancels.swap(cancels_);
    giving_up.swap(giving_up_);
    actions.swap(actions_);
  }
  for (Incoming& in : incoming) admit(std::move(in));
  for (const RequestId id : cancels) scheduler_.cancel(id);
  for (const GivingUp& one : giving_up) give_up(one);
  for (const auto* action : actions) (*action)();
  if (!actions.empty()) {
    std::lock_guard lock(mutex_);
    actions_finished_ += actions.size();
    action_done_.notify_all();
  }
}

void AttentionWorker::admit(Incoming in) {
  const RequestId id = in.request.id;
  queues_[id] = in.events;
  if (Status admitted = scheduler_.submit(std::move(in.request)); !admitted) {
    --outstanding_;
    queues_.erase(id);
    return in.events->push({.id = id, .tokens = {}, .finish = FinishReason::kError, .status = std::move(admitted)});
  }
  if (in.pages.empty()) return;
  try {
    if (const auto prefix = scheduler_.prefix_of(id)) import_pages(prefix->cache_salt, prefix->tokens, in.pages);
  } catch (const Error& error) {
    // Pages that are not this cache's: none of them was kept, and the request is computed as any other.
    if (error.code() != ErrorCode::kInvalidData) throw;
  }
}

void AttentionWorker::give_up(const GivingUp& giving_up) {
  publish_events();
  const std::optional<Scheduler::Prefix> prefix = scheduler_.prefix_of(giving_up.id);
  if (scheduler_.take_out(giving_up.id)) {
    draws_.forget(giving_up.id);
    queues_.erase(giving_up.id);
    --outstanding_;
  }
  giving_up.done(prefix ? export_pages(prefix->cache_salt, prefix->tokens, giving_up.bytes_max) : Pages());
}

void AttentionWorker::publish_events() {
  for (RequestEvent& event : scheduler_.take_events()) {
    const auto queue = queues_.find(event.id);
    if (queue == queues_.end()) continue;
    const bool last = event.finish != FinishReason::kNone;
    const std::shared_ptr<EventStream> events = queue->second;
    if (last) {
      draws_.forget(event.id);
      queues_.erase(queue);
      --outstanding_;
    }
    events->push(std::move(event));
  }
  const Scheduler::Load load = scheduler_.load();
  std::lock_guard lock(mutex_);
  load_ = load;
}

// ---- KV made elsewhere

Pages AttentionWorker::export_pages(std::uint64_t salt, std::span<const std::int32_t> tokens, std::size_t bytes_max) {
  KvSpace& space = scheduler_.kv();
  BlockTable table;
  space.attach_prefix(table, salt, tokens, static_cast<std::int64_t>(tokens.size()));
  Pages pages;
  const std::size_t bytes = page_bytes(parts_.kv);
  std::size_t left = bytes_max;
  // The windows stand beside the last blocks, and without them the first ones are worth nothing.
  if (window_cache_ && table.blocks.size() * (bytes + page_bytes(parts_.window_kv)) > bytes_max) left = 0;
  for (std::size_t i = 0; i < table.blocks.size(); ++i) {
    const BlockId beside = window_cache_ ? table.window_blocks[i] : kNoBlock;
    const std::size_t both = bytes + (beside == kNoBlock ? 0 : page_bytes(parts_.window_kv));
    if (both > left) break;
    left -= both;
    std::vector<std::byte>& page = pages.emplace_back(both);
    parts_.backend->export_page(*cache_, table.blocks[i], std::span(page).first(bytes));
    if (beside != kNoBlock) parts_.backend->export_page(*window_cache_, beside, std::span(page).subspan(bytes));
  }
  space.release(table);
  return pages;
}

bool AttentionWorker::import_pages(std::uint64_t salt, std::span<const std::int32_t> tokens, const Pages& pages) {
  const auto count = static_cast<std::int64_t>(pages.size()) * kBlockTokens;
  if (count > static_cast<std::int64_t>(tokens.size()))
    throw Error(ErrorCode::kInvalidArgument, "more pages than the tokens they belong to fill");
  for (const std::vector<std::byte>& page : pages) check_page(page);  // all of them, before any is kept
  KvSpace& space = scheduler_.kv();
  BlockTable table;
  FreshBlocks fresh;
  space.attach_prefix(table, salt, tokens.first(count), count);
  const bool room = KvSpace::blocks_needed(table, count - table.tokens) <= space.available();
  // Block by block, so that windowed layers need room for a window only.
  try {
    while (room && table.tokens < count) {
      const auto i = table.blocks.size();
      TANDEM_CHECK(space.grow(table, kBlockTokens, fresh), "a block that there is room for");
      import_page(table, i, pages[i]);
      space.publish(table, salt, tokens, table.tokens);
      space.pass_window(table, table.tokens);
    }
  } catch (...) {
    space.release(table);
    throw;
  }
  space.release(table);
  return room;
}

void AttentionWorker::check_page(std::span<const std::byte> page) const {
  const std::size_t bytes = page_bytes(parts_.kv);
  const bool has_window = window_cache_ && page.size() > bytes;
  check_page_header(parts_.kv, has_window ? page.first(bytes) : page);
  if (has_window) check_page_header(parts_.window_kv, page.subspan(bytes));
}

void AttentionWorker::import_page(BlockTable& table, std::size_t i, std::span<const std::byte> page) {
  const std::size_t bytes = page_bytes(parts_.kv);
  const bool has_window = window_cache_ && page.size() > bytes;
  parts_.backend->import_page(*cache_, table.blocks[i], has_window ? page.first(bytes) : page);
  if (has_window)
    parts_.backend->import_page(*window_cache_, table.window_blocks[i], page.subspan(bytes));
  else
    scheduler_.kv().drop_window(table);
}

}  // namespace tandem
