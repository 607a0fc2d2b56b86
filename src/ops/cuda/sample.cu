// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Sampling. The largest logit of each row is found here, so greedy decoding brings eight bytes per row to the host.
// Rows that ask for more (temperature, penalties, bias, log-probabilities, only some tokens allowed) are copied and
// drawn by sample_row, the definition.
#include <algorithm>
#include <vector>

#include "ops/cuda/machine.cuh"

namespace tandem::cuda {

namespace {

constexpr int kThreads = 1024;

struct Largest {
  float value;
  std::int32_t id;
};

struct Found {
  std::int32_t id;
  std::int32_t finite;  // all logits of the row are
};

__device__ Largest larger(const Largest& a, const Largest& b) {
  return b.value > a.value || (b.value == a.value && b.id < a.id) ? b : a;
}

__global__ void __launch_bounds__(kThreads) find_largest(Rows<float> logits, std::int32_t vocab, Found* found) {
  __shared__ Largest of_warp[kThreads / 32];
  const float* row = logits[blockIdx.x];
  Largest best{-INFINITY, INT_MAX};
  bool finite = true;
  for (auto i = static_cast<std::int32_t>(threadIdx.x); i < vocab; i += kThreads) {
    finite = finite && isfinite(row[i]);
    best = larger(best, {row[i], i});
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    best = larger(
        best, {__shfl_xor_sync(0xffffffffu, best.value, distance), __shfl_xor_sync(0xffffffffu, best.id, distance)});
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = best;
  finite = __syncthreads_and(finite);
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < kThreads / 32; ++warp) best = larger(best, of_warp[warp]);
  found[blockIdx.x] = {best.id, finite};
}

bool is_plain(const SampleRow& row) {
  const SamplingParams& p = *row.params;
  return row.allowed.empty() && p.temperature == 0 && p.repetition_penalty == 1 && p.presence_penalty == 0 &&
         p.frequency_penalty == 0 && p.logprobs < 0 && p.logit_bias.empty();
}

}  // namespace

void run(Machine& machine, const Sample& op) {
  const auto rows = static_cast<std::size_t>(op.logits.rows()), vocab = static_cast<std::size_t>(op.logits.shape[1]);
  if (rows == 0) return;
  const auto asks = static_cast<std::size_t>(
      std::count_if(op.rows.begin(), op.rows.end(), [](const SampleRow& row) { return !is_plain(row); }));
  const std::size_t found_bytes = rows * sizeof(Found), bytes = found_bytes + asks * vocab * sizeof(float);
  if (machine.sampling.bytes() < bytes) machine.sampling = allocate_pinned(bytes);  // grows to the largest need
  auto* found = static_cast<Found*>(machine.sampling.data());
  auto* copies = reinterpret_cast<float*>(machine.sampling.bytes_data() + found_bytes);

  find_largest<<<static_cast<unsigned>(rows), kThreads, 0, machine.stream>>>(rows_of(op.logits),
                                                                             static_cast<std::int32_t>(vocab), found);
  need(cudaGetLastError(), "starting sample");
  for (std::size_t i = 0, copy = 0; i < rows; ++i)
    if (!is_plain(op.rows[i]))
      need(cudaMemcpyAsync(copies + copy++ * vocab, op.logits.row<float>(static_cast<std::int64_t>(i)),
                           vocab * sizeof(float), cudaMemcpyDefault, machine.stream),
           "copying logits");
  need(cudaStreamSynchronize(machine.stream), "sampling");

  std::vector<float> scratch;
  for (std::size_t i = 0, copy = 0; i < rows; ++i) {
    if (!is_plain(op.rows[i])) {
      op.out[i] = sample_row(op.rows[i], std::span<const float>(copies + copy++ * vocab, vocab), scratch);
      continue;
    }
    op.out[i] = {};
    op.out[i].failed = !found[i].finite;
    if (found[i].finite) op.out[i].id = found[i].id;
  }
}

}  // namespace tandem::cuda
