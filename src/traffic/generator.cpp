// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "traffic/generator.h"

#include <poll.h>

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "base/format.h"
#include "base/json.h"

namespace tandem {

namespace {

constexpr std::size_t kErrorBytesMax = 300;

bool has_text(const Json& object, const char* field) {
  const auto text = object.find(field);
  return text != object.end() && text->is_string() && !text->get_ref<const std::string&>().empty();
}

// Whether a choice of a chunk brings part of an answer.
bool brings_something(const Json& choice) {
  if (has_text(choice, "text")) return true;
  const auto delta = choice.find("delta");
  if (delta == choice.end() || !delta->is_object()) return false;
  const auto calls = delta->find("tool_calls");
  return has_text(*delta, "content") || has_text(*delta, "reasoning_content") || has_text(*delta, "reasoning") ||
         (calls != delta->end() && !calls->empty());
}

std::int64_t count_in(const Json& usage, const char* field) {
  const auto count = usage.find(field);
  return count != usage.end() && count->is_number_integer() ? count->get<std::int64_t>() : 0;
}

// A request under way.
class Exchange {
 public:
  Exchange(LoadRecord& record, const Endpoints& to, std::string request, Nanoseconds deadline)
      : deadline(deadline), caller(to, std::move(request)), record_(record) {}

  // Takes what has come. True when the request has ended, well or not.
  bool advance(Nanoseconds now) {
    try {
      const bool whole = caller.advance();
      for (const std::string& event : caller.reader().take_events()) take(event, now);
      if (whole) finish();
      return whole;
    } catch (const Error& error) {
      record_.error = error.message();
      return true;
    }
  }
  void end(Nanoseconds now) {
    record_.end = now;
    if (record_.output_tokens == 0) record_.output_tokens = pieces_;
  }
  void fail(std::string why) { record_.error = std::move(why); }

  const Nanoseconds deadline;
  Caller caller;

 private:
  void take(const std::string& event, Nanoseconds now) {
    if (event == "[DONE]") {
      done_ = true;
      return;
    }
    const Json json = parse_json(event, "event");
    if (!json.is_object()) throw Error(ErrorCode::kInvalidData, "an event is no object");
    if (const auto error = json.find("error"); error != json.end() && !error->is_null())
      throw Error(ErrorCode::kUnavailable, to_line(*error).substr(0, kErrorBytesMax));
    if (const auto usage = json.find("usage"); usage != json.end() && usage->is_object()) {
      record_.input_tokens = count_in(*usage, "prompt_tokens");
      record_.output_tokens = count_in(*usage, "completion_tokens");
    }
    const auto choices = json.find("choices");
    if (choices == json.end() || !choices->is_array()) return;
    for (const Json& choice : *choices)
      if (choice.is_object()) take_choice(choice, now);
  }

  void take_choice(const Json& choice, Nanoseconds now) {
    if (has_text(choice, "finish_reason")) record_.finish_reason = choice["finish_reason"];
    if (!brings_something(choice)) return;
    if (pieces_++ == 0)
      record_.first = now;
    else
      record_.gaps.push_back(now - record_.last);
    record_.last = now;
  }

  void finish() {
    const AnswerReader& reader = caller.reader();
    if (reader.status() != 200)
      throw Error(ErrorCode::kUnavailable,
                  format("status {}: {}", reader.status(), reader.body().substr(0, kErrorBytesMax)));
    if (!reader.is_stream()) throw Error(ErrorCode::kInvalidData, "the answer is no stream of events");
    if (!done_) throw Error(ErrorCode::kInvalidData, "the stream ended without data: [DONE]");
  }

  LoadRecord& record_;
  std::int64_t pieces_ = 0;
  bool done_ = false;
};

class Run {
 public:
  Run(const std::vector<LoadRequest>& workload, const Endpoints& to, const GeneratorConfig& config, const Clock& clock,
      const OnEnded& progress)
      : workload_(workload),
        to_(to),
        config_(config),
        clock_(clock),
        progress_(progress),
        begin_(clock.now()),
        records_(workload.size()) {}

  std::vector<LoadRecord> run() {
    while (next_ < workload_.size() || !open_.empty()) {
      start_what_is_due();
      wait();
      advance();
    }
    return std::move(records_);
  }

 private:
  Nanoseconds now() const { return clock_.now() - begin_; }
  bool has_place() const {
    return next_ < workload_.size() && static_cast<std::int64_t>(open_.size()) < config_.concurrency;
  }

  void start_what_is_due() {
    for (; has_place() && workload_[next_].arrival <= now(); ++next_) {
      LoadRecord& record = records_[next_];
      // A request that arrived while there was no place has been waiting since then.
      record.due = workload_[next_].arrival > 0 ? workload_[next_].arrival : now();
      try {
        open_.push_back(std::make_unique<Exchange>(
            record, to_, request_text(to_.address, config_.path, config_.api_key, workload_[next_].body),
            now() + config_.timeout_ms * kMillisecond));
      } catch (const Error& error) {
        record.error = error.message();
        record.end = now();
        tell();
      }
    }
  }

  void wait() {
    pollers_.clear();
    Nanoseconds until = INT64_MAX;
    for (const auto& exchange : open_) {
      pollers_.push_back({.fd = exchange->caller.descriptor(), .events = exchange->caller.events(), .revents = 0});
      until = std::min(until, exchange->deadline);
    }
    if (has_place()) until = std::min(until, workload_[next_].arrival);
    if (until == INT64_MAX) return;
    const Nanoseconds left = std::clamp<Nanoseconds>(until - now(), 0, kSecond);
    const timespec timeout{.tv_sec = left / kSecond, .tv_nsec = left % kSecond};
    ::ppoll(pollers_.data(), pollers_.size(), &timeout, nullptr);
  }

  void advance() {
    const Nanoseconds time = now();
    for (std::size_t i = 0; i < pollers_.size(); ++i) {
      Exchange& exchange = *open_[i];
      bool ended = pollers_[i].revents != 0 && exchange.advance(time);
      if (!ended && time >= exchange.deadline) {
        exchange.fail(format("no end within {} ms", config_.timeout_ms));
        ended = true;
      }
      if (!ended) continue;
      exchange.end(time);
      open_[i].reset();
      tell();
    }
    std::erase(open_, nullptr);
  }

  void tell() {
    ++ended_;
    if (progress_) progress_(ended_);
  }

  const std::vector<LoadRequest>& workload_;
  const Endpoints& to_;
  const GeneratorConfig& config_;
  const Clock& clock_;
  const OnEnded& progress_;
  const Nanoseconds begin_;
  std::vector<LoadRecord> records_;
  std::size_t next_ = 0, ended_ = 0;
  std::vector<std::unique_ptr<Exchange>> open_;
  std::vector<pollfd> pollers_;
};

}  // namespace

std::vector<LoadRecord> run_workload(const std::vector<LoadRequest>& workload, const Endpoints& to,
                                     const GeneratorConfig& config, const Clock& clock, const OnEnded& progress) {
  return Run(workload, to, config, clock, progress).run();
}

}  // namespace tandem
