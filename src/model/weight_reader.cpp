// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "model/weight_reader.h"

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
  }
  return "unknown";
}

WeightReader::WeightReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

WeightReader::WeightReader(const Checkpoint& checkpoint, Backend& backend, std::int64_t bytes_total,
                           LoadListener listener)
    : checkpoint_(checkpoint), backend_(&backend), listener_(std::move(listener)) {
  progress_.bytes_total = bytes_total;
}

void WeightReader::declare(Part part, const std::string& name, const Shape& shape, bool vector, std::int64_t elements) {
  if (const TensorInfo* info = checkpoint_.find(name); info && info->shape.elements() > 0)
    bytes_declared_ += static_cast<std::int64_t>(
        static_cast<double>(info->bytes) / static_cast<double>(info->shape.elements()) * static_cast<double>(elements));
  if (!part_of_.emplace(name, part).second) return;  // another range of the same tensor
  std::vector<DType> dtypes{DType::kF32, DType::kBF16, DType::kF16};
  if (!vector) dtypes.insert(dtypes.end(), {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1});
  requirements_.required.push_back({name, shape, dtypes});
}

void WeightReader::count_done(std::int64_t bytes) {
  progress_.bytes_done += bytes;
  if (listener_) listener_(progress_);
}

namespace {

struct Range {
  std::int64_t rows, row_begin, columns, column_begin, k;
};

Range range_of(const WeightName& w) {
  const int axis = w.shape.rank - 2;  // of the rows
  const std::int64_t n = w.shape[axis], k = w.shape[axis + 1];
  const std::int64_t row_end = w.row_end < 0 ? n : w.row_end, column_end = w.column_end < 0 ? k : w.column_end;
  return {row_end - w.row_begin, w.row_begin + (w.expert < 0 ? 0 : w.expert * n), column_end - w.column_begin,
          w.column_begin, k};
}

WeightPart part_at(const std::byte* data, DType dtype, const WeightName& w) {
  const Range r = range_of(w);
  const auto block = static_cast<std::int64_t>(traits(dtype).block_elements);
  if (r.k % block != 0 || r.column_begin % block != 0 || r.columns % block != 0)
    throw Error(ErrorCode::kUnsupported,
                format("{}: columns {} … {} of {} do not lie on the {}-value blocks of {}", w.name, r.column_begin,
                       r.column_begin + r.columns, r.k, block, name(dtype)));
  WeightPart part;
  part.row_stride_bytes = row_bytes(dtype, static_cast<std::size_t>(r.k));
  part.data = data + static_cast<std::size_t>(r.row_begin) * part.row_stride_bytes +
              row_bytes(dtype, static_cast<std::size_t>(r.column_begin));
  part.dtype = dtype;
  part.rows = r.rows;
  part.row_order = w.row_order;
  return part;
}

}  // namespace

std::unique_ptr<Weight> WeightReader::matrix(Part part, const std::vector<WeightName>& parts) {
  WeightSource source;
  std::int64_t bytes_read = 0;
  for (const WeightName& w : parts) {
    const Range r = range_of(w);
    if (!backend_) {
      declare(part, w.name, w.shape, false, r.rows * r.columns);
      continue;
    }
    const TensorInfo& info = *checkpoint_.find(w.name);
    source.parts.push_back(part_at(checkpoint_.data(info).data(), *info.dtype, w));
    source.k = r.columns;
    bytes_read += r.rows * static_cast<std::int64_t>(row_bytes(*info.dtype, static_cast<std::size_t>(r.columns)));
  }
  if (!backend_) return nullptr;
  std::unique_ptr<Weight> weight = backend_->pack(source);
  for (const WeightName& w : parts)  // stacked experts share a tensor: it is given back with the last of them
    if (w.expert < 0 || w.expert + 1 == w.shape[0]) checkpoint_.release(*checkpoint_.find(w.name));
  bytes_packed_ += static_cast<std::int64_t>(weight->bytes());
  count_done(bytes_read);
  return weight;
}

namespace {

// Rows of a part as columns, element by element as stored.
template <class Element>
std::vector<std::byte> turned(const WeightPart& part, std::int64_t k) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(part.rows * k) * sizeof(Element));
  auto* out = reinterpret_cast<Element*>(bytes.data());
  for (std::int64_t i = 0; i < part.rows; ++i) {
    const std::byte* row = part.data + static_cast<std::size_t>(i) * part.row_stride_bytes;
    for (std::int64_t c = 0; c < k; ++c)
      std::memcpy(&out[c * part.rows + i], row + c * sizeof(Element), sizeof(Element));
  }
  return bytes;
}

}  // namespace

std::unique_ptr<Weight> WeightReader::transposed(Part part, const WeightName& w) {
  const Range r = range_of(w);
  if (!backend_) {
    declare(part, w.name, w.shape, false, r.rows * r.columns);
    return nullptr;
  }
  const TensorInfo& info = *checkpoint_.find(w.name);
  WeightPart source = part_at(checkpoint_.data(info).data(), *info.dtype, w);
  std::vector<std::byte> widened;
  if (is_quantised(source.dtype)) {
    const std::size_t stride = static_cast<std::size_t>(r.columns) * sizeof(float);
    widened.resize(static_cast<std::size_t>(r.rows) * stride);
    for (std::int64_t i = 0; i < r.rows; ++i)
      dequantise(source.dtype, source.data + static_cast<std::size_t>(i) * source.row_stride_bytes,
                 static_cast<std::size_t>(r.columns),
                 reinterpret_cast<float*>(widened.data() + static_cast<std::size_t>(i) * stride));
    source = {widened.data(), DType::kF32, r.rows, stride, {}};
  }
  const std::vector<std::byte> bytes =
      source.dtype == DType::kF32 ? turned<float>(source, r.columns) : turned<std::uint16_t>(source, r.columns);
  const std::size_t stride = row_bytes(source.dtype, static_cast<std::size_t>(r.rows));
  std::unique_ptr<Weight> weight = backend_->pack({{{bytes.data(), source.dtype, r.columns, stride, {}}}, r.rows});
  bytes_packed_ += static_cast<std::int64_t>(weight->bytes());
  count_done(r.rows * static_cast<std::int64_t>(row_bytes(*info.dtype, static_cast<std::size_t>(r.columns))));
  return weight;
}

Buffer WeightReader::vector(Part part, const std::string& name, std::int64_t elements) {
  if (!backend_) {
    declare(part, name, Shape{elements}, true, elements);
    return {};
  }
  const TensorInfo& info = *checkpoint_.find(name);
  std::vector<float> values(static_cast<std::size_t>(elements));
  dequantise(*info.dtype, checkpoint_.data(info).data(), values.size(), values.data());
  count_done(static_cast<std::int64_t>(info.bytes));
  return constant(values);
}

Buffer WeightReader::constant(std::span<const float> values) {
  if (!backend_) return {};
  Buffer buffer = backend_->allocate(values.size_bytes());
  backend_->copy(buffer.data(), values.data(), values.size_bytes());
  backend_->synchronise();
  return buffer;
}

}  // namespace tandem
