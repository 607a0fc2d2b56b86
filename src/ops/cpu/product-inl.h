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

template <class MakePanel>
void multiply(const ProductShare& share, const MakePanel& make_panel) {
  constexpr std::int64_t kLevel = static_cast<std::int64_t>(kRowBlock) * kPanelColumns;
  float* stack = share.scratch + static_cast<std::int64_t>(kWidenedSteps) * kPanelColumns;
  for (std::int64_t first = 0; first < share.rows; first += kRowBlock) {
    const int rows = share.rows - first < kRowBlock ? static_cast<int>(share.rows - first) : kRowBlock;
    const float* x[kRowBlock];
    for (int r = 0; r < rows; ++r) x[r] = share.x + (first + r) * share.x_stride;
    const std::byte* data = share.panels;
    for (std::int64_t column = 0; column < share.columns; column += kPanelColumns, data += share.panel_bytes) {
      const auto panel = make_panel(data);
      const auto sum = [&](int i, float* sums) __attribute__((always_inline)) {
        fill_zero(sums, rows * kPanelColumns);
        sum_slice(panel, share.bounds[i], share.bounds[i + 1], x, rows, sums, share.scratch);
      };
      store_panel(share, first, rows, column, sum_tree<kLevel>(share.slices, rows, stack, sum));
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
