// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Products: out[rows, n] = x[rows, k] · weight[n, k]ᵀ with f32 arithmetic on the tensor cores, for weights of every
// store. Those of bf16 in tiles have a faster one (bf16_products.cuh), except for heads (ProjectHeads).
//
// An f32 is the sum of three bf16 numbers, exactly, when each takes the leading eight bits of what is left; a weight is
// one to three of them by its type. Products of two bf16 numbers are exact in f32, so x · w is the sum of the products
// of its terms; those below 2⁻²² of it are left out. The tensor cores add them; their sums are taken over into plain
// f32 registers every four steps, before what they cut off shows.
//
// One order for all numbers of rows: k is walked in steps of 32. Within a slice, step i belongs to stream i mod 8; each
// stream adds its steps in order, streams are added pair by pair, slices over their tree. A stream is a warp. A block
// has 16 columns and 8 rows for each tile.
//
// A row of x with an infinity gives NaN, as one with NaN does, and no other row is touched.
//
// Few rows are bound by memory and latency: weights and x of four steps are asked for before the first is used. Many
// are bound by cutting x into terms, which every 16 columns do again.
#pragma once

#include "ops/cuda/eight.cuh"
#include "ops/cuda/ptx/mma.cuh"
#include "ops/cuda/terms.cuh"

namespace tandem::cuda {

inline constexpr int kStreams = 8;
inline constexpr int kTileRows = 8;
inline constexpr int kTileColumns = 16;
inline constexpr int kStepsBetweenPromotions = 4;
inline constexpr int kTreeLevels = 4;  // of up to eight slices: 1, 2, 4, 8

template <int kExperts>
struct ProductArguments {
  Rows<float> out, x;
  std::int32_t rows;
  bool x_aligned;  // rows of x begin on 16 bytes
  KSlices slices;
  // Rows of expert e are offsets[e] … offsets[e + 1]. Without offsets each weight has all rows, and columns of its own:
  // those of weight w begin at w · x_shift and w · out_shift.
  const std::int32_t* offsets;
  std::int32_t experts;
  std::int64_t x_shift, out_shift;
  const WeightImage* weights[kExperts];
};

// ---- terms

template <Store store>
__device__ void terms_of(const Eight<store>& eight, std::uint32_t (&terms)[Eight<store>::kTerms][4]) {
  if constexpr (store == Store::kBF16 || store == Store::kBf16Tiles) {
    terms[0][0] = eight.bits.x, terms[0][1] = eight.bits.y, terms[0][2] = eight.bits.z, terms[0][3] = eight.bits.w;
  } else {
    float v[8];
    eight.widen(v);
    split(v, terms);
  }
}

// Eight values of a row of x from k on; zero outside [begin, end) and where there is no row.
__device__ inline void load_x(const float* row, bool aligned, std::int32_t k, std::int32_t begin, std::int32_t end,
                              float (&v)[8]) {
  if (row && aligned && k >= begin && k + 8 <= end) {
    const float4 low = __ldg(reinterpret_cast<const float4*>(row + k));
    const float4 high = __ldg(reinterpret_cast<const float4*>(row + k) + 1);
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
    v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = row && k + i >= begin && k + i < end ? __ldg(row + k + i) : 0.0f;
}

// ---- one stream of one slice

// Where a warp works: 16 columns of a segment, and its lane's rows of x.
template <int kTiles>
struct Place {
  const float* x[kTiles];  // the row of this lane in each tile; null: none
  bool x_aligned;
  std::int32_t low, high;  // the lane's two columns of the segment
  int lane_part;           // which eight values of a step are the lane's
};

// One step of the weight's two columns and, where they fit into registers, of x.
template <Store store, int kTiles>
struct Step {
  static constexpr bool kHoldsX = kTiles == 1;
  Eight<store> low, high;
  float x[kHoldsX ? kTiles : 1][8];

  __device__ void load(const Segment& segment, const Place<kTiles>& place, std::int32_t step, std::int32_t begin,
                       std::int32_t end) {
    low.load(segment, place.low, step, place.lane_part);
    high.load(segment, place.high, step, place.lane_part);
    if constexpr (kHoldsX) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) load_x(place, tile, step, begin, end, x[tile]);
    }
  }
  __device__ static void load_x(const Place<kTiles>& place, int tile, std::int32_t step, std::int32_t begin,
                                std::int32_t end, float (&v)[8]) {
    cuda::load_x(place.x[tile], place.x_aligned, step * kStep + place.lane_part * kLaneValues, begin, end, v);
  }
  __device__ void add(const Place<kTiles>& place, std::int32_t step, std::int32_t begin, std::int32_t end,
                      float (&sums)[kTiles][4]) {
    constexpr int kTerms = Eight<store>::kTerms;
    std::uint32_t a[kTerms][4], b[kTerms][4];
    terms_of(low, a);
    terms_of(high, b);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      std::uint32_t terms[3][4];
      if constexpr (kHoldsX) {
        split(x[tile], terms);
      } else {
        load_x(place, tile, step, begin, end, x[0]);
        split(x[0], terms);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int i = 0; i < kTerms; ++i)
#pragma unroll
          for (int j = 0; i + j < 3; ++j)
            ptx::mma_m16n8k16(sums[tile], a[i][2 * half], b[i][2 * half], a[i][2 * half + 1], b[i][2 * half + 1],
                              terms[j][2 * half], terms[j][2 * half + 1]);
    }
  }
};

