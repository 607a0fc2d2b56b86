// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// FP8 arithmetic: activations are rounded into tiles, then multiplied by gemm/fp8_gemm. Sums run over k in an order
// that n and k alone decide, so a row has the same bits beside any others.
//
// Experts: slots are grouped, each expert's rows begin on a tile of 64, gate, up and SwiGLU are one kernel that leaves
// the tiles of the next. What each expert has to do is known on the device alone.
#include "base/check.h"
#include "ops/cuda/cuda_weight.cuh"
#include "ops/cuda/gemm/fp8_quantise.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/pieces.cuh"
#include "ops/cuda/reduce.cuh"

namespace tandem::cuda {

namespace {

constexpr int kThreads = 256;

// ---- who has which rows

struct RowPlan {
  const std::int32_t* offsets;  // [experts + 1]
  std::int32_t experts, row_tile_count;
  std::int32_t *row_begin, *row_count;  // [experts]
  Fp8RowTile* row_tiles;                // [row_tile_count]
  std::int32_t* tile_rows;              // of each grouped slot
};

// One block; thread e has expert e.
__global__ void __launch_bounds__(kWeightsOfLaunchMax) plan_rows(const RowPlan p) {
  __shared__ std::int32_t warps[kWeightsOfLaunchMax / 32];
  const auto e = static_cast<std::int32_t>(threadIdx.x);
  const bool is_expert = e < p.experts;
  const std::int32_t first = is_expert ? p.offsets[e] : 0, count = is_expert ? p.offsets[e + 1] - first : 0;
  const std::int32_t rows = (count + Fp8Tile::kRows - 1) / Fp8Tile::kRows * Fp8Tile::kRows, tiles = (count + 127) / 128;
  std::int32_t all_rows = 0, all_tiles = 0;
  const std::int32_t begin = block_scan_sum(rows, warps, all_rows) - rows;
  const std::int32_t first_tile = block_scan_sum(tiles, warps, all_tiles) - tiles;
  if (is_expert) {
    p.row_begin[e] = begin;
    p.row_count[e] = count;
    for (std::int32_t t = 0; t < tiles; ++t) p.row_tiles[first_tile + t] = {e, t};
    for (std::int32_t i = 0; i < count; ++i) p.tile_rows[first + i] = begin + i;
  }
  for (std::int32_t t = all_tiles + e; t < p.row_tile_count; t += kWeightsOfLaunchMax) p.row_tiles[t] = {-1, 0};
}

// out[outputs[i]] = weights[i] · y[tile_rows[i]]; a block has a slot.
__global__ void __launch_bounds__(kThreads)
    scatter_slots(Rows<float> out, const float* y, const std::int32_t* tile_rows, const std::int32_t* outputs,
                  const float* weights, std::int32_t columns) {
  const float4* from = reinterpret_cast<const float4*>(y + static_cast<std::int64_t>(tile_rows[blockIdx.x]) * columns);
  float* to = out[outputs[blockIdx.x]];
  const float weight = weights[blockIdx.x];
  for (auto i = static_cast<std::int32_t>(threadIdx.x); i < columns / 4; i += kThreads) {
    const float4 v = from[i];
    to[4 * i] = weight * v.x, to[4 * i + 1] = weight * v.y, to[4 * i + 2] = weight * v.z, to[4 * i + 3] = weight * v.w;
  }
}

void quantise(const Machine& machine, const Tensor& x, std::uint8_t* tiles, float* scales, std::int64_t tile_rows,
              std::int64_t rows, const std::int32_t* from = nullptr, const std::int32_t* to = nullptr) {
  run(QuantiseTiles{.tiles = tiles,
                    .scales = scales,
                    .x = x.data,
                    .bf16 = false,
                    .rows = static_cast<std::int32_t>(rows),
                    .columns = static_cast<std::int32_t>(x.shape[1]),
                    .tile_rows = tile_rows,
                    .x_stride = x.row_stride,
                    .from = from,
                    .to = to},
      machine.stream);
}

}  // namespace

void run(Machine& machine, const Fp8MatMul& op) {
  const std::int64_t rows = op.x.rows(), k = op.x.shape[1], tile_rows = Fp8Tile::whole_tiles(rows);
  if (rows == 0) return;
  const CudaWeight& weight = of(op.weight);
  TANDEM_CHECK(weight.tiles() && op.out.row_stride % 2 == 0,
               "fp8_matmul: a weight or a result that FP8 products cannot take");
  Pieces pieces(machine.workspace(Pieces::bytes<std::uint8_t>(tile_rows * k) +
                                  Pieces::bytes<float>(tile_rows * k / Fp8Tile::kDepth)));
  auto* x = pieces.take<std::uint8_t>(tile_rows * k);
  auto* x_scales = pieces.take<float>(tile_rows * k / Fp8Tile::kDepth);
  quantise(machine, op.x, x, x_scales, tile_rows, rows);
  Fp8Gemm gemm{};
  gemm.x = x;
  gemm.x_scales = x_scales;
  gemm.x_rows = tile_rows;
  gemm.weight = weight.tiles();
  gemm.weight_scales = weight.tile_scales();
  gemm.experts = 1;
  gemm.rows_max = static_cast<std::int32_t>(rows);
  gemm.n = static_cast<std::int32_t>(weight.n());
  gemm.k = static_cast<std::int32_t>(k);
  gemm.fixed_order = true;
  gemm.out_f32 = op.out.as<float>();
  gemm.out_stride = op.out.row_stride;
  run(gemm, machine.stream);
}

void run(Machine& machine, const Fp8Experts& op) {
  const auto held = static_cast<std::int32_t>(op.gate_up.size());
  const std::int64_t count = op.out.rows(), hidden = op.x.shape[1], width = op.down.front()->k();
  if (count == 0) return;
  TANDEM_CHECK(held <= kWeightsOfLaunchMax, "more experts of one layer on one GPU than a launch can name");
  const std::int64_t rows = Fp8Tile::whole_tiles(count + (Fp8Tile::kRows - 1) * std::min<std::int64_t>(held, count));
  const std::int64_t row_tiles = std::min<std::int64_t>(count, count / 128 + held);
  constexpr int kDepth = Fp8Tile::kDepth;
  Pieces pieces(machine.workspace(4 * Pieces::bytes<std::int32_t>(count) + 3 * Pieces::bytes<std::int32_t>(held + 1) +
                                  Pieces::bytes<Fp8RowTile>(row_tiles) + Pieces::bytes<std::uint8_t>(rows * hidden) +
                                  Pieces::bytes<float>(rows * hidden / kDepth) +
                                  Pieces::bytes<std::uint8_t>(rows * width) +
                                  Pieces::bytes<float>(rows * width / kDepth) + Pieces::bytes<float>(rows * hidden)));
  const auto indices = [&](std::int64_t n) { return Tensor(pieces.take<std::int32_t>(n), DType::kI32, {n}); };
  const GroupByExpert group{.rows = indices(count),
                            .outputs = indices(count),
                            .weights = Tensor(pieces.take<float>(count), DType::kF32, {count, 1}),
                            .offsets = indices(held + 1),
                            .expert_ids = op.expert_ids,
                            .expert_weights = op.expert_weights,
                            .begin = op.begin};
  const RowPlan plan{.offsets = group.offsets.as<const std::int32_t>(),
                     .experts = held,
                     .row_tile_count = static_cast<std::int32_t>(row_tiles),
                     .row_begin = pieces.take<std::int32_t>(held + 1),
                     .row_count = pieces.take<std::int32_t>(held + 1),
                     .row_tiles = pieces.take<Fp8RowTile>(row_tiles),
                     .tile_rows = pieces.take<std::int32_t>(count)};
  auto* x = pieces.take<std::uint8_t>(rows * hidden);
  auto* x_scales = pieces.take<float>(rows * hidden / kDepth);
  auto* activated = pieces.take<std::uint8_t>(rows * width);
  auto* activated_scales = pieces.take<float>(rows * width / kDepth);
  auto* y = pieces.take<float>(rows * hidden);

  run(machine, group);
  plan_rows<<<1, kWeightsOfLaunchMax, 0, machine.stream>>>(plan);
  need(cudaGetLastError(), "starting the plan of fp8_experts");
  quantise(machine, op.x, x, x_scales, rows, count, group.rows.as<const std::int32_t>(), plan.tile_rows);
  Fp8Gemm gemm{};
  gemm.x = x;
  gemm.x_scales = x_scales;
  gemm.x_rows = rows;
  gemm.row_begin = plan.row_begin;
  gemm.row_count = plan.row_count;
  gemm.experts = held;
  gemm.rows_max = static_cast<std::int32_t>(op.x.rows());
  gemm.n = static_cast<std::int32_t>(2 * width);
  gemm.k = static_cast<std::int32_t>(hidden);
  gemm.weights = machine.fp8_table_of(op.gate_up);
  gemm.row_tiles = plan.row_tiles;
  gemm.row_tile_count = plan.row_tile_count;
  gemm.fixed_order = true;
  gemm.hidden = activated;
  gemm.hidden_scales = activated_scales;
  run(gemm, machine.stream);
  gemm.x = activated;
  gemm.x_scales = activated_scales;
  gemm.n = static_cast<std::int32_t>(hidden);
  gemm.k = static_cast<std::int32_t>(width);
  gemm.weights = machine.fp8_table_of(op.down);
  gemm.hidden = nullptr;
  gemm.hidden_scales = nullptr;
  gemm.out_f32 = y;
  gemm.out_stride = hidden;
  run(gemm, machine.stream);
  scatter_slots<<<static_cast<unsigned>(count), kThreads, 0, machine.stream>>>(
      rows_of(op.out), y, plan.tile_rows, group.outputs.as<const std::int32_t>(), group.weights.as<const float>(),
      static_cast<std::int32_t>(hidden));
  need(cudaGetLastError(), "starting the end of fp8_experts");
}

}  // namespace tandem::cuda
