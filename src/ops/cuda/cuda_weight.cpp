// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/cuda_weight.cuh"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/format.h"
#include "base/scalar.h"

namespace tandem::cuda {

namespace {

// A segment as it will lie on the device.
struct Packed {
  Store store;
  std::int64_t columns, row_bytes, scales_per_row;
  std::vector<std::byte> data;
  std::vector<std::uint16_t> scales;  // of all but tiles
  std::vector<float> tile_scales;
  std::int32_t scale_blocks = 0;
};

Store store_of(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return Store::kBF16;
    case DType::kF16:
      return Store::kF16;
    case DType::kQ8_0:
      return Store::kQ8_0;
    case DType::kQ4_0:
      return Store::kQ4_0;
    case DType::kQ4_1:
      return Store::kQ4_1;
    default:
      return Store::kF32;
  }
}

std::int64_t step_bytes(Store store) {
  switch (store) {
    case Store::kF32:
      return 4 * kStep;
    case Store::kBF16:
    case Store::kF16:
      return 2 * kStep;
    case Store::kQ8_0:
      return kStep;
    case Store::kQ4_0:
    case Store::kQ4_1:
      return kStep / 2;
    case Store::kF8Tiles:
    case Store::kBf16Tiles:
      break;  // have no rows
  }
  return 0;
}

void pack_nibbles(const std::byte* from, std::byte* to) {
  const auto value = [&](int i) {
    const auto byte = static_cast<unsigned>(from[i % 16]);
    return i < 16 ? byte & 15u : byte >> 4;
  };
  for (int i = 0; i < 16; ++i) to[i] = static_cast<std::byte>(value(2 * i) | value(2 * i + 1) << 4);
}

void pack_blocks(DType dtype, const std::byte* from, std::int64_t k, std::byte* to, std::uint16_t* scales) {
  const DTypeTraits t = traits(dtype);
  const int numbers = dtype == DType::kQ4_1 ? 2 : 1;  // ahead of the values
  for (std::int64_t i = 0; i < k / kStep; ++i, from += t.block_bytes) {
    std::memcpy(scales + i * numbers, from, 2 * static_cast<std::size_t>(numbers));
    if (dtype == DType::kQ8_0)
      std::memcpy(to + i * kStep, from + 2, kStep);
    else
      pack_nibbles(from + 2 * numbers, to + i * kStep / 2);
  }
}

// What has no store of its own is widened to f32 here, once: the K types, and E4M3 whose blocks are cut.
void pack_row(const WeightPart& part, std::int64_t i, std::int64_t k, std::byte* to, std::uint16_t* scales) {
  if (store_of(part.dtype) == Store::kF32) return read_row(part, i, k, reinterpret_cast<float*>(to));
  const std::byte* from = part.row(part.source_row(i));
  if (is_quantised(part.dtype)) return pack_blocks(part.dtype, from, k, to, scales);
  std::memcpy(to, from, 2 * static_cast<std::size_t>(k));
}

Packed pack_part(const WeightPart& part, std::int64_t k) {
  Packed p;
  p.store = store_of(part.dtype);
  p.columns = part.rows;
  const std::int64_t steps = divide_up<std::int64_t>(k, kStep);
  p.row_bytes = steps * step_bytes(p.store);
  p.scales_per_row = p.store == Store::kQ4_1 ? 2 * steps : p.store >= Store::kQ8_0 ? steps : 0;
  p.data.resize(static_cast<std::size_t>(part.rows * p.row_bytes));
  p.scales.resize(static_cast<std::size_t>(part.rows * p.scales_per_row));
  for (std::int64_t i = 0; i < part.rows; ++i)
    pack_row(part, i, k, p.data.data() + i * p.row_bytes, p.scales.data() + i * p.scales_per_row);
  return p;
}

// Whether all of it is E4M3 in whole blocks that stand where their scales do.
bool fills_tiles(const WeightSource& source) {
  return source.k > 0 && source.k % kScaleBlock == 0 && std::ranges::all_of(source.parts, [](const WeightPart& part) {
           return part.dtype == DType::kF8E4M3 && part.rows % kScaleBlock == 0 && part.row_order.empty() &&
                  part.scales.first_row % kScaleBlock == 0;
         });
}

// Rows [row, row + 128) of a part as column of tiles `block` of p.
void pack_tiles(const WeightPart& part, std::int64_t row, std::int64_t block, Packed& p) {
  constexpr std::int64_t kBytes = Fp8Tile::kWeightBytes;
  for (std::int64_t depth = 0; depth < p.scale_blocks; ++depth) {
    std::byte* tile = p.data.data() + depth * p.row_bytes + block * kBytes;
    for (int r = 0; r < Fp8Tile::kWeightRows; ++r) {
      const std::byte* from = part.row(row + r) + depth * Fp8Tile::kDepth;
      for (int k = 0; k < Fp8Tile::kDepth; k += 16) std::memcpy(tile + Fp8Tile::offset(r, k), from + k, 16);
    }
    p.tile_scales[static_cast<std::size_t>(block * p.scale_blocks + depth)] =
        part.scales.at(row, depth * Fp8Tile::kDepth);
  }
}

Packed pack_tiles(const WeightSource& source) {
  Packed p;
  p.store = Store::kF8Tiles;
  p.columns = source.n();
  p.row_bytes = p.columns * Fp8Tile::kDepth;
  p.scales_per_row = 0;
  p.scale_blocks = static_cast<std::int32_t>(source.k / Fp8Tile::kDepth);
  p.data.resize(static_cast<std::size_t>(p.columns * source.k));
  p.tile_scales.resize(static_cast<std::size_t>(p.columns / Fp8Tile::kWeightRows * p.scale_blocks));
  std::int64_t block = 0;
  for (const WeightPart& part : source.parts)
    for (std::int64_t row = 0; row < part.rows; row += Fp8Tile::kWeightRows, ++block) pack_tiles(part, row, block, p);
  return p;
}

// Whatever n is: a share of a weight has the order of sums of the whole.
bool fills_bf16_tiles(const WeightSource& source) {
  return source.k > 0 &&
         std::ranges::all_of(source.parts, [](const WeightPart& part) { return part.dtype == DType::kBF16; });
}

Packed pack_bf16_tiles(const WeightSource& source) {
  Packed p;
  p.store = Store::kBf16Tiles;
  p.columns = source.n();
  p.row_bytes = Bf16Tile::tiles(p.columns) * Bf16Tile::kWeightBytes;
  p.scales_per_row = 0;
  p.data.resize(static_cast<std::size_t>(Bf16Tile::depths(source.k) * p.row_bytes));
  std::int64_t column = 0;
  for (const WeightPart& part : source.parts)
    for (std::int64_t row = 0; row < part.rows; ++row, ++column) {
      const std::byte* from = part.row(part.source_row(row));
      std::byte* tile = p.data.data() + column / Bf16Tile::kWeightRows * Bf16Tile::kWeightBytes;
      const auto in_tile = static_cast<int>(column % Bf16Tile::kWeightRows);
      for (std::int64_t k = 0; k < source.k; k += 8)
        std::memcpy(tile + k / Bf16Tile::kDepth * p.row_bytes +
                        Bf16Tile::offset(in_tile, static_cast<int>(k % Bf16Tile::kDepth)),
                    from + 2 * k, static_cast<std::size_t>(2 * std::min<std::int64_t>(8, source.k - k)));
    }
  return p;
}

template <class T>
const T* upload(const std::vector<T>& values, std::vector<Buffer>& memory) {
  if (values.empty()) return nullptr;
  const std::size_t bytes = values.size() * sizeof(T);
  memory.push_back(allocate_device(bytes));
  need(cudaMemcpy(memory.back().data(), values.data(), bytes, cudaMemcpyHostToDevice), "copying a weight");
  return static_cast<const T*>(memory.back().data());
}

void check(const WeightPart& part, std::int64_t k) {
  if (part.dtype == DType::kI32 || part.dtype == DType::kU8)
    throw Error(ErrorCode::kUnsupported, format("the cuda backend has no weights of type {}", name(part.dtype)));
  if (k % static_cast<std::int64_t>(traits(part.dtype).block_elements) != 0)
    throw Error(ErrorCode::kInvalidArgument,
                format("a weight of {} columns does not fill the blocks of {}", k, name(part.dtype)));
}

}  // namespace

