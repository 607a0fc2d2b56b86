// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "model/weight_reader.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

std::string_view name(Part part) {
  switch (part) {
    case Part::kEmbedding:
      return "embedding";
    case Part::kAttention:
      return "attention";
    case Part::kNorm:
      return "norms";
    case Part::kRouter:
      return "router";
    case Part::kExperts:
      return "experts";
    case Part::kSharedExpert:
      return "shared expert";
    case Part::kDenseFfn:
      return "dense FFN";
    case Part::kHead:
      return "head";
    case Part::kVision:
      return "vision tower";
    case Part::kProjector:
      return "projector";
  }
  return "unknown";
}

std::int64_t total_bytes(const PartSizes& parts) {
  std::int64_t sum = 0;
  for (const auto& [part, size] : parts) sum += size.bytes;
  return sum;
}

WeightReader::WeightReader(const Checkpoint& checkpoint, AssumedPrecision assumed)
    : checkpoint_(checkpoint), assumed_(assumed) {}

WeightReader::WeightReader(const Checkpoint& checkpoint, Backend& backend, LoadListener listener)
    : checkpoint_(checkpoint), backend_(&backend), listener_(std::move(listener)) {}

namespace {

// Parts that files may hold as E4M3: linear layers, but not what chooses experts or what touches tokens.
bool is_linear(Part part) {
  return part == Part::kAttention || part == Part::kExperts || part == Part::kSharedExpert || part == Part::kDenseFfn;
}

std::int64_t blocks(std::int64_t elements) {
  return (elements + kScaleBlock - 1) / kScaleBlock;
}

std::int64_t assumed_bytes(AssumedPrecision precision, bool is_fp8, std::int64_t rows, std::int64_t columns) {
  if (precision == AssumedPrecision::kBf16 || !is_fp8) return 2 * rows * columns;
  return rows * columns + 4 * blocks(rows) * blocks(columns);
}

}  // namespace

void WeightReader::declare(TensorRole role, const std::string& name, const Shape& shape, std::vector<DType> dtypes,
                           std::int64_t rows, std::int64_t columns) {
  PartSize& size = parts_[role.part];
  if (!is_scale(name)) size.parameters += rows * columns;
  if (const TensorInfo* info = checkpoint_.find(name); info && info->shape.elements() > 0)
    size.bytes +=
        static_cast<std::int64_t>(static_cast<double>(info->bytes) / static_cast<double>(info->shape.elements()) *
                                  static_cast<double>(rows * columns));
  else if (!checkpoint_.has_weights() && !is_scale(name))  // whose bytes are reckoned with its weight's
    size.bytes += assumed_bytes(assumed_, is_linear(role.part) && shape.rank > 1, rows, columns);
  if (!declared_.insert(name).second) return;  // another range of the same tensor
  roles_.push_back(role);
  requirements_.required.push_back({name, shape, std::move(dtypes)});
}

void WeightReader::count_done(std::int64_t bytes) const {
  if (listener_) listener_(bytes);
}

