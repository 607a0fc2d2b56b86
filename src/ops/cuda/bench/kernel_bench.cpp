// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/bench/kernel_bench.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/bench/attention_stage_problem.h"
#include "ops/cuda/bench/fp8_problem.h"
#include "ops/cuda/bench/mfa_problem.h"
#include "ops/cuda/bench/mla_problem.h"
#include "ops/cuda/bench/operator_problem.h"
#include "ops/cuda/bench/sampling_problem.h"
#include "ops/cuda/device.h"

namespace tandem::cuda {

namespace {

constexpr double kRotatedBytes = 256e6;  // more than the L2 cache by far

struct Bench {
  const KernelBenchOptions& options;
  const KernelBenchObserver& observer;
  GpuLimits limits;

  bool wants(const std::string& kernel, const std::string& shape) const {
    return (kernel + " " + shape).find(options.pattern) != std::string::npos;
  }
};

int copies_to_rotate(double bytes) {
  return static_cast<int>(kRotatedBytes / bytes) + 1;
}

// A row of a decode kernel; m has its name, shape and rate.
template <class Problem>
void measure_decode(const Bench& bench, const Problem& problem, std::int32_t sequences, int copies,
                    KernelMeasurement& m) {
  problem.run(nullptr, 0);
  synchronise();
  m.error = problem.relative_error({0, sequences - 1});
  m.microseconds = median_microseconds([&](Stream stream, int call) { problem.run(stream, call); },
                                       bench.options.samples, std::max(4, copies));
  m.bytes = problem.bytes();
  m.flops = problem.flops();
  m.remark = problem.remark();
  bench.observer.on_row(m);
}

void bench_mfa(const Bench& bench) {
  struct Row {
    std::int32_t sequences, tokens;
    bool deterministic = false;
    MfaCache cache = MfaCache::kFp8;
  };
  for (const Row& row : std::vector<Row>{{128, 4096},
                                         {64, 8192},
                                         {256, 2048},
                                         {1, 32768},
                                         {8, 32768},
                                         {128, 4096, true},
                                         {1, 32768, true},
                                         {128, 4096, false, MfaCache::kBf16},
                                         {1, 32768, false, MfaCache::kBf16}}) {
    KernelMeasurement m;
    m.kernel = row.cache == MfaCache::kBf16 ? "mfa-decode-bf16" : "mfa-decode-fp8";
    if (row.deterministic) m.kernel += "-fixed-splits";
    m.shape = format("{} x {}", row.sequences, row.tokens);
    if (!bench.wants(m.kernel, m.shape)) continue;
    MfaProblemOptions options{.cache = row.cache,
                              .lengths = std::vector<std::int32_t>(static_cast<std::size_t>(row.sequences), row.tokens),
                              .v_mean = .5f,
                              .deterministic = row.deterministic};
    options.copies = copies_to_rotate(static_cast<double>(row.sequences) * row.tokens * 512);
    const MfaProblem problem(options);
    m.flops_per_second_limit =
        row.cache == MfaCache::kBf16 ? bench.limits.bf16_flops_per_second : bench.limits.fp8_flops_per_second;
    measure_decode(bench, problem, row.sequences, options.copies, m);
  }
}

void bench_mla(const Bench& bench) {
  struct Row {
    std::int32_t sequences, tokens;
    const char* kernel = "mla-decode-bf16";
    bool deterministic = false, as_rows = false;
  };
  std::vector<Row> rows{{128, 4096}, {64, 8192}, {256, 2048}, {8, 32768}, {1, 32768}};
  rows.push_back({128, 4096, "mla-decode-bf16-fixed-splits", true});
  // What the engine runs: fixed parts, two terms, f32 in and out.
  for (const auto& [sequences, tokens] : {std::pair{128, 4096}, {64, 1024}, {8, 1024}, {1, 1024}, {1, 32768}})
    rows.push_back({sequences, tokens, "mla-rows-bf16", false, true});
  for (const Row& row : rows) {
    KernelMeasurement m;
    m.kernel = row.kernel;
    m.shape = format("{} x {}", row.sequences, row.tokens);
    if (!bench.wants(m.kernel, m.shape)) continue;
    MlaProblemOptions options{.lengths = std::vector<std::int32_t>(static_cast<std::size_t>(row.sequences), row.tokens),
                              .deterministic = row.deterministic,
                              .as_rows = row.as_rows};
    options.copies = copies_to_rotate(static_cast<double>(row.sequences) * row.tokens * MlaPage::kWidth * 2);
    const MlaProblem problem(options);
    m.flops_per_second_limit = bench.limits.bf16_flops_per_second;
    measure_decode(bench, problem, row.sequences, options.copies, m);
  }
}

// Experts of Step-3: gate and up with SwiGLU, then down. Their weights are more than is rotated.
void bench_experts(const Bench& bench) {
  constexpr int kHidden = 7168, kWidth = 5120, kExperts = 3;
  for (const std::int32_t rows : {32, 128, 256}) {
    const std::string shape = format("{} x {}", kExperts, rows);
    const bool wanted[] = {bench.wants("experts-fp8-gate-up", shape), bench.wants("experts-fp8-down", shape),
                           bench.wants("experts-fp8", shape)};
    if (std::ranges::none_of(wanted, [](bool wants) { return wants; })) continue;
    const std::vector<std::int32_t> counts(kExperts, rows);
    const Fp8Problem gate_up({.counts = counts, .n = 2 * kWidth, .k = kHidden, .swiglu = true});
    const Fp8Problem down({.counts = counts, .n = kHidden, .k = kWidth, .seed = 2}, gate_up);
    const auto measure = [&](const char* name, std::vector<const Fp8Problem*> products) {
      KernelMeasurement m{.kernel = name, .shape = shape};
      m.microseconds = median_microseconds(
          [&](Stream stream, int) {
            for (const Fp8Problem* product : products) product->run(stream);
          },
          bench.options.samples, 4);
      for (const Fp8Problem* product : products) {
        m.bytes += product->bytes();
        m.flops += product->flops();
        m.remark += (m.remark.empty() ? "" : "; ") + product->plan().to_string();
      }
      m.error = products.back()->relative_error(rows - 1);
      m.flops_per_second_limit = bench.limits.fp8_flops_per_second;
      bench.observer.on_row(m);
    };
    if (wanted[0]) measure("experts-fp8-gate-up", {&gate_up});
    if (wanted[1]) measure("experts-fp8-down", {&down});
    if (wanted[2]) measure("experts-fp8", {&gate_up, &down});
  }
}

// The projections around Step-3's attention.
void bench_projections(const Bench& bench) {
  struct Row {
    const char* name;
    std::int32_t n, k;
  };
  for (const Row& row :
       std::vector<Row>{{"fp8-q-down-k-v", 2560, 7168}, {"fp8-q-up", 16384, 2048}, {"fp8-o", 7168, 16384}})
    for (const std::int32_t tokens : {16, 128}) {
      KernelMeasurement m{.kernel = row.name, .shape = format("{}", tokens)};
      if (!bench.wants(m.kernel, m.shape)) continue;
      std::vector<Fp8Problem> copies;
      for (int i = 0; i < copies_to_rotate(static_cast<double>(row.n) * row.k); ++i)
        copies.emplace_back(
            Fp8ProblemOptions{.counts = {tokens}, .n = row.n, .k = row.k, .seed = static_cast<std::uint32_t>(i)});
      const auto count = static_cast<int>(copies.size());
      m.microseconds = median_microseconds(
          [&](Stream stream, int call) { copies[static_cast<std::size_t>(call % count)].run(stream); },
          bench.options.samples, std::max(4, count));
      m.error = copies[0].relative_error(tokens - 1);
      m.bytes = copies[0].bytes();
      m.flops = copies[0].flops();
      m.flops_per_second_limit = bench.limits.fp8_flops_per_second;
      m.remark = copies[0].plan().to_string();
      bench.observer.on_row(m);
    }
}

// What an A side does for one layer, in one stream.
void bench_attention_stage(const Bench& bench) {
  KernelMeasurement m{.kernel = "step3-attention-stage", .shape = "128 x 4096"};
  if (!bench.wants(m.kernel, m.shape)) return;
  const AttentionStageProblem problem(128, 4096);
  problem.run(nullptr);
  synchronise();
  TANDEM_CHECK(problem.is_complete(), "an attention stage left rows out");
  m.error = problem.relative_error();
  m.microseconds = median_microseconds([&](Stream stream, int) { problem.run(stream); }, bench.options.samples, 4);
  m.bytes = problem.bytes();
  m.flops = problem.flops();
  m.flops_per_second_limit = bench.limits.fp8_flops_per_second;
  m.remark = "seven kernels; the router is not in it";
  bench.observer.on_row(m);
}

// f32 activations times bf16 weights: a Llama of 8B, and the products of Step-3's vision tower. The tensor cores do
// three times the FLOPs, as an activation is three bf16 terms.
void bench_products(const Bench& bench) {
  struct Row {
    std::int32_t k, n;
    std::vector<std::int32_t> rows;
  };
  for (const Row& row : std::vector<Row>{{4096, 4096, {1, 16, 64, 512}},
                                         {4096, 28672, {1, 16, 64, 512}},
                                         {14336, 4096, {1, 16, 64, 512}},
                                         {1792, 5376, {2708}},
                                         {1792, 15360, {2708}},
                                         {15360, 1792, {2708}}}) {
    const std::string kernel = format("product-bf16-{}x{}", row.k, row.n);
    std::vector<std::int32_t> wanted = row.rows;
    std::erase_if(wanted, [&](std::int32_t rows) { return !bench.wants(kernel, format("{}", rows)); });
    if (wanted.empty()) continue;
    const int copies = copies_to_rotate(2. * row.k * row.n);
    ProductProblem problem({.rows = std::ranges::max(wanted), .n = row.n, .k = row.k, .copies = copies});
    for (const std::int32_t rows : wanted) {
      KernelMeasurement m{.kernel = kernel, .shape = format("{}", rows)};
      problem.take_rows(rows);
      problem.run(nullptr, 0);
      synchronise();
      m.error = problem.relative_error();
      m.microseconds = median_microseconds([&](Stream stream, int call) { problem.run(stream, call); },
                                           bench.options.samples, std::max(4, copies));
      m.bytes = problem.bytes();
      m.flops = problem.flops();
      m.flops_per_second_limit = bench.limits.bf16_flops_per_second;
      m.remark = "f32 arithmetic: three terms";
      bench.observer.on_row(m);
    }
  }
}

// A Llama's heads over a bf16 cache, decoding and in chunks of a prompt, and a picture's attention to itself.
void bench_f32_attention(const Bench& bench) {
  struct Row {
    std::int32_t sequences, tokens, rows;
  };
  for (const Row& row : std::vector<Row>{{64, 4096, 1}, {1, 32768, 1}, {1, 512, 512}, {1, 8192, 512}}) {
    KernelMeasurement m{.kernel = row.rows > 1 ? "tile-attention-prompt" : "tile-attention-decode",
                        .shape = row.rows > 1 ? format("{} of {}", row.rows, row.tokens)
                                              : format("{} x {}", row.sequences, row.tokens)};
    if (!bench.wants(m.kernel, m.shape)) continue;
    PagedAttentionProblemOptions options{.sequences = row.sequences, .tokens = row.tokens, .rows = row.rows};
    options.copies = copies_to_rotate(static_cast<double>(row.sequences) * row.tokens * 4096);
    const PagedAttentionProblem problem(options);
    problem.run(nullptr, 0);
    synchronise();
    m.error = problem.relative_error();
    m.microseconds = median_microseconds([&](Stream stream, int call) { problem.run(stream, call); },
                                         bench.options.samples, std::max(4, options.copies));
    m.bytes = problem.bytes();
    m.flops = problem.flops();
    m.flops_per_second_limit = bench.limits.bf16_flops_per_second;
    m.remark = "queries and probabilities in two terms";
    bench.observer.on_row(m);
  }
  for (const std::int32_t rows : {2708, 1300}) {
    KernelMeasurement m{.kernel = "full-attention", .shape = format("{} x 16 x 112", rows)};
    if (!bench.wants(m.kernel, m.shape)) continue;
    const FullAttentionProblem problem({.rows = rows, .heads = 16, .dim = 112});
    problem.run(nullptr);
    synchronise();
    m.error = problem.relative_error();
    m.microseconds = median_microseconds([&](Stream stream, int) { problem.run(stream); }, bench.options.samples, 4);
    m.bytes = problem.bytes();
    m.flops = problem.flops();
    m.flops_per_second_limit = bench.limits.bf16_flops_per_second;
    m.remark = "all operands in two terms: three products for one";
    bench.observer.on_row(m);
  }
}

// A step's draws at Qwen's vocabulary, from random logits of deviation 1. At a temperature of 0.15 a top-p of 0.9 keeps
// tens of tokens, at 0.25 about 2,000, as many as are sorted; at 1 most of them. The errors are the share of tokens
// that are not the definition's.
void bench_sampling(const Bench& bench) {
  struct Row {
    const char* name;
    SamplingParams params;
    std::int32_t context = 0;
  };
  for (const Row& row :
       std::vector<Row>{{"sample-greedy", {}},
                        {"sample-temperature", {.temperature = .25f}},
                        {"sample-top-k-top-p", {.temperature = .25f, .top_k = 50, .top_p = .9f}},
                        {"sample-top-p", {.temperature = .15f, .top_p = .9f}},
                        {"sample-top-p-2000", {.temperature = .25f, .top_p = .9f}},
                        {"sample-top-p-flat", {.temperature = 1, .top_p = .9f}},
                        {"sample-penalties", {.temperature = .25f, .top_k = 50, .repetition_penalty = 1.1f}, 2000},
                        {"sample-logprobs", {.temperature = .25f, .top_k = 50, .top_p = .9f, .logprobs = 20}}})
    for (const std::int32_t rows : {1, 64}) {
      KernelMeasurement m{.kernel = row.name, .shape = format("{} x 151936", rows)};
      if (!bench.wants(m.kernel, m.shape)) continue;
      SamplingProblemOptions options{.rows = rows, .params = row.params, .context = row.context};
      options.copies = copies_to_rotate(static_cast<double>(rows) * options.vocab * sizeof(float));
      SamplingProblem problem(options);
      problem.run(nullptr, 0);
      synchronise();
      m.error = static_cast<double>(problem.differing()) / rows;
      m.microseconds = median_microseconds([&](Stream stream, int call) { problem.run(stream, call); },
                                           bench.options.samples, std::max(4, std::min(options.copies, 50)));
      m.bytes = problem.bytes();
      m.flops_per_second_limit = bench.limits.bf16_flops_per_second;
      m.remark = format("{:.0f} us from call to tokens", problem.median_call_microseconds(bench.options.samples));
      bench.observer.on_row(m);
    }
}

}  // namespace

void bench_kernels(const KernelBenchOptions& options, const KernelBenchObserver& observer) {
  const std::string missing = why_unusable(look_at_device());
  if (!missing.empty()) throw Error(ErrorCode::kUnavailable, missing);
  const Bench bench{options, observer, measure_gpu_limits()};
  observer.on_limits(bench.limits);
  bench_mfa(bench);
  bench_mla(bench);
  bench_experts(bench);
  bench_projections(bench);
  bench_attention_stage(bench);
  bench_products(bench);
  bench_f32_attention(bench);
  bench_sampling(bench);
}

}  // namespace tandem::cuda
