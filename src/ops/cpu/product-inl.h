// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Products of rows with packed weights. Included by kernels-inl.h only, once per instruction set.
//
// Problem: rows × 576…18432 times a weight that is read once. One row is bound by memory, many rows by multiply-adds.
// A share is walked in blocks of kRowBlock rows; within one, panel after panel. A few rows unpack a weight in
// registers; more rows widen kWidenedSteps of the panel to f32 once and share that. Both give the same bits, since a
// weight's f32 value is the same.

namespace tandem::cpu::HWY_NAMESPACE {

HWY_INLINE void fill_zero(float* values, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += kLanes) hn::StoreU(hn::Zero(kF), kF, values + i);
}

// Adds the product of slice [begin, end) to sums [rows, 32].
template <class Panel>
void sum_slice(const Panel& panel, std::int64_t begin, std::int64_t end, const float* const* x, int rows, float* sums,
               float* widened) {
  if (rows <= Panel::kRowsFused) {
    accumulate_all(panel, begin, end - begin, kPanelColumns, x, rows, begin, sums, kPanelColumns);
    return;
  }
  for (std::int64_t k = begin; k < end; k += kWidenedSteps) {
    const std::int64_t count = end - k < kWidenedSteps ? end - k : kWidenedSteps;
    widen(panel, k, count, kPanelColumns, widened);
    accumulate_all(F32Panel{widened, kPanelColumns}, 0, count, kPanelColumns, x, rows, k, sums, kPanelColumns);
  }
}

// Leaves the tree over all slices in the first level of the scratch and returns it. Slices are pushed on a stack; after
// slice i as many pairs are added as i has trailing ones, which walks the tree from the leaves in order.
template <class Panel>
float* sum_tree(const Panel& panel, const ProductShare& share, const float* const* x, int rows) {
  constexpr std::int64_t kLevel = static_cast<std::int64_t>(kRowBlock) * kPanelColumns;
  float* stack = share.scratch + static_cast<std::int64_t>(kWidenedSteps) * kPanelColumns;
  int depth = 0;
  for (int i = 0; i < share.slices; ++i, ++depth) {
    float* sums = stack + depth * kLevel;
    fill_zero(sums, rows * kPanelColumns);
    sum_slice(panel, share.bounds[i], share.bounds[i + 1], x, rows, sums, share.scratch);
    for (int bits = i; bits & 1; bits >>= 1, --depth) {
      float* left = stack + (depth - 1) * kLevel;
      const float* right = stack + depth * kLevel;
      for (int j = 0; j < rows * kPanelColumns; j += kLanes)
        hn::StoreU(hn::Add(hn::LoadU(kF, left + j), hn::LoadU(kF, right + j)), kF, left + j);
    }
  }
  return stack;
}

HWY_INLINE void store_columns(const float* sums, int rows, int columns, float* out, std::int64_t out_stride) {
  for (int r = 0; r < rows; ++r, sums += kPanelColumns, out += out_stride) {
    int c = 0;
    for (; c + kLanes <= columns; c += kLanes) hn::StoreU(hn::LoadU(kF, sums + c), kF, out + c);
    for (; c < columns; ++c) out[c] = sums[c];
  }
}

template <class MakePanel>
void multiply(const ProductShare& share, const MakePanel& make_panel) {
  for (std::int64_t first = 0; first < share.rows; first += kRowBlock) {
    const int rows = share.rows - first < kRowBlock ? static_cast<int>(share.rows - first) : kRowBlock;
    const float* x[kRowBlock];
    for (int r = 0; r < rows; ++r) x[r] = share.x + (first + r) * share.x_stride;
    const std::byte* data = share.panels;
    for (std::int64_t column = 0; column < share.columns; column += kPanelColumns, data += share.panel_bytes) {
      const float* sums = sum_tree(make_panel(data), share, x, rows);
      const int columns =
          share.columns - column < kPanelColumns ? static_cast<int>(share.columns - column) : kPanelColumns;
      store_columns(sums, rows, columns, share.out + first * share.out_stride + column, share.out_stride);
    }
  }
}

void product(const ProductShare& share) {
  switch (share.dtype) {
    case DType::kF32:
      return multiply(share,
                      [](const std::byte* p) { return F32Panel{reinterpret_cast<const float*>(p), kPanelColumns}; });
    case DType::kBF16:
      return multiply(share, [](const std::byte* p) { return Bf16Pairs{reinterpret_cast<const std::uint32_t*>(p)}; });
    case DType::kF16:
      return multiply(
          share, [](const std::byte* p) { return F16Panel{reinterpret_cast<const std::uint16_t*>(p), kPanelColumns}; });
    case DType::kF8E4M3:
      return multiply(share, [](const std::byte* p) { return F8Panel{p}; });
    case DType::kQ8_0:
      return multiply(share, [](const std::byte* p) { return Q8Panel{p}; });
    case DType::kQ4_0:
      return multiply(share, [](const std::byte* p) { return Q4Panel<false>{p}; });
    case DType::kQ4_1:
      return multiply(share, [](const std::byte* p) { return Q4Panel<true>{p}; });
    case DType::kQ4_K:
      return multiply(share, [](const std::byte* p) { return KPanel<false>{p}; });
    case DType::kQ5_K:
      return multiply(share, [](const std::byte* p) { return KPanel<true>{p}; });
    case DType::kQ6_K:
      return multiply(share, [](const std::byte* p) { return Q6KPanel{p}; });
    default:
      return;  // pack() takes no other type
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