template <Store store, int kTiles>
__device__ void add_stream(const Segment& segment, const Place<kTiles>& place, int stream, std::int32_t begin,
                           std::int32_t end, float (&total)[kTiles][4]) {
  const std::int32_t first = begin / kStep, last = end > begin ? (end + kStep - 1) / kStep : first;
  for (std::int32_t step = first + stream; step < last; step += kStreams * kStepsBetweenPromotions) {
    Step<store, kTiles> steps[kStepsBetweenPromotions];
#pragma unroll
    for (int u = 0; u < kStepsBetweenPromotions; ++u)
      if (step + kStreams * u < last) steps[u].load(segment, place, step + kStreams * u, begin, end);
    float sums[kTiles][4] = {};
#pragma unroll
    for (int u = 0; u < kStepsBetweenPromotions; ++u)
      if (step + kStreams * u < last) steps[u].add(place, step + kStreams * u, begin, end, sums);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
      for (int i = 0; i < 4; ++i) total[tile][i] += sums[tile][i];
  }
}

// ---- a block

// The tree over slices as they come, one value of each tile per thread: like a binary counter, value i of the levels
// that are full is carried into the next.
template <int kMine>
__device__ void push(float (&levels)[kTreeLevels][kMine], const float (&slice)[kMine], int index) {
#pragma unroll
  for (int tile = 0; tile < kMine; ++tile) {
    float value = slice[tile];
    bool carried = true;
#pragma unroll
    for (int level = 0; level < kTreeLevels; ++level) {
      if (!carried) continue;
      if (index >> level & 1) {
        value = levels[level][tile] + value;
      } else {
        levels[level][tile] = value;
        carried = false;
      }
    }
  }
}

// What the streams have found.
template <int kTiles>
using Parts = float[kStreams][kTiles * 128];

template <int kValues>
__device__ float sum_of_streams(const float (&parts)[kStreams][kValues], int at) {
  float sums[kStreams];
#pragma unroll
  for (int i = 0; i < kStreams; ++i) sums[i] = parts[i][at];
#pragma unroll
  for (int step = 1; step < kStreams; step *= 2)
#pragma unroll
    for (int i = 0; i < kStreams; i += 2 * step) sums[i] += sums[i + step];
  return sums[0];
}

// Rows [row_begin, row_end), of which the block's tiles are the first, by one tile of columns of a segment.
template <Store store, int kTiles, class Arguments>
__device__ void multiply(const Arguments& arguments, const Segment& segment, std::int32_t column_tile,
                         std::int32_t row_begin, std::int32_t row_end, std::int32_t weight, Parts<kTiles>& parts) {
  const std::int64_t x_shift = weight * arguments.x_shift, out_shift = weight * arguments.out_shift;
  const int lane = threadIdx.x % 32, stream = threadIdx.x / 32;
  const std::int32_t column = column_tile * kTileColumns;
  Place<kTiles> place;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    const std::int32_t row = row_begin + tile * kTileRows + lane / 4;
    place.x[tile] = row < row_end ? arguments.x[row] + x_shift : nullptr;
  }
  place.x_aligned = arguments.x_aligned;
  place.low = min(column + lane / 4, segment.columns - 1);
  place.high = min(column + lane / 4 + 8, segment.columns - 1);
  place.lane_part = lane % 4;

  // From the second barrier on a thread has values of the tiles instead of a stream.
  constexpr int kValues = kTiles * 128, kThreads = 32 * kStreams, kMine = kValues > kThreads ? kValues / kThreads : 1;
  const int first = stream * 32 + lane;
  float levels[kTreeLevels][kMine];
  for (int slice = 0; slice < arguments.slices.count; ++slice) {
    float total[kTiles][4] = {};
    add_stream<store>(segment, place, stream, arguments.slices.bounds[slice], arguments.slices.bounds[slice + 1],
                      total);
    if (slice > 0) __syncthreads();  // the parts of the last slice have been read
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
      for (int i = 0; i < 4; ++i) parts[stream][tile * 128 + i * 32 + lane] = total[tile][i];
    __syncthreads();
    float sum[kMine];
#pragma unroll
    for (int m = 0; m < kMine; ++m) sum[m] = sum_of_streams(parts, (first + m * kThreads) % kValues);
    push(levels, sum, slice);
  }