std::unique_ptr<CudaWeight> CudaWeight::pack(const WeightSource& source) {
  if (source.parts.size() > kSegmentsMax)
    throw Error(ErrorCode::kUnsupported,
                format("a weight of {} parts, the cuda backend stacks {}", source.parts.size(), kSegmentsMax));
  WeightImage image{static_cast<std::int32_t>(source.n()), static_cast<std::int32_t>(source.k), 0, {}};
  std::vector<Buffer> memory;
  std::size_t bytes = 0;
  std::int32_t first = 0;
  const auto add = [&](const Packed& p) {
    Segment& s = image.segment[image.segments++];
    s.store = p.store;
    s.first = first;
    s.columns = static_cast<std::int32_t>(p.columns);
    s.row_bytes = p.row_bytes;
    s.data = upload(p.data, memory);
    s.scales =
        p.store == Store::kF8Tiles ? static_cast<const void*>(upload(p.tile_scales, memory)) : upload(p.scales, memory);
    s.scale_blocks = p.scale_blocks;
    first += s.columns;
    bytes += p.data.size() + 2 * p.scales.size() + 4 * p.tile_scales.size();
  };
  if (fills_tiles(source)) {
    add(pack_tiles(source));
  } else if (fills_bf16_tiles(source)) {
    add(pack_bf16_tiles(source));
  } else {
    for (const WeightPart& part : source.parts) {
      check(part, source.k);
      add(pack_part(part, source.k));
    }
  }
  return std::unique_ptr<CudaWeight>(new CudaWeight(source.n(), source.k, bytes, std::move(memory), image));
}

CudaWeight::CudaWeight(std::int64_t n, std::int64_t k, std::size_t bytes, std::vector<Buffer> memory,
                       const WeightImage& image)
    : Weight(n, k, bytes), memory_(std::move(memory)), image_memory_(allocate_device(sizeof image)) {
  need(cudaMemcpy(image_memory_.data(), &image, sizeof image, cudaMemcpyHostToDevice), "copying a weight");
  for (int s = 0; s < image.segments; ++s) columns_.push_back(image.segment[s].columns);
  if (image.segments == 1 && image.segment[0].store == Store::kBf16Tiles) bf16_tiles_ = image.segment[0].data;
  if (image.segments != 1 || image.segment[0].store != Store::kF8Tiles) return;
  tiles_ = reinterpret_cast<const std::uint8_t*>(image.segment[0].data);
  tile_scales_ = static_cast<const float*>(image.segment[0].scales);
}

std::int64_t CudaWeight::tiles(int columns) const {
  std::int64_t tiles = 0;
  for (const std::int32_t count : columns_) tiles += divide_up(count, columns);
  return tiles;
}

}  // namespace tandem::cuda
