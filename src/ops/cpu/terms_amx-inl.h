// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Products in f32 with weights in bf16 by AMX: rows are cut into three bf16 terms (kernels.h), whose products with a
// weight are exact before they are added. Included by the file for AMX only.
//
//   sums[row][column] = (Σ third term · w + Σ second term · w) + Σ first term · w
//
// Each of the three is summed in f32 by tile products over 32 of k, ascending: a row has the same bits beside any
// others. An error is about that of a chain of f32 multiply-adds, of which there are more. A term is a row of a tile
// like any other. Up to five rows have theirs in one tile, so that they take two products for 32 of k and 32 columns;
// up to sixteen rows take six, of 16 cycles each, for which vectors take 1,024 multiply-adds, two a cycle.
//
// Terms and products below 2^-126, which tiles take for zero, are not in the sum; an infinite weight makes NaN where a
// term is zero.
//
// Panels lie as tiles read them, but for a slice that begins at an odd k, or ends with the panel amid 32 of k.

namespace tandem::cpu::HWY_NAMESPACE {

// Rows of a panel's pairs, 32 of k.
constexpr int kStepPairs = kTermBlock / 2, kStepWords = kStepPairs * kPanelColumns;
constexpr int kPairStride = 4 * kPanelColumns, kTermStride = 2 * kTermBlock;

// 16 pairs of successive k from k on; those past the end are zero.
HWY_INLINE void copy_pairs(const std::uint32_t* panel, std::int64_t k, std::int64_t end, std::uint32_t* to) {
  const bool is_odd = k % 2 == 1;
  for (const std::uint32_t* stop = to + kStepWords; to < stop; to += kPanelColumns, k += 2) {
    const std::uint32_t* from = panel + k / 2 * kPanelColumns;
    for (int column = 0; column < kPanelColumns; column += kLanes) {
      UintVec pairs = k < end ? hn::LoadU(UintTag(), from + column) : hn::Zero(UintTag());
      if (is_odd) {
        pairs = hn::ShiftRight<16>(pairs);
        if (k + 1 < end) pairs = hn::Or(pairs, hn::ShiftLeft<16>(hn::LoadU(UintTag(), from + kPanelColumns + column)));
      }
      hn::Store(pairs, UintTag(), to + column);
    }
  }
}

// A slice of a panel: k from begin to end, of a panel of k_all.
struct TermSlice {
  const std::uint32_t* panel;
  std::int64_t begin, end, k_all;
  std::int64_t first_block;  // of a row's
  std::uint32_t* copy;       // of a step

  std::int64_t steps() const { return (end - begin + kTermBlock - 1) / kTermBlock; }
  // Where those of k past the end are another slice's, terms are zero.
  HWY_INLINE const std::uint32_t* pairs(std::int64_t step) const {
    const std::int64_t k = begin + step * kTermBlock;
    if (begin % 2 == 0 && k + kTermBlock <= k_all) return panel + k / 2 * kPanelColumns;
    copy_pairs(panel, k, k_all, copy);
    return copy;
  }
};

// Rows that lie together, and their sums [3 terms][rows][32].
struct TermGroup {
  const std::byte* terms;
  int rows;
  float* sums;

