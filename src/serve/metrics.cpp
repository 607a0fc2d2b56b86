// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/metrics.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "base/check.h"
#include "base/format.h"

namespace tandem {

namespace {

constexpr double kLatency[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25,
                               0.5,   0.75,  1,    2.5,  5,    7.5,  10,   20,  40};
constexpr double kBetween[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075,
                               0.1,    0.15,  0.2,    0.3,   0.4,  0.5,   1,    2};
constexpr double kAnswer[] = {0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480};
constexpr double kTokens[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10'000, 20'000, 50'000, 100'000};
static_assert(std::size(kAnswer) <= Histogram::kBucketsMax);

// The page writes them in this order.
constexpr MetricRow kRows[] = {
    {"tandem:num_requests_running", "gauge", "requests that a step computes"},
    {"tandem:num_requests_waiting", "gauge", "requests in the queue"},
    {"tandem:kv_cache_usage_perc", "gauge", "part of the KV blocks that running requests hold, 0 to 1, by worker"},
    {"tandem:num_preemptions_total", "counter", "requests whose blocks were taken away for others"},
    {"tandem:prompt_tokens_total", "counter", "tokens of prompts"},
    {"tandem:prefix_cache_queries_total", "counter", "tokens of prompts that were looked for in the prefix cache"},
    {"tandem:prefix_cache_hits_total", "counter", "tokens of prompts that were found there"},
    {"tandem:generation_tokens_total", "counter", "tokens of answers"},
    {"tandem:request_success_total", "counter", "answers that ended, by finished_reason"},
    {"tandem:time_to_first_token_seconds", "histogram", "from the request to the first token of each answer"},
    {"tandem:inter_token_latency_seconds", "histogram", "between tokens of an answer"},
    {"tandem:e2e_request_latency_seconds", "histogram", "from the request to the end of each answer"},
    {"tandem:request_prompt_tokens", "histogram", "length of prompts"},
    {"tandem:request_generation_tokens", "histogram", "length of answers"},
    {"tandem:worker_busy_seconds_total", "counter", "computing, by worker (A0, F0, …)"},
    {"tandem:worker_wait_seconds_total", "counter",
     "waiting for a peer's hand-over or return within a step, by worker"},
    {"tandem:worker_steps_total", "counter", "steps, by worker"},
    {"tandem:worker_rows_total", "counter", "rows computed, by worker"},
    {"tandem:worker_resends_total", "counter",
     "hand-overs sent again, by worker; of decoding steps by flags, steps given again"},
    {"tandem:worker_frames_refused_total", "counter", "frames that were damaged or not expected, by worker"},
    {"tandem:bubble_ratio", "gauge",
     "part of its steps that a side waits for the other, 0 to 1, by role; since they met"},
    {"tandem:deployment_epoch", "gauge", "of a deployment of processes: grows each time who takes part changes"},
    {"tandem:deployment_formations_total", "counter", "how often its workers have met and run"},
    {"tandem:deployment_workers_present", "gauge", "its workers that are connected and not drained, by role"},
    {"tandem:pictures_total", "counter", "pictures that requests brought to the vision worker"},
    {"tandem:picture_cache_hits_total", "counter", "of these, those whose rows were kept from an earlier request"},
    {"tandem:picture_views_total", "counter", "squares that the vision worker encoded: wholes and crops"},
    {"tandem:http_connections", "gauge", "open connections"},
    {"tandem:http_responses_total", "counter", "answered exchanges, by status"},
    {"tandem:http_clients_gone_total", "counter", "clients that left before their answer ended"},
    {"tandem:answers_open", "gauge", "answers under way, against --streams-max"},
    {"tandem:unknown_fields_total", "counter", "fields of requests that were passed over"},
    {"tandem:log_lines_lost_total", "counter", "lines that the request log could not be given"},
};

// Checks on the way that the page and the table of metrics are the same.
class Page {
 public:
  std::string& begin(std::string_view name) {
    TANDEM_CHECK(next_ < std::size(kRows) && kRows[next_].name == name,
                 "metrics are written in the order of their table");
    const MetricRow& row = kRows[next_++];
    text_ += format("# HELP {} {}\n# TYPE {} {}\n", row.name, row.doc, row.name, row.kind);
    return text_;
  }
  template <class T>
  void value(std::string_view name, const T& value) {
    begin(name) += format("{} {}\n", name, value);
  }
  template <class T>
  void labelled(std::string_view name, std::string_view label, std::string_view of, const T& value) {
    text_ += format("{}{{{}=\"{}\"}} {}\n", name, label, of, value);
  }
  void histogram(std::string_view name, const Histogram& histogram) { histogram.write(begin(name), name); }
  std::string take() {
    TANDEM_CHECK(next_ == std::size(kRows), "a metric of the table is not written");
    return std::move(text_);
  }

