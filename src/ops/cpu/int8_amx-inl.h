// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Products of rows rounded to int8 with weights in blocks of integers, by AMX, sixteen rows at a time; the sums are
// those of int8-inl.h to the bit, since the inner one is exact and the outer one is the same chain. Included by the
// file for AMX only.
//
// A panel's integers are unpacked to bytes with a sign once for all rows of a block of rows, 512 of k at a time. A step
// is one scale's k. AMX makes the inner sums of sixteen rows and columns of eight steps, then vectors scale them and
// add them up: 8,192 multiply-adds take a tile product and a store of 16 cycles each, and 48 vector instructions (64
// with minima), two a cycle; with VNNI they take 176 (192).

namespace tandem::cpu::HWY_NAMESPACE {

constexpr int kStepBlocks = 16;  // that are unpacked at a time: 20 KiB, so that rows stay in the L1 cache beside

// One scale's integers of a panel.
template <class Panel>
struct alignas(64) Step {
  static constexpr int kWords = 8 / Panel::kParts;
  float scale[kPanelColumns];
  float minimum[Panel::kHasMinimum ? kPanelColumns : 16];
  std::uint32_t words[kWords][kPanelColumns];  // four successive bytes each
};

template <class Panel>
HWY_INLINE void unpack_step(const Panel& panel, std::int64_t block, int index, Step<Panel>& to) {
  const hn::Repartition<std::uint8_t, UintTag> bytes;
  const auto offset = hn::Set(bytes, std::uint8_t{Panel::kOffsetBits > 0 ? 1 << Panel::kOffsetBits : 0});
  const auto signed_bytes = [&](UintVec word) __attribute__((always_inline)) {
    return hn::BitCast(UintTag(), hn::Sub(hn::BitCast(bytes, word), offset));
  };
  for (int column = 0; column < kPanelColumns; column += kLanes) {
    auto part = panel.open(block, index, column);
    hn::Store(part.scale, kF, to.scale + column);
    if constexpr (Panel::kHasMinimum) hn::Store(part.minimum, kF, to.minimum + column);
    for (int j = 0; j < Step<Panel>::kWords; j += 2) {
      UintVec even, odd;
      part.next(even, odd);
      hn::Store(signed_bytes(even), UintTag(), to.words[j] + column);
      hn::Store(signed_bytes(odd), UintTag(), to.words[j + 1] + column);
    }
  }
}

template <class Panel>
static void unpack_blocks(const Panel& panel, std::int64_t begin, std::int64_t end, Step<Panel>* to) {
  for (std::int64_t block = begin; block < end; ++block) {
    prefetch<Panel::kBlockBytes>(panel.data + block * Panel::kBlockBytes);
    for (int index = 0; index < Panel::kParts; ++index) unpack_step(panel, block, index, *to++);
  }
}

// Steps take turns with two sets of registers: codes, half the columns of a step, and the sums of both.
constexpr int kCodesTile[2] = {0, 1}, kWordsTile[2] = {2, 3}, kSumsTile[2] = {4, 5};

template <class Panel>
TileShapes int8_tile_shapes() {
  TileShapes shapes;
  for (int set = 0; set < 2; ++set) {
    shapes.set(kCodesTile[set], kRoundedTileRows, kRoundedBlock / Panel::kParts);
    shapes.set(kWordsTile[set], Step<Panel>::kWords, 64);
    shapes.set(kSumsTile[set], kRoundedTileRows, 64);
  }
  return shapes;
}

struct alignas(64) StepSums {
  std::int32_t rows[kRoundedTileRows][kLanes];
};

template <int kSet, class Panel>
HWY_INLINE void begin_step(const std::byte* codes, const Step<Panel>& step, int column) {
  load_tile<kCodesTile[kSet]>(codes, kRoundedBlock);
  load_tile<kWordsTile[kSet]>(step.words[0] + column, 4 * kPanelColumns);
  clear_tile<kSumsTile[kSet]>();
  multiply_byte_tiles<kSumsTile[kSet], kCodesTile[kSet], kWordsTile[kSet]>();
}

// Blocks of sixteen rows.
template <class Panel>
struct TileRows16 {
  static constexpr int kBlockBytes = kRoundedBlockBytes * kRoundedTileRows;
  const std::byte* tile;  // of the first block