#pragma unroll
  for (int m = 0; m < kMine; ++m) {
    const int at = first + m * kThreads, tile = at / 128, in_tile = at % 128 / 32;
    const std::int32_t mine = column + lane / 4 + 8 * (in_tile / 2);
    const std::int32_t row = row_begin + tile * kTileRows + 2 * (lane % 4) + in_tile % 2;
    if (tile >= kTiles || mine >= segment.columns || row >= row_end) continue;
    float value = levels[0][m];
#pragma unroll
    for (int level = 1; level < kTreeLevels; ++level)
      if (arguments.slices.count >> level & 1) value = levels[level][m];
    arguments.out[row][out_shift + segment.first + mine] = value;
  }
}

// Which expert's rows the tile of rows `index` is, counting the tiles of one expert after those of another. The whole
// warp asks. False when there are no so many.
__device__ inline bool find_expert(const std::int32_t* offsets, std::int32_t experts, std::int32_t tile_rows,
                                   std::int32_t index, std::int32_t& expert, std::int32_t& row_begin,
                                   std::int32_t& row_end) {
  const int lane = threadIdx.x % 32;
  for (std::int32_t base = 0; base < experts; base += 32) {
    const bool is_one = base + lane < experts;
    const std::int32_t begin = is_one ? __ldg(offsets + base + lane) : 0;
    const std::int32_t end = is_one ? __ldg(offsets + base + lane + 1) : 0;
    const std::int32_t tiles = (end - begin + tile_rows - 1) / tile_rows;
    std::int32_t through = tiles;  // of this lane and those before
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const std::int32_t other = __shfl_up_sync(0xffffffffu, through, step);
      if (lane >= step) through += other;
    }
    const std::uint32_t reached = __ballot_sync(0xffffffffu, through > index);
    if (reached != 0) {
      const int found = __ffs(static_cast<int>(reached)) - 1;
      const std::int32_t within = index - (through - tiles);
      expert = base + found;
      row_begin = __shfl_sync(0xffffffffu, begin + within * tile_rows, found);
      row_end = __shfl_sync(0xffffffffu, end, found);
      return true;
    }
    index -= __shfl_sync(0xffffffffu, through, 31);
  }
  return false;
}

template <int kTiles, int kExperts>
__global__ void __launch_bounds__(32 * kStreams, kTiles <= 4 ? 2 : 1)
    product(const __grid_constant__ ProductArguments<kExperts> arguments) {
  std::int32_t expert = 0, row_begin = static_cast<std::int32_t>(blockIdx.y) * kTiles * kTileRows,
               row_end = arguments.rows;
  if (kExperts > 1 && !arguments.offsets) expert = static_cast<std::int32_t>(blockIdx.z);
  if (kExperts > 1 && arguments.offsets) {
    if (!find_expert(arguments.offsets, arguments.experts, kTiles * kTileRows, static_cast<std::int32_t>(blockIdx.y),
                     expert, row_begin, row_end))
      return;
  }
  __shared__ Parts<kTiles> parts;
  const WeightImage& weight = *arguments.weights[expert];
  auto tile = static_cast<std::int32_t>(blockIdx.x);
  for (std::int32_t s = 0; s < weight.segments; ++s) {
    const Segment& segment = weight.segment[s];
    const std::int32_t tiles = (segment.columns + kTileColumns - 1) / kTileColumns;
    if (tile < tiles) {
      with_store(segment.store, [&](auto store) {
        multiply<decltype(store)::value, kTiles>(arguments, segment, tile, row_begin, row_end, expert, parts);
      });
      return;
    }
    tile -= tiles;
  }
}

// Launches the variant for about so many rows of each weight: as many tiles of rows to a block as there are, fewer
// where the GPU would not be full (a router's 48 columns). column_tiles(columns) counts tiles of so many columns,
// row_tiles(rows) those of so many rows.
template <int kExperts, class ColumnTiles, class RowTiles>
void launch_product(const Machine& machine, const ProductArguments<kExperts>& arguments, std::int64_t rows_each,
                    const ColumnTiles& column_tiles, const RowTiles& row_tiles) {
  const auto columns = static_cast<std::int64_t>(column_tiles(kTileColumns));
  const std::int64_t weights = arguments.offsets ? 1 : arguments.experts;
  const auto launch = [&]<int kTiles>() {
    const dim3 grid(static_cast<unsigned>(columns), static_cast<unsigned>(row_tiles(kTiles * kTileRows)),
                    static_cast<unsigned>(weights));
    if (grid.x == 0) return;  // a share of a width may be empty
    product<kTiles, kExperts><<<grid, 32 * kStreams, 0, machine.stream>>>(arguments);
    need(cudaGetLastError(), "starting a product");
  };
  int tiles = rows_each <= 8 ? 1 : rows_each <= 16 ? 2 : rows_each <= 32 ? 4 : 8;
  while (tiles > 1 && columns * weights * row_tiles(tiles * kTileRows) < machine.multiprocessors) tiles /= 2;
  if (tiles == 1) return launch.template operator()<1>();
  if (tiles == 2) return launch.template operator()<2>();
  if (tiles == 4) return launch.template operator()<4>();
  launch.template operator()<8>();
}

inline bool begins_on_16_bytes(const Tensor& x) {
  return reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && x.row_stride % 4 == 0;
}

}  // namespace tandem::cuda
