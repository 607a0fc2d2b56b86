// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "verify/verify.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include "base/format.h"

namespace tandem {

namespace {

constexpr double kRouteWeightMaxF32 = 1e-5;
constexpr Nanoseconds kPatience = 600 * kSecond;

// What the engine computed for one request, by position.
struct Recorded {
  std::map<std::int64_t, std::vector<float>> logits;
  std::map<std::pair<std::int32_t, std::int64_t>, std::vector<std::pair<std::int32_t, float>>>
      routes;  // by (layer, position)
  std::vector<std::int32_t> tokens;
  Status status;
};

class Recorder final : public Observer {
 public:
  void on_route(RequestId request, std::int64_t position, std::int32_t layer, std::span<const std::int32_t> ids,
                std::span<const float> weights) override {
    std::vector<std::pair<std::int32_t, float>> choice;
    for (std::size_t i = 0; i < ids.size(); ++i) choice.emplace_back(ids[i], weights[i]);
    std::sort(choice.begin(), choice.end());  // compared as id → weight
    std::lock_guard lock(mutex_);
    recorded_[request].routes[{layer, position}] = std::move(choice);
  }
  void on_logits(RequestId request, std::int64_t position, std::span<const float> logits) override {
    std::lock_guard lock(mutex_);
    recorded_[request].logits[position].assign(logits.begin(), logits.end());
  }
  // After the engine has stopped.
  Recorded& of(RequestId request) { return recorded_[request]; }

 private:
  std::mutex mutex_;  // several attention workers
  std::map<RequestId, Recorded> recorded_;
};

// The recorded rows at the placeholders of a prompt, in order.
std::vector<EmbeddedSpan> place_visual_rows(const ExpectedPrompt& prompt, std::int32_t placeholder) {
  std::vector<EmbeddedSpan> spans;
  std::int64_t used = 0;
  for (std::int64_t i = 0; i < std::ssize(prompt.ids); ++i) {
    if (prompt.ids[i] != placeholder) continue;
    if (spans.empty() || spans.back().end() != i) spans.push_back({i, 0, used, prompt.visual_rows});
    ++spans.back().count;
    ++used;
  }
  return spans;
}

std::vector<RequestId> run_prompts(Engine& engine, const Expectations& expectations, Recorder& recorder) {
  const auto events = std::make_shared<EventStream>();
  std::vector<RequestId> ids;
  std::map<RequestId, std::vector<std::int32_t>> tokens;
  std::map<RequestId, Status> failures;
  for (const ExpectedPrompt& prompt : expectations.prompts) {
    Request request;
    request.id = engine.next_id();
    request.prompt = prompt.ids;
    if (prompt.visual_rows && engine.model().vision)
      request.embedded = place_visual_rows(prompt, engine.model().vision->image_token);
    // One more than recorded: the last recorded token is fed too, for its expert choices.
    request.new_tokens_max = static_cast<std::int32_t>(prompt.greedy_ids.size()) + 1;
    request.prompt_logits = true;
    ids.push_back(request.id);
    const RequestId id = request.id;
    if (Status submitted = engine.submit(std::move(request), events); !submitted) failures[id] = std::move(submitted);
  }
  for (std::size_t left = ids.size() - failures.size(); left > 0;) {
    const std::optional<RequestEvent> event = events->pop(kPatience);
    if (!event) break;
    for (const SampledToken& token : event->tokens) tokens[event->id].push_back(token.id);
    if (event->finish == FinishReason::kError) failures[event->id] = event->status;
    left -= event->finish != FinishReason::kNone;
  }
  engine.stop();
  for (const RequestId id : ids) {
    recorder.of(id).tokens = tokens[id];
    recorder.of(id).status = failures[id];
  }
  return ids;
}

// Adds one row of logits to the errors. NaN counts as infinitely wrong.
void compare_row(std::span<const float> expected, const std::vector<float>& found, double& max_abs, double& squares,
                 std::int64_t& count) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double error = i < found.size() ? std::abs(static_cast<double>(expected[i]) - found[i]) : INFINITY;
    max_abs = std::isnan(error) ? INFINITY : std::max(max_abs, error);
    squares += error * error;
    ++count;
  }
}

// Rows before position end: from the first token on that goes to other experts, where that is allowed, rows are of
// another computation.
void compare_logits(const ExpectedPrompt& expected, Recorded& found, std::int64_t end, PromptVerdict& verdict) {
  const auto vocab = static_cast<std::size_t>(expected.vocab);
  const auto prompt = static_cast<std::int64_t>(expected.ids.size());
  double squares = 0;
  std::int64_t count = 0;
  for (std::size_t i = 0; i < expected.logit_rows.size() && expected.logit_rows[i] < end; ++i)
    compare_row(std::span(expected.logits).subspan(i * vocab, vocab), found.logits[expected.logit_rows[i]],
                verdict.logits_max_abs, squares, count);
  // Row i is what greedy id i was taken from; beyond the first other token there is nothing to compare.
  const auto last = std::min(verdict.greedy_same, end - prompt);
  for (std::size_t i = 1; i < expected.greedy_ids.size() && static_cast<std::int64_t>(i) <= last; ++i)
    compare_row(std::span(expected.greedy_logits).subspan(i * vocab, vocab),
                found.logits[prompt - 1 + static_cast<std::int64_t>(i)], verdict.logits_max_abs, squares, count);
  verdict.logits_rms = std::sqrt(squares / static_cast<double>(std::max<std::int64_t>(count, 1)));
}