  HWY_INLINE const std::byte* codes(std::int64_t step) const {
    return tile + step / Panel::kParts * kBlockBytes + step % Panel::kParts * (kRoundedBlock / Panel::kParts);
  }
  HWY_INLINE const float* numbers(std::int64_t step) const {  // what stands behind the codes
    return reinterpret_cast<const float*>(tile + step / Panel::kParts * kBlockBytes + kRoundedBlock * kRoundedTileRows);
  }
};

// The inner sums of count steps from begin on. One that is stored while the next is made does not hold it up.
template <class Panel>
HWY_INLINE void multiply_steps(const TileRows16<Panel>& rows, const Step<Panel>* steps, std::int64_t begin, int count,
                               int column, StepSums* sums) {
  for (int i = 0; i < count; i += 2) {
    begin_step<0>(rows.codes(begin + i), steps[begin + i], column);
    if (i > 0) store_tile<kSumsTile[1]>(sums[i - 1].rows, 64);
    if (i + 1 < count) begin_step<1>(rows.codes(begin + i + 1), steps[begin + i + 1], column);
    store_tile<kSumsTile[0]>(sums[i].rows, 64);
  }
  if (count % 2 == 0) store_tile<kSumsTile[1]>(sums[count - 1].rows, 64);
}

template <class Panel>
HWY_INLINE void scale_step(const StepSums& integers, const float* numbers, const Step<Panel>& step, int column,
                           Vec (&sum)[kRoundedTileRows]) {
  const float* scaled_sums = numbers + kRoundedTileRows;
  const Vec scale = hn::Load(kF, step.scale + column);
#pragma GCC unroll 16
  for (int r = 0; r < kRoundedTileRows; ++r) {
    const Vec factor = hn::Mul(hn::Set(kF, numbers[r]), scale);
    sum[r] = hn::MulAdd(hn::ConvertTo(kF, hn::Load(IntTag(), integers.rows[r])), factor, sum[r]);
    if constexpr (Panel::kHasMinimum)
      sum[r] = hn::MulAdd(hn::Set(kF, scaled_sums[r]), hn::Load(kF, step.minimum + column), sum[r]);
  }
}

// Adds blocks of sixteen rows to one vector of columns of sums [16, 32].
template <class Panel>
static void add_blocks(const TileRows16<Panel>& rows, const Step<Panel>* steps, std::int64_t blocks, int column,
                       float* sums) {
  constexpr int kAtOnce = 8;
  Vec sum[kRoundedTileRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRoundedTileRows; ++r) sum[r] = hn::Load(kF, sums + r * kPanelColumns + column);
  StepSums made[kAtOnce];
  const std::int64_t all = blocks * Panel::kParts;
  for (std::int64_t begin = 0; begin < all; begin += kAtOnce) {
    const int count = all - begin < kAtOnce ? static_cast<int>(all - begin) : kAtOnce;
    multiply_steps(rows, steps, begin, count, column, made);
    for (int i = 0; i < count; ++i) scale_step(made[i], rows.numbers(begin + i), steps[begin + i], column, sum);
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRoundedTileRows; ++r) hn::Store(sum[r], kF, sums + r * kPanelColumns + column);
}

// Sums [rows, 32] of one panel and a multiple of sixteen rows.
template <class Panel>
static const float* amx_tree(const Panel& panel, const MadeShare& share, const std::byte* x, int rows) {
  constexpr std::int64_t kLevel = static_cast<std::int64_t>(kRowBlock) * kPanelColumns;
  constexpr std::int64_t kSteps = static_cast<std::int64_t>(kWidenedSteps) * kPanelColumns;
  static_assert(sizeof(Step<Panel>) * kStepBlocks * Panel::kParts <= kSteps * sizeof(float));
  auto* steps = reinterpret_cast<Step<Panel>*>(share.scratch);
  const std::int64_t row_bytes = share.blocks * kRoundedBlockBytes;
  const auto sum = [&](int i, float* sums) __attribute__((always_inline)) {
    for (int j = 0; j < rows * kPanelColumns; j += kLanes) hn::Store(hn::Zero(kF), kF, sums + j);
    const std::int64_t end = share.bounds[i + 1] / kRoundedBlock;
    for (std::int64_t block = share.bounds[i] / kRoundedBlock, next; block < end; block = next) {
      next = block + kStepBlocks < end ? block + kStepBlocks : end;
      unpack_blocks(panel, block, next, steps);
      for (int r = 0; r < rows; r += kRoundedTileRows)
        for (int column = 0; column < kPanelColumns; column += kLanes)
          add_blocks(TileRows16<Panel>{x + r * row_bytes + block * TileRows16<Panel>::kBlockBytes}, steps, next - block,
                     column, sums + r * kPanelColumns);
    }
  };
  return sum_tree<kLevel>(share.slices, rows, share.scratch + kSteps, sum);
}

// Rows are a multiple of sixteen.
template <class Panel>
static void amx_multiply(const MadeShare& share) {
  TileSession session;
  session.use(int8_tile_shapes<Panel>());
  const std::int64_t row_bytes = share.blocks * kRoundedBlockBytes;
  for (std::int64_t first = 0; first < share.rows; first += kRowBlock) {
    const int rows = share.rows - first < kRowBlock ? static_cast<int>(share.rows - first) : kRowBlock;
    const std::byte* data = share.panels;
    for (std::int64_t column = 0; column < share.columns; column += kPanelColumns, data += share.panel_bytes) {
      const float* sums = amx_tree(Panel{data}, share, share.x + first * row_bytes, rows);
      store_panel(share, first, rows, column, sums);
    }
  }
}

// Rows that fill no tile are left to vectors.
static void amx_int8_product(const MadeShare& share) {
  const std::int64_t in_tiles = share.rows / kRoundedTileRows * kRoundedTileRows;
  if (in_tiles > 0) {
    MadeShare tiles = share;
    tiles.rows = in_tiles;
    with_integers(share.dtype,
                  [&](auto panel) __attribute__((always_inline)) { amx_multiply<decltype(panel)>(tiles); });
  }
  if (in_tiles == share.rows) return;
  MadeShare rest = share;
  rest.rows -= in_tiles;
  rest.x += in_tiles * share.blocks * kRoundedBlockBytes;
  rest.out += in_tiles * share.out_stride;
  kernels_avx512_vnni().int8_product(rest);
}

}  // namespace tandem::cpu::HWY_NAMESPACE