  bool is_one_tile() const { return kTerms * rows <= 16; }
  int tile_rows() const { return is_one_tile() ? kTerms * rows : rows; }
  std::int64_t term_bytes() const { return static_cast<std::int64_t>(rows) * kTermStride; }
  HWY_INLINE float* term_sums(int term) const { return sums + term * rows * kPanelColumns; }
};

// Registers 0 to 2 hold terms, 3 and 4 columns of a step, 5 to 7 sums.
HWY_INLINE TileShapes term_tile_shapes(int rows) {
  TileShapes shapes;
  for (int i = 0; i < kTerms; ++i) {
    shapes.set(i, rows, kTermStride);
    shapes.set(5 + i, rows, 64);
  }
  for (int i = 3; i < 5; ++i) shapes.set(i, kStepPairs, 64);
  return shapes;
}

// What of a panel will be read some products later; of groups that follow, nothing has to be fetched.
HWY_INLINE void prefetch_pairs(const std::uint32_t* pairs) {
  constexpr int kStepBytes = 4 * kStepWords, kAhead = 4 * kStepBytes;
  prefetch<kStepBytes>(reinterpret_cast<const std::byte*>(pairs), kAhead);
}

// All terms in one tile.
static void sum_one_tile(const TermSlice& slice, const TermGroup& group, bool is_first) {
  const std::byte* terms = group.terms + slice.first_block * kTerms * group.term_bytes();
  const std::int64_t steps = slice.steps();
  clear_tile<5>();
  clear_tile<6>();
  for (std::int64_t step = 0; step < steps; ++step, terms += kTerms * group.term_bytes()) {
    const std::uint32_t* pairs = slice.pairs(step);
    if (is_first) prefetch_pairs(pairs);
    load_tile<0>(terms, kTermStride);
    load_tile<3>(pairs, kPairStride);
    multiply_bf16_tiles<5, 0, 3>();
    load_tile<4>(pairs + kLanes, kPairStride);
    multiply_bf16_tiles<6, 0, 4>();
  }
  store_tile<5>(group.sums, kPairStride);
  store_tile<6>(group.sums + kLanes, kPairStride);
}

HWY_INLINE void clear_sums() {
  clear_tile<5>();
  clear_tile<6>();
  clear_tile<7>();
}
HWY_INLINE void load_sums(const TermGroup& group, int column) {
  load_tile<5>(group.term_sums(0) + column, kPairStride);
  load_tile<6>(group.term_sums(1) + column, kPairStride);
  load_tile<7>(group.term_sums(2) + column, kPairStride);
}
HWY_INLINE void store_sums(const TermGroup& group, int column) {
  store_tile<5>(group.term_sums(0) + column, kPairStride);
  store_tile<6>(group.term_sums(1) + column, kPairStride);
  store_tile<7>(group.term_sums(2) + column, kPairStride);
}

// Adds steps to the sums in registers, each term in a tile, for one vector of columns.
HWY_INLINE void add_three_tiles(const TermSlice& slice, const TermGroup& group, int column, std::int64_t begin,
                                std::int64_t end, bool is_first) {
  const std::int64_t term_bytes = group.term_bytes();
  const std::byte* terms = group.terms + (slice.first_block + begin) * kTerms * term_bytes;
  const auto add = [&](auto columns, std::int64_t step) __attribute__((always_inline)) {
    constexpr int kColumns = decltype(columns)::kTile;
    const std::uint32_t* pairs = slice.pairs(step);
    if (is_first) prefetch_pairs(pairs);
    load_tile<kColumns>(pairs + column, kPairStride);
    load_tile<0>(terms, kTermStride);
    multiply_bf16_tiles<5, 0, kColumns>();
    load_tile<1>(terms + term_bytes, kTermStride);
    multiply_bf16_tiles<6, 1, kColumns>();
    load_tile<2>(terms + 2 * term_bytes, kTermStride);
    multiply_bf16_tiles<7, 2, kColumns>();
    terms += kTerms * term_bytes;
  };
  std::int64_t step = begin;
  for (; step + 1 < end; step += 2) {
    add(Register<3>(), step);
    add(Register<4>(), step + 1);
  }
  if (step < end) add(Register<3>(), step);
}

// Both vectors of columns take turns with the terms of some steps, which the L1 cache keeps so long; the one that had
// the last of them goes on with the next.
static void sum_three_tiles(const TermSlice& slice, const TermGroup& group, bool is_first) {
  constexpr std::int64_t kStepsInCache = 6;
  const std::int64_t steps = slice.steps();
  int column = 0;
  clear_sums();
  for (std::int64_t begin = 0; begin == 0 || begin < steps; begin += kStepsInCache) {
    const std::int64_t end = steps - begin < kStepsInCache ? steps : begin + kStepsInCache;
    add_three_tiles(slice, group, column, begin, end, is_first);
    store_sums(group, column);
    column = kLanes - column;
    if (begin == 0)
      clear_sums();
    else
      load_sums(group, column);
    add_three_tiles(slice, group, column, begin, end, false);
  }
  store_sums(group, column);
}

// Registers shaped for groups of so many rows of tiles.
class TermTiles {
 public:
  HWY_INLINE void set_rows(int rows) {
    if (rows == rows_) return;
    rows_ = rows;
    session_.use(term_tile_shapes(rows));
  }

 private:
  TileSession session_;
  int rows_ = 0;
};

// Sums [rows, 32] of a slice for a block of rows.
static void sum_slice_of_terms(TermTiles& tiles, const TermSlice& slice, const MadeShare& share, const std::byte* x,
                               int rows, float* term_sums, float* sums) {
  for (int done = 0; done < rows; done += kTermGroupRows) {
    const int left = rows - done;
    const TermGroup group{x + done * share.blocks * kTermBlockBytes, left < kTermGroupRows ? left : kTermGroupRows,
                          term_sums};
    tiles.set_rows(group.tile_rows());
    if (group.is_one_tile()) {
      sum_one_tile(slice, group, done == 0);
    } else {
      sum_three_tiles(slice, group, done == 0);
    }
    for (int j = 0; j < group.rows * kPanelColumns; j += kLanes, sums += kLanes) {
      const Vec small = hn::Add(hn::Load(kF, group.term_sums(0) + j), hn::Load(kF, group.term_sums(1) + j));
      hn::Store(hn::Add(small, hn::Load(kF, group.term_sums(2) + j)), kF, sums);
    }
  }
}

static bool takes_terms(DType dtype) {
  return dtype == DType::kBF16;
}

// Where a share's parts lie in its scratch.
struct TermScratch {
  std::uint32_t* copy;  // of a step
  float* term_sums;     // of a group
  float* stack;         // of slices' sums

