// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What every product does with the sums [rows, 32] of a panel. All is inlined, so any file may include this for its
// instruction set, behind vector-inl.h.

namespace tandem::cpu::HWY_NAMESPACE {

// Leaves the tree over all slices in the first level of the stack, whose levels are kLevel floats, and returns it.
// sum_slice(i, sums) sets the sums of slice i; it has to be inlined. Slices are pushed on the stack; after slice i as
// many pairs are added as i has trailing ones, which walks the tree from the leaves in order.
template <std::int64_t kLevel, class SumSlice>
HWY_INLINE const float* sum_tree(int slices, int rows, float* stack, const SumSlice& sum_slice) {
  int depth = 0;
  for (int i = 0; i < slices; ++i, ++depth) {
    sum_slice(i, stack + depth * kLevel);
    for (int bits = i; bits & 1; bits >>= 1, --depth) {
      float* left = stack + (depth - 1) * kLevel;
      for (int j = 0; j < rows * kPanelColumns; j += kLanes)
        hn::StoreU(hn::Add(hn::LoadU(kF, left + j), hn::LoadU(kF, left + kLevel + j)), kF, left + j);
    }
  }
  return stack;
}

// Sums of rows from first on, of the panel that begins at a column of the share, to where they belong.
template <class Share>
HWY_INLINE void store_panel(const Share& share, std::int64_t first, int rows, std::int64_t column, const float* sums) {
  const int columns = share.columns - column < kPanelColumns ? static_cast<int>(share.columns - column) : kPanelColumns;
  float* out = share.out + first * share.out_stride + column;
  for (int r = 0; r < rows; ++r, sums += kPanelColumns, out += share.out_stride) {
    int c = 0;
    for (; c + kLanes <= columns; c += kLanes) hn::StoreU(hn::LoadU(kF, sums + c), kF, out + c);
    for (; c < columns; ++c) out[c] = sums[c];
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
