// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "traffic/workload.h"

#include <array>
#include <charconv>
#include <cmath>
#include <fstream>

#include "base/error.h"
#include "base/format.h"
#include "base/json.h"
#include "base/rng.h"

namespace tandem {

namespace {

constexpr std::int64_t kTokensMax = 10'000'000;
constexpr std::size_t kLinesMax = 1'000'000;

constexpr std::array kWords = {
    "time",     "year",    "people",   "way",    "day",     "man",   "thing",   "woman",  "life",   "child",  "world",
    "school",   "state",   "family",   "group",  "country", "hand",  "part",    "place",  "case",   "week",   "company",
    "system",   "program", "question", "work",   "night",   "point", "home",    "water",  "room",   "mother", "area",
    "money",    "story",   "fact",     "month",  "lot",     "right", "study",   "book",   "eye",    "job",    "word",
    "business", "issue",   "side",     "kind",   "head",    "house", "service", "friend", "father", "power",  "hour",
    "game",     "line",    "end",      "member", "law",     "car",   "city",    "name",   "team"};

std::int64_t drawn(Rng& rng, const TokenRange& range) {
  return range.min + static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(range.max - range.min + 1)));
}

std::string words(Rng& rng, std::int64_t count) {
  std::string text;
  for (std::int64_t i = 0; i < count; ++i) {
    if (i > 0) text += ' ';
    text += kWords[rng.below(kWords.size())];
  }
  return text;
}

OrderedJson made_up(const WorkloadConfig& config, Rng& rng) {
  const std::string text = words(rng, drawn(rng, config.input));
  OrderedJson body;
  if (config.chat)
    body["messages"] = OrderedJson::array({{{"role", "user"}, {"content", text}}});
  else
    body["prompt"] = text;
  return body;
}

std::vector<OrderedJson> read_dataset(const WorkloadConfig& config) {
  std::ifstream file(config.dataset);
  if (!file) throw Error(ErrorCode::kNotFound, format("dataset {} cannot be read", config.dataset));
  std::vector<OrderedJson> lines;
  std::size_t number = 0;
  for (std::string text; std::getline(file, text) && lines.size() < kLinesMax;) {
    ++number;
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string what = format("{} line {}", config.dataset, number);
    OrderedJson line = parse_ordered_json(text, what);
    const char* input = config.chat ? "messages" : "prompt";
    if (!line.is_object()) throw Error(ErrorCode::kInvalidData, format("{} is no object", what));
    if (config.chat && !line.contains("messages") && line.contains("prompt") && line["prompt"].is_string()) {
      line["messages"] = OrderedJson::array({{{"role", "user"}, {"content", line["prompt"]}}});
      line.erase("prompt");
    }
    if (!line.contains(input)) throw Error(ErrorCode::kInvalidData, format("{} has no {}", what, input));
    lines.push_back(std::move(line));
  }
  if (lines.empty()) throw Error(ErrorCode::kInvalidData, format("dataset {} has no line", config.dataset));
  return lines;
}

// What the line of a dataset says wins.
void complete(OrderedJson& body, const WorkloadConfig& config, Rng& rng) {
  const std::int64_t tokens = drawn(rng, config.output);  // drawn in any case: the next request's draws stay the same
  const auto unless_said = [&](const char* field, OrderedJson value) {
    if (!body.contains(field)) body[field] = std::move(value);
  };
  if (!config.model.empty()) body["model"] = config.model;
  if (!body.contains("max_completion_tokens")) unless_said("max_tokens", tokens);
  unless_said("temperature", config.temperature);
  if (!config.stop_early) unless_said("ignore_eos", true);
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
}

void check(const WorkloadConfig& config) {
  for (const TokenRange& range : {config.input, config.output})
    if (range.min < 1 || range.max < range.min || range.max > kTokensMax)
      throw Error(ErrorCode::kInvalidArgument, format("lengths {}:{} must be 1:1 to {}:{}, the smaller first",
                                                      range.min, range.max, kTokensMax, kTokensMax));
  if (!(config.rate >= 0) || !std::isfinite(config.rate))
    throw Error(ErrorCode::kInvalidArgument, format("rate is {}, must be 0 or more", config.rate));
}

}  // namespace

TokenRange parse_token_range(const std::string& text) {
  TokenRange range;
  const char *begin = text.data(), *end = begin + text.size();
  auto [at, failure] = std::from_chars(begin, end, range.min);
  range.max = range.min;
  if (failure == std::errc() && at != end && *at == ':')
    std::tie(at, failure) = [&] {
      const auto second = std::from_chars(at + 1, end, range.max);
      return std::pair(second.ptr, second.ec);
    }();
  if (failure != std::errc() || at != end)
    throw Error(ErrorCode::kInvalidArgument, format("length is {}, must be a number or two as in 64:512", text));
  return range;
}

std::vector<LoadRequest> make_workload(const WorkloadConfig& config) {
  check(config);
  std::vector<OrderedJson> dataset;
  if (!config.dataset.empty()) dataset = read_dataset(config);
  // Two streams of numbers, so that another rate leaves the prompts what they are.
  Rng texts(mix64(config.seed)), times(mix64(config.seed ^ 0x5eed));
  std::vector<LoadRequest> requests;
  double seconds = 0;
  for (std::int64_t i = 0; i < config.requests; ++i) {
    OrderedJson body = dataset.empty() ? made_up(config, texts) : dataset[static_cast<std::size_t>(i) % dataset.size()];
    complete(body, config, texts);
    if (config.rate > 0) seconds += -std::log1p(-times.uniform()) / config.rate;
    requests.push_back({.arrival = static_cast<Nanoseconds>(seconds * 1e9), .body = to_line(body)});
  }
  return requests;
}

}  // namespace tandem