// A router's factor makes weights, and their rounding, larger than one.
double weight_error(double expected, double found) {
  return std::abs(expected - found) / std::max(1.0, std::abs(expected));
}

// scale: what the recorded weights lack of ours.
void compare_routes(const ExpectedPrompt& expected, Recorded& found, float scale, PromptVerdict& verdict) {
  const auto positions = static_cast<std::int64_t>(expected.ids.size()) + verdict.greedy_same;
  for (const auto& [layer, routes] : expected.routes) {
    for (std::int64_t position = 0; position < positions; ++position) {
      const auto choice = found.routes.find({layer, position});
      ++verdict.routes;
      std::vector<std::pair<std::int32_t, float>> wanted;
      for (std::int64_t i = position * routes.k; i < (position + 1) * routes.k; ++i)
        wanted.emplace_back(routes.ids[i], scale * routes.weights[i]);
      std::sort(wanted.begin(), wanted.end());
      const bool same = choice != found.routes.end() &&
                        std::equal(wanted.begin(), wanted.end(), choice->second.begin(), choice->second.end(),
                                   [](const auto& a, const auto& b) { return a.first == b.first; });
      verdict.routes_different += !same;
      if (!same) verdict.routes_same = std::min(verdict.routes_same, position);
      for (std::size_t i = 0; same && i < wanted.size(); ++i)
        verdict.route_weight_max_abs =
            std::max(verdict.route_weight_max_abs, weight_error(wanted[i].second, choice->second[i].second));
    }
  }
}

PromptVerdict judge(const ExpectedPrompt& expected, bool f32, float route_scale, Recorded& found) {
  const LogitLimits& limits = expected.limits;
  PromptVerdict v;
  v.name = expected.name;
  v.tokens = static_cast<std::int64_t>(expected.ids.size());
  v.greedy_total = static_cast<std::int64_t>(expected.greedy_ids.size());
  while (v.greedy_same < v.greedy_total && v.greedy_same < static_cast<std::int64_t>(found.tokens.size()) &&
         found.tokens[v.greedy_same] == expected.greedy_ids[v.greedy_same])
    ++v.greedy_same;
  const auto fault = [&](bool bad, std::string text) {
    if (bad) v.faults.push_back(std::move(text));
  };
  if (!found.status) {
    fault(true, found.status.error().message());
    return v;
  }
  compare_routes(expected, found, route_scale, v);
  const bool same_experts = f32 || expected.bf16_same_experts, same_greedy = f32 || expected.bf16_same_greedy;
  compare_logits(expected, found, same_experts ? std::numeric_limits<std::int64_t>::max() : v.routes_same, v);
  if (limits.rms_rounded > 0) {
    fault(!(v.logits_rms <= limits.rms_rounded),
          format("rms logit error {:.3g}, limit {:.3g}", v.logits_rms, limits.rms_rounded));
    return v;
  }
  const double max_abs = f32 ? limits.max_abs_f32 : limits.max_abs_bf16;
  fault(max_abs > 0 && !(v.logits_max_abs <= max_abs),
        format("largest logit error {:.3g}, limit {:.3g}", v.logits_max_abs, max_abs));
  fault(!f32 && !(v.logits_rms <= limits.rms_bf16),
        format("rms logit error {:.3g}, limit {:.3g}", v.logits_rms, limits.rms_bf16));
  fault(same_experts && v.routes_different > 0, format("{} of {} expert choices differ", v.routes_different, v.routes));
  fault(f32 && v.route_weight_max_abs > kRouteWeightMaxF32,
        format("expert weights differ by {:.3g}, limit {:.3g}", v.route_weight_max_abs, kRouteWeightMaxF32));
  fault(same_greedy && v.greedy_same < v.greedy_total,
        format("greedy token {} of {} differs", v.greedy_same + 1, v.greedy_total));
  return v;
}

}  // namespace

bool Verdict::passed() const {
  return !prompts.empty() &&
         std::all_of(prompts.begin(), prompts.end(), [](const PromptVerdict& p) { return p.faults.empty(); });
}

Verdict verify(const Checkpoint& checkpoint, const Expectations& expectations, EngineConfig config) {
  Recorder recorder;
  config.observer = &recorder;
  const std::unique_ptr<Engine> engine = Engine::start(checkpoint, config);
  const std::vector<RequestId> ids = run_prompts(*engine, expectations, recorder);
  Verdict verdict;
  verdict.f32 = config.kv_dtype == DType::kF32;
  verdict.activations = expectations.activations;
  const float route_scale = expectations.weights_scaled ? 1 : engine->model().router.scale;
  for (std::size_t i = 0; i < ids.size(); ++i)
    verdict.prompts.push_back(judge(expectations.prompts[i], verdict.f32, route_scale, recorder.of(ids[i])));
  return verdict;
}

}  // namespace tandem