  explicit TermScratch(float* scratch)
      : copy(reinterpret_cast<std::uint32_t*>(scratch)),
        term_sums(scratch + kStepWords),
        stack(scratch + static_cast<std::int64_t>(kWidenedSteps) * kPanelColumns) {
    static_assert(kStepWords + kTerms * kTermGroupRows * kPanelColumns <= kWidenedSteps * kPanelColumns);
  }
};

// Sums [rows, 32] of one panel and a block of rows.
static const float* term_tree(TermTiles& tiles, const MadeShare& share, const std::byte* panel, const std::byte* x,
                              int rows) {
  constexpr std::int64_t kLevel = static_cast<std::int64_t>(kRowBlock) * kPanelColumns;
  const TermScratch scratch(share.scratch);
  TermSlice slice{reinterpret_cast<const std::uint32_t*>(panel), 0, 0, share.bounds[share.slices], 0, scratch.copy};
  const auto sum = [&](int i, float* sums) __attribute__((always_inline)) {
    slice.begin = share.bounds[i];
    slice.end = share.bounds[i + 1];
    sum_slice_of_terms(tiles, slice, share, x, rows, scratch.term_sums, sums);
    slice.first_block += slice.steps();
  };
  return sum_tree<kLevel>(share.slices, rows, scratch.stack, sum);
}

// Rows whose terms stay in the L2 cache beside a panel.
HWY_INLINE int rows_in_cache(std::int64_t blocks) {
  constexpr std::int64_t kBytes = 1536 * 1024;
  if (blocks == 0) return kRowBlock;
  const std::int64_t rows = kBytes / (blocks * kTermBlockBytes) / kTermGroupRows * kTermGroupRows;
  return rows < 2 * kTermGroupRows ? 2 * kTermGroupRows : rows < kRowBlock ? static_cast<int>(rows) : kRowBlock;
}

static void term_product(const MadeShare& share) {
  TermTiles tiles;
  const int block = rows_in_cache(share.blocks);
  for (std::int64_t first = 0; first < share.rows; first += block) {
    const int rows = share.rows - first < block ? static_cast<int>(share.rows - first) : block;
    const std::byte *data = share.panels, *x = share.x + first * share.blocks * kTermBlockBytes;
    for (std::int64_t column = 0; column < share.columns; column += kPanelColumns, data += share.panel_bytes) {
      const float* sums = term_tree(tiles, share, data, x, rows);
      store_panel(share, first, rows, column, sums);
    }
  }
}

// ---- cutting

// Each term is the upper half of what is left; nothing is left of the third, but of numbers below 2^-110. Of infinity
// and NaN there is only the first, which is the last in memory.
HWY_INLINE void split(Vec x, UintVec (&terms)[kTerms]) {
  const UintVec upper = hn::Set(UintTag(), 0xffff0000u);
  const UintVec bits = hn::BitCast(UintTag(), x), magnitude = hn::And(bits, hn::Set(UintTag(), 0x7fffffffu));
  const auto is_finite = hn::Lt(magnitude, hn::Set(UintTag(), 0x7f800000u));
  const auto is_nan = hn::Gt(magnitude, hn::Set(UintTag(), 0x7f800000u));
  const UintVec first = hn::IfThenElse(is_nan, hn::Set(UintTag(), 0x7fc00000u), hn::And(bits, upper));
  const Vec rest = hn::Sub(x, hn::BitCast(kF, first));
  const UintVec second = hn::And(hn::BitCast(UintTag(), rest), upper);
  const Vec last = hn::Sub(rest, hn::BitCast(kF, second));
  terms[2] = first;
  terms[1] = hn::IfThenElseZero(is_finite, second);
  terms[0] = hn::IfThenElseZero(is_finite, hn::BitCast(UintTag(), last));
}

static void split_row(const float* x, const std::int32_t* bounds, int slices, const RowPlace& to) {
  const hn::Rebind<std::uint16_t, FloatTag> halves;
  std::byte* terms = to.tile + to.row * kTermStride;
  for (int i = 0; i < slices; ++i) {
    for (std::int64_t begin = bounds[i]; begin < bounds[i + 1];
         begin += kTermBlock, terms += kTerms * to.rows * kTermStride) {
      for (int c = 0; c < kTermBlock; c += kLanes) {
        const std::int64_t at = begin + c, left = bounds[i + 1] - at;
        const Vec values = left >= kLanes ? hn::LoadU(kF, x + at)
                           : left > 0     ? hn::MaskedLoad(hn::FirstN(kF, static_cast<std::size_t>(left)), kF, x + at)
                                          : hn::Zero(kF);
        UintVec cut[kTerms];
        split(values, cut);
        for (int t = 0; t < kTerms; ++t)
          hn::StoreU(hn::TruncateTo(halves, hn::ShiftRight<16>(cut[t])), halves,
                     reinterpret_cast<std::uint16_t*>(terms + t * to.rows * kTermStride) + c);
      }
    }
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