namespace {

struct Range {
  std::int64_t rows, row_begin, columns, column_begin, k;
};

Range range_of(const WeightName& w) {
  const bool stacked = w.expert >= 0;
  const std::int64_t n = stacked ? w.shape[1] : w.shape[0], k = stacked ? w.shape[2] : w.shape.row_elements();
  const std::int64_t row_end = w.row_end < 0 ? n : w.row_end, column_end = w.column_end < 0 ? k : w.column_end;
  return {row_end - w.row_begin, w.row_begin + (w.expert < 0 ? 0 : w.expert * n), column_end - w.column_begin,
          w.column_begin, k};
}

// The blocks of scales that a range touches. An expert's begin with a row of their own.
struct ScaleRange {
  std::int64_t row_begin, row_end, column_begin, column_end, stride;
  std::int64_t count() const { return (row_end - row_begin) * (column_end - column_begin); }
};

ScaleRange scales_of(const WeightName& w) {
  const Range r = range_of(w);
  const std::int64_t expert_begin = std::max<std::int64_t>(w.expert, 0) * blocks(w.shape[w.shape.rank - 2]);
  const std::int64_t row_begin = w.row_begin / kScaleBlock;
  const std::int64_t row_end = r.rows == 0 ? row_begin : blocks(w.row_begin + r.rows);
  const std::int64_t column_begin = r.column_begin / kScaleBlock;
  const std::int64_t column_end = r.columns == 0 ? column_begin : blocks(r.column_begin + r.columns);
  return {expert_begin + row_begin, expert_begin + row_end, column_begin, column_end, blocks(r.k)};
}

Shape scale_shape(const Shape& weight) {
  Shape shape = weight;
  for (const int axis : {weight.rank - 2, weight.rank - 1}) shape.dims[axis] = blocks(weight[axis]);
  return shape;
}

std::string scale_name(const std::string& weight) {
  return weight + "_scale_inv";
}

BlockScales read_scales(const std::byte* data, DType dtype, const WeightName& w) {
  const ScaleRange r = scales_of(w);
  BlockScales scales;
  scales.first_row = w.row_begin % kScaleBlock;
  scales.stride = r.column_end - r.column_begin;
  scales.values.resize(static_cast<std::size_t>(r.count()));
  float* out = scales.values.data();
  for (std::int64_t row = r.row_begin; row < r.row_end; ++row, out += scales.stride)
    dequantise(dtype, data + row_bytes(dtype, static_cast<std::size_t>(row * r.stride + r.column_begin)),
               static_cast<std::size_t>(scales.stride), out);
  return scales;
}

WeightPart part_at(const std::byte* data, DType dtype, const WeightName& w) {
  const Range r = range_of(w);
  const bool has_scales = dtype == DType::kF8E4M3;  // whose last block may be cut short
  const auto block = has_scales ? kScaleBlock : static_cast<std::int64_t>(traits(dtype).block_elements);
  const std::int64_t column_end = r.column_begin + r.columns;
  if (r.column_begin % block != 0 || (column_end % block != 0 && !(has_scales && column_end == r.k)))
    throw Error(ErrorCode::kUnsupported, format("{}: columns {} … {} of {} do not lie on the {}-value blocks of {}",
                                                w.name, r.column_begin, column_end, r.k, block, name(dtype)));
  WeightPart part;
  part.row_stride_bytes = row_bytes(dtype, static_cast<std::size_t>(r.k));
  part.data = data + static_cast<std::size_t>(r.row_begin) * part.row_stride_bytes +
              row_bytes(dtype, static_cast<std::size_t>(r.column_begin));
  part.dtype = dtype;
  part.rows = r.rows;
  part.row_order = w.row_order;
  return part;
}

std::vector<DType> plain_matrix_types() {
  return {DType::kF32,  DType::kBF16, DType::kF16,  DType::kQ8_0, DType::kQ4_0,
          DType::kQ4_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};
}

}  // namespace

void WeightReader::declare_matrix(Part part, const WeightName& w) {
  std::vector<DType> dtypes = plain_matrix_types();
  const bool may_be_fp8 = accepts_block_fp8_ && is_linear(part);
  if (may_be_fp8) dtypes.push_back(DType::kF8E4M3);
  const Range r = range_of(w);
  declare({part}, w.name, w.shape, std::move(dtypes), r.rows, r.columns);
  if (may_be_fp8 && is_block_fp8(w.name))
    declare({part}, scale_name(w.name), scale_shape(w.shape), {DType::kF32, DType::kBF16}, 1, scales_of(w).count());
}

bool WeightReader::is_block_fp8(const std::string& name) const {
  if (!checkpoint_.has_weights()) return accepts_block_fp8_ && assumed_ == AssumedPrecision::kFp8;
  const TensorInfo* info = checkpoint_.find(name);
  return info && info->dtype == DType::kF8E4M3;
}

// Returns the bytes read.
std::int64_t WeightReader::add_part(WeightSource& source, const WeightName& w) const {
  const Range r = range_of(w);
  const TensorInfo& info = *checkpoint_.find(w.name);
  WeightPart part = part_at(checkpoint_.data(info).data(), *info.dtype, w);
  std::int64_t bytes = r.rows * static_cast<std::int64_t>(row_bytes(*info.dtype, static_cast<std::size_t>(r.columns)));
  if (info.dtype == DType::kF8E4M3) {
    const TensorInfo& scales = *checkpoint_.find(scale_name(w.name));
    part.scales = read_scales(checkpoint_.data(scales).data(), *scales.dtype, w);
    bytes += static_cast<std::int64_t>(row_bytes(*scales.dtype, part.scales.values.size()));
  }
  source.parts.push_back(std::move(part));
  source.k = r.columns;
  return bytes;
}

// The rows that were read are given back at once: a layer's experts may lie in one tensor, and be most of the model.
void WeightReader::release(const WeightName& w) const {
  const Range r = range_of(w);
  const TensorInfo& info = *checkpoint_.find(w.name);
  const std::uint64_t bytes = row_bytes(*info.dtype, static_cast<std::size_t>(r.k));
  checkpoint_.release(info, static_cast<std::uint64_t>(r.row_begin) * bytes,
                      static_cast<std::uint64_t>(r.rows) * bytes);
}

std::unique_ptr<Weight> WeightReader::matrix(Part part, const std::vector<WeightName>& parts) {
  if (!backend_) {
    for (const WeightName& w : parts) declare_matrix(part, w);
    return nullptr;
  }
  WeightSource source;
  std::int64_t bytes_read = 0;
  for (const WeightName& w : parts) bytes_read += add_part(source, w);
  std::unique_ptr<Weight> weight = backend_->pack(source);
  for (const WeightName& w : parts) release(w);
  bytes_packed_ += static_cast<std::int64_t>(weight->bytes());
  count_done(bytes_read);
  return weight;
}

