// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// That benchmarks run and say what they should; not how fast anything is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "base/json.h"
#include "cli/engine_options.h"
#include "ops/cuda/device.h"
#include "tests/cli/program.h"

namespace tandem {
namespace {

using testing::HasSubstr;

// Enough tokens that a decode is still under way when a starved main thread looks.
TEST(Bench, OneLinePerLayoutPhaseAndBatch) {
  const ProgramResult result =
      run_program({"bench", "model", "--model", "tests/goldens/step3_text_bf16", "--batch", "1,3", "--layout",
                   "local,1A2F", "--rounds", "2", "--prompt-tokens", "20", "--new-tokens", "96", "--json", "--quiet"});
  ASSERT_EQ(result.status, 0) << result.err;
  std::vector<std::string> found;
  std::istringstream lines(result.out);
  for (std::string text; std::getline(lines, text);) {
    const Json line = parse_json(text, "output");
    found.push_back(line["layout"].get<std::string>() + " " + line["phase"].get<std::string>() + " " +
                    std::to_string(line["batch"].get<int>()));
    for (const char* number : {"tokens_per_second", "bytes_per_second", "fraction_of_bandwidth", "flops_per_second"})
      EXPECT_GT(line[number], 0) << number;
  }
  const std::vector<std::string> round = {"local prefill 1", "local decode 1", "local prefill 3", "local decode 3",
                                          "1A2F prefill 1",  "1A2F decode 1",  "1A2F prefill 3",  "1A2F decode 3"};
  std::vector<std::string> rounds = round;
  rounds.insert(rounds.end(), round.begin(), round.end());
  EXPECT_EQ(found, rounds);
}

TEST(Bench, WaitingForTokensIsMeasuredOnAGpu) {
  const ProgramResult result =
      run_program({"bench", "model", "--model", "tests/goldens/llama", "--layout", "local+wait", "--quiet"});
  EXPECT_NE(result.status, 0);
  EXPECT_THAT(result.err, HasSubstr("local+wait is for a GPU, not for cpu"));
  // … and nothing else before it.
  const ProgramResult both = run_program(
      {"bench", "model", "--model", "tests/goldens/llama", "--layout", "local,local+wait", "--quiet", "--batch", "1"});
  EXPECT_NE(both.status, 0);
  EXPECT_EQ(both.out, "");
}

TEST(Bench, LayoutTellsWhatWasTriedAndTaken) {
  const ProgramResult result = run_program({"bench", "layout", "--model", "tests/goldens/llama"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("local   prefill"));
  EXPECT_THAT(result.out, HasSubstr("fastest "));
}

TEST(Bench, GrammarsEachHaveALine) {
  const ProgramResult result =
      run_program({"bench", "grammar", "--model", "tests/goldens/qwen3", "--tokens", "50", "--json"});
  ASSERT_EQ(result.status, 0) << result.err;
  std::vector<std::string> found;
  std::istringstream lines(result.out);
  for (std::string text; std::getline(lines, text);) {
    const Json line = parse_json(text, "output");
    found.push_back(line["grammar"]);
    EXPECT_GT(line["compile_ms"], 0);
    for (const char* walk : {"answer", "random"}) {
      EXPECT_GE(line[walk]["tokens"], 50) << walk;
      for (const char* number : {"us_mean", "us_p50", "us_p99", "us_max"}) EXPECT_GT(line[walk][number], 0) << number;
    }
  }
  EXPECT_THAT(found, testing::ElementsAre("json object", "json schema", "regex", "choice", "grammar", "tool call",
                                          "text, call"));
}

TEST(Bench, WhatTheFirstGrammarMakesForAllIsSaidApart) {
  const ProgramResult result = run_program({"bench", "grammar", "--model", "tests/goldens/qwen3", "--tokens", "10"});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("tokens, ready for grammars in "));
}

// With a GPU its limits are printed; without one the reason is.
TEST(Bench, KernelsSayWhatTheGpuCanDoOrWhatIsMissing) {
  const ProgramResult result =
      run_program({"bench", "kernels", "--device", "cuda", "--only", "no kernel of this name"});
  if (const std::string missing = cuda::why_unusable(cuda::look_at_device()); !missing.empty()) {
    EXPECT_EQ(result.status, 1);
    EXPECT_THAT(result.err, HasSubstr(missing));
    EXPECT_EQ(result.out, "");
    return;
  }
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("TFLOP/s in FP8"));
}

TEST(Bench, AVisionTowerHasALineForWholesAndOneForCrops) {
  const ProgramResult result = run_program({"bench", "vision", "--model", "tests/goldens/step3_vl", "--device", "cpu",
                                            "--samples", "1", "--operators", "--json"});
  ASSERT_EQ(result.status, 0) << result.err;
  std::map<std::int64_t, std::int64_t> rows;  // by side
  std::map<std::int64_t, std::set<std::string>> operators;
  std::istringstream lines(result.out);
  for (std::string text; std::getline(lines, text);) {
    const Json line = parse_json(text, "output");
    const auto side = line["side"].get<std::int64_t>();
    if (line.contains("operator")) {
      operators[side].insert(line["operator"].get<std::string>());
      continue;
    }
    rows[side] = line["rows"].get<std::int64_t>();
    EXPECT_GT(line["seconds"], 0) << text;
    EXPECT_GT(line["flops"], 0) << text;
  }
  EXPECT_EQ(rows, (std::map<std::int64_t, std::int64_t>{{728, 169}, {504, 81}}));
  for (const std::int64_t side : {728, 504})
    EXPECT_EQ(operators[side], (std::set<std::string>{"add_layer_norm", "add_rows", "full_attention", "im2col",
                                                      "matmul", "quick_gelu"}));
}

TEST(Bench, OperatorsOfAModelEachHaveALine) {
  const ProgramResult result = run_program({"bench", "kernels", "--device", "cpu", "--model", "tests/goldens/llama",
                                            "--batch", "3", "--prompt-tokens", "20", "--json"});
  ASSERT_EQ(result.status, 0) << result.err;
  std::set<std::string> decode;
  std::istringstream lines(result.out);
  for (std::string text; std::getline(lines, text);) {
    const Json line = parse_json(text, "output");
    EXPECT_EQ(line["batch"], 3);
    for (const char* number : {"calls", "microseconds", "fraction_of_time"}) EXPECT_GT(line[number], 0) << text;
    if (line["phase"] == "decode" && line["shape"].get<std::string>().starts_with("3 rows"))
      decode.insert(line["operator"].get<std::string>());
  }
  for (const char* op : {"matmul", "paged_attention", "add_rms_norm", "swiglu", "sample"})
    EXPECT_TRUE(decode.contains(op)) << op;
}

TEST(Bench, MachineWritesAFileThatPlansTake) {
  const ProgramResult toml =
      run_program({"bench", "machine", "--toml", "--usd-per-hour", "2.5", "--network-gbps", "400"});
  EXPECT_EQ(toml.status, 0) << toml.err;
  const std::string path = testing::TempDir() + "tandem_bench_machine_test.toml";
  std::ofstream(path) << toml.out;
  EXPECT_THAT(toml.out, HasSubstr("usd_per_hour = 2.5\n"));
  EXPECT_THAT(toml.out, HasSubstr("network_bandwidth = 50000000000\n"));
  const ProgramResult plan = run_program({"plan", "cost", "--model", "step3", "--hardware", path, "--format", "json"});
  EXPECT_EQ(plan.status, 0) << plan.err;
  EXPECT_EQ(run_program({"bench", "machine", "--toml", "--json"}).status, 2);
}

TEST(Bench, AutoIsALayoutEverywhere) {
  const ProgramResult result =
      run_program({"generate", "--model", "tests/goldens/llama", "--layout", "auto", "--text", "-n", "2", "The work"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("fastest "));
}

TEST(BenchLoad, SetsLoadingBesideReading) {
  const ProgramResult result = run_program({"bench", "load", "--model", "tests/goldens/step3_text_fp8", "--repeats",
                                            "2", "--layout", "1A2F", "-q", "--json"});
  ASSERT_EQ(result.status, 0) << result.err;
  std::istringstream lines(result.out);
  int from_memory = 0;
  for (std::string line; std::getline(lines, line);) {
    const Json json = parse_json(line, "output");
    for (const char* key : {"read_bytes_per_second", "load_seconds", "load_bytes_per_second", "fraction_of_reading"})
      EXPECT_GT(json[key], 0) << key;
    EXPECT_GT(json["stored_bytes"], 0);
    EXPECT_GT(json["peak_over_stored"], 1) << "the program itself is larger than this model";
    from_memory += json["from"] == "memory" ? 1 : 0;
  }
  EXPECT_EQ(from_memory, 2);
}

TEST(BenchLoad, SaysWhenNothingIsLoaded) {
  const ProgramResult result =
      run_program({"bench", "load", "--model", "tests/goldens/llama", "--cpu-variant", "z80", "-q"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, testing::HasSubstr("was not loaded"));
}

TEST(Bench, ASliceSaysWhichOptionsDoNotGoTogether) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases{
      {{"--sides", "ffn", "--link-us", "10"}, "--link-us, --link-gbps and --stall-ffn-us are of both sides together"},
      {{"--deploy", "2A5F"}, "deployment '2A5F'"},
      {{"--routing", "zipf:x"}, "--routing 'zipf:x'"},
      {{"--trace", "no/such/folder/trace.json"}, "cannot write the timeline to no/such/folder/trace.json"},
      {{"--experts", "ep3tp8"}, "--experts"},
      {{"--layout", "ep8"}, "--layout"},
      {{"--context", "128K"}, "--context: Value 131072 not in range"},
      {{"--context", "4Q"}, "--context: Value 4Q not in range"},
      {{"--trace-steps", "1"}, "--trace-steps"},
      {{"--warm-up-seconds", "-1"}, "--warm-up-seconds"},
      {{"--flags-by", "nobody"}, "--flags-by: nobody not in {threads,front-ends}"},
      {{"--flags-by", "0"}, "--flags-by: 0 not in {threads,front-ends}"},
      {{"--flags-by", "threads", "--deploy", "ep16"}, "--flags-by: hand-overs are between two sides"},
      {{"--sides", "left"}, "--sides: left not in {both,attention,ffn}"},
      {{"--sides", "attention", "--no-alone"}, "--no-alone is of both sides together"},
      {{"--hand-over", "--deploy", "2A2F"}, "--deploy is of a slice, and --hand-over runs none"},
      {{"--hand-over", "--trace", "no/such/folder/trace.json"}, "--trace is of a slice"},
      {{"--hand-over", "--flags-by", "threads"}, "--flags-by is of a slice"}};
  for (const auto& [arguments, message] : cases) {
    std::vector<std::string> all{"bench", "slice"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const ProgramResult result = run_program(all);
    EXPECT_GT(result.status, 0) << message;
    EXPECT_THAT(result.err, HasSubstr(message));
  }
}

TEST(Bench, HelpOfASliceHasWordsAndDefaults) {
  const ProgramResult result = run_program({"bench", "slice", "--help"});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_TRUE(std::ranges::none_of(
      result.out, [](char c) { return static_cast<unsigned char>(c) < ' ' && c != '\n' && c != '\t'; }));
  for (const char* described :
       {"--flags-by TEXT:{threads,front-ends}=front-ends", "--sides TEXT:{both,attention,ffn}=both",
        "--experts TEXT:{whole,ep16,cut,ep2tp8}=whole"})
    EXPECT_THAT(result.out, HasSubstr(described));
}

// Where there are two GPUs, every kind of hand-over with its size; else the reason.
TEST(Bench, HandOversBetweenGpusAreALineEach) {
  const ProgramResult result = run_program({"bench", "slice", "--hand-over", "--json"});
  const cuda::DeviceFacts facts = cuda::look_at_device();
  const std::string missing = cuda::why_unusable(facts);
  if (!missing.empty() || facts.devices < 2) {
    EXPECT_EQ(result.status, 1);
    EXPECT_THAT(result.err, HasSubstr(missing.empty() ? "GPU 1 of 1" : missing));
    return;
  }
  ASSERT_EQ(result.status, 0) << result.err;
  std::set<std::string> kinds;
  std::istringstream lines(result.out);
  for (std::string text; std::getline(lines, text);) {
    const Json line = parse_json(text, "output");
    kinds.insert(line["rows_by"].get<std::string>() + ", " + line["flags_by"].get<std::string>() + ", " +
                 std::to_string(line["hand_over_bytes"].get<std::int64_t>()));
    EXPECT_GT(line["one_way_us"], 0);
  }
  EXPECT_EQ(kinds.size(), 16u);
  EXPECT_EQ(kinds.count("stores, threads, 1048576"), 1u);
}

}  // namespace
}  // namespace tandem
