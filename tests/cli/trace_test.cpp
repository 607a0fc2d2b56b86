// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The trace of a run: attention and FFN worker busy at the same time with different micro-batches, which is what the
// engine is for.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/format.h"
#include "base/json.h"
#include "tests/cli/program.h"

namespace tandem {
namespace {

struct Span {
  std::string track;
  double begin, end;
  int micro_batch;
};

std::vector<Span> spans_of(const Json& trace) {
  std::map<int, std::string> tracks;
  std::vector<Span> spans;
  for (const Json& event : trace.at("traceEvents")) {
    if (event.at("ph") == "M") tracks[event.at("tid").get<int>()] = event.at("args").at("name").get<std::string>();
    if (event.at("ph") != "X") continue;
    const double begin = event.at("ts").get<double>();
    spans.push_back({tracks.at(event.at("tid").get<int>()), begin, begin + event.at("dur").get<double>(),
                     event.at("args").at("micro_batch").get<int>()});
  }
  return spans;
}

TEST(Trace, ShowsMicroBatchesOverlapping) {
  const std::string path = testing::TempDir() + "tandem_trace.json";
  std::string input;
  for (int i = 0; i < 6; ++i) input += format("{{\"prompt_ids\": [{}, 5, 6, 7], \"max_tokens\": 60}}\n", i + 10);
  const ProgramResult result =
      run_program({"generate", "--model", "tests/goldens/step3_text_bf16", "--layout", "1A1F", "--micro-batches", "3",
                   "--context-tokens-max", "128", "--trace", path, "--jsonl", "-"},
                  input);
  ASSERT_EQ(result.status, 0) << result.err;
  std::ifstream file(path);
  const std::vector<Span> spans = spans_of(parse_json(std::string(std::istreambuf_iterator<char>(file), {}), path));
  std::filesystem::remove(path);
  std::vector<Span> attention, ffn;
  for (const Span& span : spans) (span.track == "A0" ? attention : ffn).push_back(span);
  ASSERT_FALSE(attention.empty());
  ASSERT_FALSE(ffn.empty());
  // Spans of a track are in order, so one pass over both finds those at the same time.
  int overlaps = 0;
  std::size_t from = 0;
  for (const Span& a : attention) {
    while (from < ffn.size() && ffn[from].end <= a.begin) ++from;
    for (std::size_t i = from; i < ffn.size() && ffn[i].begin < a.end; ++i)
      overlaps += ffn[i].micro_batch != a.micro_batch;
  }
  EXPECT_GT(overlaps, 10);
}

}  // namespace
}  // namespace tandem