void WeightReader::check_count(const std::string& of, std::int64_t count, const char* things) const {
  if (backend_ && count > backend_->weights_max())
    throw Error(ErrorCode::kUnsupported, format("{}: {} {} on one worker; {} multiplies by at most {} at once", of,
                                                count, things, backend_->describe(), backend_->weights_max()));
}

std::int64_t WeightReader::slice_granule(const std::string& down) const {
  // Rows of gate and up are cut too; only blocks of scales have any height. Where any weight may have such blocks
  // inputs may be rounded in groups as wide, and a group must not be cut either.
  std::int64_t granule = accepts_block_fp8_ ? kScaleBlock : 32;
  const TensorInfo* info = checkpoint_.find(down);
  if (info && info->dtype) granule = std::max(granule, static_cast<std::int64_t>(traits(*info->dtype).block_elements));
  return granule;
}

namespace {

// A part with rows and columns exchanged, in memory of its own.
struct TransposedPart {
  std::vector<std::byte> bytes;
  WeightPart part;
};

template <class Element>
TransposedPart transpose_elements(const WeightPart& part, std::int64_t columns) {
  TransposedPart turned;
  turned.bytes.resize(static_cast<std::size_t>(part.rows * columns) * sizeof(Element));
  auto* out = reinterpret_cast<Element*>(turned.bytes.data());
  for (std::int64_t i = 0; i < part.rows; ++i) {
    const std::byte* row = part.row(i);
    for (std::int64_t c = 0; c < columns; ++c)
      std::memcpy(&out[c * part.rows + i], row + c * sizeof(Element), sizeof(Element));
  }
  turned.part = {turned.bytes.data(), part.dtype, columns, static_cast<std::size_t>(part.rows) * sizeof(Element), {}};
  return turned;
}

BlockScales transpose_scales(const BlockScales& scales) {
  BlockScales turned = scales;
  turned.stride = scales.stride == 0 ? 0 : std::ssize(scales.values) / scales.stride;
  for (std::int64_t i = 0; i < std::ssize(scales.values); ++i)
    turned.values[static_cast<std::size_t>(i % scales.stride * turned.stride + i / scales.stride)] =
        scales.values[static_cast<std::size_t>(i)];
  return turned;
}

TransposedPart transpose(const WeightPart& part, std::int64_t columns) {
  if (part.dtype == DType::kF32) return transpose_elements<float>(part, columns);
  if (part.dtype == DType::kF8E4M3 && part.scales.first_row == 0) {
    TransposedPart turned = transpose_elements<std::uint8_t>(part, columns);
    turned.part.scales = transpose_scales(part.scales);
    return turned;
  }
  if (part.dtype == DType::kBF16 || part.dtype == DType::kF16) return transpose_elements<std::uint16_t>(part, columns);
  std::vector<float> widened(static_cast<std::size_t>(part.rows * columns));
  for (std::int64_t i = 0; i < part.rows; ++i) read_row(part, i, columns, widened.data() + i * columns);
  return transpose_elements<float>({reinterpret_cast<const std::byte*>(widened.data()),
                                    DType::kF32,
                                    part.rows,
                                    static_cast<std::size_t>(columns) * sizeof(float),
                                    {}},
                                   columns);
}

}  // namespace

std::unique_ptr<Weight> WeightReader::transposed(Part part, const WeightName& w) {
  if (!backend_) {
    declare_matrix(part, w);
    return nullptr;
  }
  WeightSource source;
  const std::int64_t bytes_read = add_part(source, w);
  const TransposedPart turned = transpose(source.parts.front(), source.k);
  std::unique_ptr<Weight> weight = backend_->pack({{turned.part}, source.parts.front().rows});
  release(w);
  bytes_packed_ += static_cast<std::int64_t>(weight->bytes());
  count_done(bytes_read);
  return weight;
}

std::vector<float> WeightReader::numbers(Part part, const std::string& name, const Shape& shape, float added) {
  const std::int64_t elements = shape.elements();
  if (!backend_) {
    declare({part, added}, name, shape, {DType::kF32, DType::kBF16, DType::kF16}, shape[0], shape.row_elements());
    return {};
  }
  const TensorInfo& info = *checkpoint_.find(name);
  std::vector<float> values(static_cast<std::size_t>(elements));
  dequantise(*info.dtype, checkpoint_.data(info).data(), values.size(), values.data());
  count_done(static_cast<std::int64_t>(info.bytes));
  for (float& value : values) value += added;
  return values;
}

Buffer WeightReader::constant(std::span<const float> values) {
  if (!backend_) return {};
  Buffer buffer = backend_->allocate(values.size_bytes());
  backend_->copy(buffer.data(), values.data(), values.size_bytes());
  backend_->synchronise();
  return buffer;
}

}  // namespace tandem