 private:
  std::string text_;
  std::size_t next_ = 0;
};

template <class Value>
void per_worker(Page& page, const Engine& engine, std::string_view name, Value value) {
  page.begin(name);
  int index = 0;
  for (const RequestTaker* worker : engine.workers().takers())
    page.labelled(name, "worker", format("A{}", index++), value(worker->stats()));
  index = 0;
  for (const WorkerStats* stats : engine.workers().ffn_stats())
    page.labelled(name, "worker", format("F{}", index++), value(*stats));
}

void write_load(Page& page, const Engine& engine) {
  std::int64_t running = 0, waiting = 0, preemptions = 0;
  for (const RequestTaker* worker : engine.workers().takers()) {
    const Scheduler::Load load = worker->load();
    running += load.running;
    waiting += load.waiting;
    preemptions += load.preemptions;
  }
  page.value("tandem:num_requests_running", running);
  page.value("tandem:num_requests_waiting", waiting);
  page.begin("tandem:kv_cache_usage_perc");
  int index = 0;
  for (const RequestTaker* worker : engine.workers().takers()) {
    const KvSpace::Usage kv = worker->load().kv;
    page.labelled("tandem:kv_cache_usage_perc", "worker", format("A{}", index++),
                  static_cast<double>(kv.held) / static_cast<double>(std::max<std::int64_t>(kv.blocks, 1)));
  }
  page.value("tandem:num_preemptions_total", preemptions);
}

void write_prefix_cache(Page& page, const Engine& engine) {
  std::int64_t lookups = 0, hits = 0;
  for (const RequestTaker* worker : engine.workers().takers()) {
    const KvSpace::Usage kv = worker->load().kv;
    lookups += kv.lookup_tokens;
    hits += kv.hit_tokens;
  }
  page.value("tandem:prefix_cache_queries_total", lookups);
  page.value("tandem:prefix_cache_hits_total", hits);
}

void write_workers(Page& page, const Engine& engine) {
  const auto seconds = [](const std::atomic<std::int64_t>& ns) { return static_cast<double>(ns.load()) * 1e-9; };
  per_worker(page, engine, "tandem:worker_busy_seconds_total",
             [&](const WorkerStats& s) { return seconds(s.busy_ns); });
  per_worker(page, engine, "tandem:worker_wait_seconds_total",
             [&](const WorkerStats& s) { return seconds(s.wait_ns); });
  per_worker(page, engine, "tandem:worker_steps_total", [](const WorkerStats& s) { return s.steps.load(); });
  per_worker(page, engine, "tandem:worker_rows_total", [](const WorkerStats& s) { return s.rows.load(); });
  per_worker(page, engine, "tandem:worker_resends_total", [](const WorkerStats& s) { return s.resends.load(); });
  per_worker(page, engine, "tandem:worker_frames_refused_total",
             [](const WorkerStats& s) { return s.frames_refused.load(); });
}

// Waiting within steps, as part of all the time that a side's workers spend in steps; 0 before the first.
double bubble_ratio(const std::vector<const WorkerStats*>& workers) {
  std::int64_t busy = 0, wait = 0;
  for (const WorkerStats* stats : workers) {
    busy += stats->busy_ns;
    wait += stats->wait_ns;
  }
  return static_cast<double>(wait) / static_cast<double>(std::max<std::int64_t>(busy + wait, 1));
}

void write_bubbles(Page& page, const Engine& engine) {
  std::vector<const WorkerStats*> attention;
  for (const RequestTaker* worker : engine.workers().takers()) attention.push_back(&worker->stats());
  page.begin("tandem:bubble_ratio");
  page.labelled("tandem:bubble_ratio", "role", "attention", bubble_ratio(attention));
  page.labelled("tandem:bubble_ratio", "role", "ffn", bubble_ratio(engine.workers().ffn_stats()));
}

// Without values where workers are threads of this process.
void write_formation(Page& page, const Engine& engine) {
  const std::optional<Formation> formation = engine.workers().formation();
  const auto value = [&](std::string_view name, const auto& of) {
    std::string& text = page.begin(name);
    if (formation) text += format("{} {}\n", name, of(*formation));
  };
  value("tandem:deployment_epoch", [](const Formation& f) { return f.epoch; });
  value("tandem:deployment_formations_total", [](const Formation& f) { return f.formations; });
  page.begin("tandem:deployment_workers_present");
  if (!formation) return;
  page.labelled("tandem:deployment_workers_present", "role", "attention", formation->attention_present);
  page.labelled("tandem:deployment_workers_present", "role", "ffn", formation->ffn_present);
}

void write_vision(Page& page, const Engine& engine) {
  static const VisionWorker::Stats kNothing;
  const VisionWorker::Stats& stats = engine.vision_worker() ? engine.vision_worker()->stats() : kNothing;
  page.value("tandem:pictures_total", stats.pictures.load());
  page.value("tandem:picture_cache_hits_total", stats.cache_hits.load());
  page.value("tandem:picture_views_total", stats.views.load());
}

}  // namespace

void Histogram::observe(double value, std::int64_t times) {
  const auto bucket = std::ranges::lower_bound(bounds_, value) - bounds_.begin();
  counts_[bucket] += times;
  sum_us_ += static_cast<std::int64_t>(value * 1e6) * times;
}

void Histogram::write(std::string& page, std::string_view name) const {
  std::int64_t below = 0;
  for (std::size_t i = 0; i < bounds_.size(); ++i) {
    below += counts_[i];
    page += format("{}_bucket{{le=\"{}\"}} {}\n", name, bounds_[i], below);
  }
  below += counts_[bounds_.size()];
  page += format("{}_bucket{{le=\"+Inf\"}} {}\n{}_sum {}\n{}_count {}\n", name, below, name,
                 static_cast<double>(sum_us_.load()) * 1e-6, name, below);
}

Metrics::Metrics()
    : first_token_seconds(kLatency),
      between_tokens_seconds(kBetween),
      answer_seconds(kAnswer),
      prompt_lengths(kTokens),
      answer_lengths(kTokens) {}

void Metrics::count_response(int status) {
  std::lock_guard lock(mutex_);
  ++responses_[status];
}

std::string Metrics::page(const Engine& engine) const {
  Page page;
  write_load(page, engine);
  page.value("tandem:prompt_tokens_total", prompt_tokens.load());
  write_prefix_cache(page, engine);
  page.value("tandem:generation_tokens_total", answer_tokens.load());
  page.begin("tandem:request_success_total");
  for (const FinishReason reason :
       {FinishReason::kStop, FinishReason::kLength, FinishReason::kCancelled, FinishReason::kError})
    page.labelled("tandem:request_success_total", "finished_reason", name(reason),
                  finished[static_cast<std::size_t>(reason)].load());
  page.histogram("tandem:time_to_first_token_seconds", first_token_seconds);
  page.histogram("tandem:inter_token_latency_seconds", between_tokens_seconds);
  page.histogram("tandem:e2e_request_latency_seconds", answer_seconds);
  page.histogram("tandem:request_prompt_tokens", prompt_lengths);
  page.histogram("tandem:request_generation_tokens", answer_lengths);
  write_workers(page, engine);
  write_bubbles(page, engine);
  write_formation(page, engine);
  write_vision(page, engine);
  page.value("tandem:http_connections", connections.load());
  page.begin("tandem:http_responses_total");
  {
    std::lock_guard lock(mutex_);
    for (const auto& [status, count] : responses_)
      page.labelled("tandem:http_responses_total", "status", format("{}", status), count);
  }
  page.value("tandem:http_clients_gone_total", clients_gone.load());
  page.value("tandem:answers_open", answers_running.load());
  page.value("tandem:unknown_fields_total", unknown_fields.load());
  page.value("tandem:log_lines_lost_total", log_lines_lost.load());
  return page.take();
}

std::span<const MetricRow> metric_rows() {
  return kRows;
}

}  // namespace tandem
