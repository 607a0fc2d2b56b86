// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Products of rows rounded to int8 with weights in blocks of integers (int8_panels-inl.h). Included by kernels-inl.h,
// and for AVX-512 with VNNI once more by itself; hence all that is not inlined is static.
//
//   sums[row][column] = Σ over blocks, ascending: (scale_x · scale_w) · Σ code · integer  (+ scale_x · Σ code ·
//   minimum)
//
// The inner sum is exact; its terms are bytes, four successive ones in each lane of a column. The outer one is a chain
// of fused multiply-adds in the order of blocks, whatever the number of rows. A tile of rows shares what is unpacked of
// a panel: eight vectors of bytes for 32 steps of k. With VNNI 512 multiply-adds take eight instructions and three or
// four for the scales, and multiply-adds are the bound; without, sums of two products fill 16 bits, which hold as many
// as fit.

namespace tandem::cpu::HWY_NAMESPACE {

using IntVec = hn::Vec<IntTag>;

HWY_INLINE IntVec broadcast_word(const std::byte* p) {
  std::int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return hn::Set(IntTag(), word);
}

// ---- dot products of bytes: sums[r] += Σ kWords · 4 bytes of a part times the codes of row r

#if defined(__AVX512VNNI__)

// All words of a part in registers, row after row.
template <int R, int kWords, int kLargest, class Part>
HWY_INLINE void add_dots(Part& part, const std::byte* codes, IntVec (&sums)[R]) {
  UintVec words[kWords];
  for (int j = 0; j < kWords; j += 2) part.next(words[j], words[j + 1]);
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < kWords; ++j)
      sums[r] =
          IntVec{_mm512_dpbusd_epi32(sums[r].raw, words[j].raw, broadcast_word(codes + kRoundedBlock * r + 4 * j).raw)};
}

#else

using PairTag = hn::Repartition<std::int16_t, FloatTag>;
using PairVec = hn::Vec<PairTag>;

// In each half of a lane the sum of two products, which has to fit.
HWY_INLINE PairVec pair_products(UintVec w, IntVec codes) {
#if HWY_TARGET == HWY_AVX3
  return PairVec{_mm512_maddubs_epi16(w.raw, codes.raw)};
#elif HWY_TARGET == HWY_AVX2
  return PairVec{_mm256_maddubs_epi16(w.raw, codes.raw)};
#else
  const PairTag pairs;
  const hn::RebindToUnsigned<PairTag> unsigned_pairs;
  const auto bytes = hn::BitCast(unsigned_pairs, w);
  const PairVec signed_bytes = hn::BitCast(pairs, codes);
  const PairVec low = hn::BitCast(pairs, hn::And(bytes, hn::Set(unsigned_pairs, 0xff)));
  const PairVec high = hn::BitCast(pairs, hn::ShiftRight<8>(bytes));
  return hn::Add(hn::Mul(low, hn::ShiftRight<8>(hn::ShiftLeft<8>(signed_bytes))),
                 hn::Mul(high, hn::ShiftRight<8>(signed_bytes)));
#endif
}

HWY_INLINE IntVec add_pairs(PairVec pairs) {
#if HWY_TARGET == HWY_AVX3
  return IntVec{_mm512_madd_epi16(pairs.raw, _mm512_set1_epi16(1))};
#elif HWY_TARGET == HWY_AVX2
  return IntVec{_mm256_madd_epi16(pairs.raw, _mm256_set1_epi16(1))};
#else
  const IntVec both = hn::BitCast(IntTag(), pairs);
  return hn::Add(hn::ShiftRight<16>(hn::ShiftLeft<16>(both)), hn::ShiftRight<16>(both));
#endif
}

// Word after word, each for all rows, which keeps little in registers; unrolled, the compiler would make all products
// before it adds any. Sums of 16 bits go on for as many words as they have room for.
template <int R, int kWords, int kLargest, class Part>
HWY_INLINE void add_small_dots(Part& part, const std::byte* codes, IntVec (&sums)[R]) {
  constexpr int kRoom = 32767 / (2 * 127 * kLargest), kRun = kRoom < kWords ? kRoom : kWords;
  static_assert(kRun % 2 == 0 && kWords % kRun == 0, "sums of 16 bits divide a part");
#pragma GCC unroll 1
  for (int j = 0; j < kWords; j += kRun) {
    PairVec pairs[R];
    for (int r = 0; r < R; ++r) pairs[r] = hn::Zero(PairTag());
#pragma GCC unroll 1
    for (int i = 0; i < kRun; i += 2, codes += 8) {
      UintVec even, odd;
      part.next(even, odd);
      for (int r = 0; r < R; ++r) {
        const std::byte* at = codes + kRoundedBlock * r;
        pairs[r] = hn::Add(pairs[r], pair_products(even, broadcast_word(at)));
        pairs[r] = hn::Add(pairs[r], pair_products(odd, broadcast_word(at + 4)));
      }
    }
    for (int r = 0; r < R; ++r) sums[r] = hn::Add(sums[r], add_pairs(pairs[r]));
  }
}

// Half a byte at a time.
template <int R, int kWords, class Part>
HWY_INLINE void add_large_dots(Part& part, const std::byte* codes, IntVec (&sums)[R]) {
  static_assert(32767 / (2 * 127 * 15) >= kWords, "a part fits sums of 16 bits");
  const UintVec nibbles = hn::Set(UintTag(), 0x0f0f0f0fu);
  PairVec low[R], high[R];
  for (int r = 0; r < R; ++r) low[r] = high[r] = hn::Zero(PairTag());
#pragma GCC unroll 1
  for (int j = 0; j < kWords; j += 2, codes += 8) {
    UintVec words[2];
    part.next(words[0], words[1]);
    for (int i = 0; i < 2; ++i) {
      const UintVec lower = hn::And(words[i], nibbles), upper = hn::And(hn::ShiftRight<4>(words[i]), nibbles);
      for (int r = 0; r < R; ++r) {
        const IntVec word = broadcast_word(codes + kRoundedBlock * r + 4 * i);
        low[r] = hn::Add(low[r], pair_products(lower, word));
        high[r] = hn::Add(high[r], pair_products(upper, word));
      }
    }
  }
  for (int r = 0; r < R; ++r)
    sums[r] = hn::Add(hn::Add(sums[r], hn::ShiftLeft<4>(add_pairs(high[r]))), add_pairs(low[r]));
}

template <int R, int kWords, int kLargest, class Part>
HWY_INLINE void add_dots(Part& part, const std::byte* codes, IntVec (&sums)[R]) {
  if constexpr (kLargest < 128)
    add_small_dots<R, kWords, kLargest>(part, codes, sums);
  else
    add_large_dots<R, kWords>(part, codes, sums);
}

#endif

// ---- tiles

constexpr int kSumRows = 8;  // a register for each one's sums, and for eight words of a weight

// R rows of a tile of tile_rows: where their codes begin, and the numbers behind those of all rows.
struct TileRows {
  const std::byte *codes, *numbers;
  int tile_rows;

  HWY_INLINE TileRows at(std::int64_t block) const {
    const std::int64_t bytes = block * kRoundedBlockBytes * tile_rows;
    return {codes + bytes, numbers + bytes, tile_rows};
  }
  HWY_INLINE const float* floats(int kind) const {
    return reinterpret_cast<const float*>(numbers) + static_cast<std::int64_t>(kind) * tile_rows;
  }
};

HWY_INLINE TileRows rows_of_tile(const std::byte* tile, int tile_rows, int first) {
  return {tile + kRoundedBlock * first, tile + kRoundedBlock * tile_rows + 4 * first, tile_rows};
}

// One part of a block for R rows: what it adds to the sums of one vector of columns, V to a row.
template <int R, int V, class Panel>
HWY_INLINE void add_part(const Panel& panel, std::int64_t block, int index, int column, const TileRows& rows,
                         Vec (&sum)[R][V], int v) {
  constexpr int kWords = 8 / Panel::kParts;
  const float *scales = rows.floats(0), *scaled_sums = rows.floats(1);
  auto part = panel.open(block, index, column);
  IntVec integers[R];
  for (int r = 0; r < R; ++r) {
    integers[r] = hn::Zero(IntTag());
    if constexpr (Panel::kOffsetBits > 0) {
      const float* negative_sums = rows.floats(Panel::kParts == 1 ? 2 : 3 + index);
      integers[r] =
          hn::ShiftLeft<Panel::kOffsetBits>(broadcast_word(reinterpret_cast<const std::byte*>(negative_sums + r)));
    }
  }
  add_dots<R, kWords, Panel::kLargest>(part, rows.codes + 16 * index, integers);
  for (int r = 0; r < R; ++r) {
    const Vec factor = hn::Mul(hn::Set(kF, scales[r]), part.scale);
    sum[r][v] = hn::MulAdd(hn::ConvertTo(kF, integers[r]), factor, sum[r][v]);
    if constexpr (Panel::kHasMinimum) sum[r][v] = hn::MulAdd(hn::Set(kF, scaled_sums[r]), part.minimum, sum[r][v]);
  }
}

// Blocks [begin, end) of R rows and V vectors of columns.
template <int R, int V, class Panel>
HWY_INLINE void dot_columns(const Panel& panel, const TileRows& rows, std::int64_t begin, std::int64_t end, int column,
                            float* sums) {
  Vec sum[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = hn::Zero(kF);
  for (std::int64_t block = begin; block < end; ++block) {
    if (column == 0) prefetch<Panel::kBlockBytes>(panel.data + block * Panel::kBlockBytes);
    for (int v = 0; v < V; ++v)
      for (int index = 0; index < Panel::kParts; ++index)
        add_part(panel, block, index, column + v * kLanes, rows.at(block), sum, v);
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) hn::StoreU(sum[r][v], kF, sums + r * kPanelColumns + column + v * kLanes);
}

template <int R, class Panel>
HWY_NOINLINE static void dot_tile(const Panel& panel, const TileRows& rows, std::int64_t begin, std::int64_t end,
                                  float* sums) {
  constexpr int kPanelVectors = kPanelColumns / kLanes;
  constexpr int kVectors = R <= 2 && kLanes == 16 ? kPanelVectors : R == 1 ? kPanelVectors : 1;
  for (int column = 0; column < kPanelColumns; column += kVectors * kLanes)
    dot_columns<R, kVectors>(panel, rows, begin, end, column, sums);
}

template <class Panel>
HWY_INLINE void dot_rows(const Panel& panel, const std::byte* tile, int rows, std::int64_t begin, std::int64_t end,
                         float* sums) {
  switch (rows) {
    case 1:
      return dot_tile<1>(panel, rows_of_tile(tile, rows, 0), begin, end, sums);
    case 2:
      return dot_tile<2>(panel, rows_of_tile(tile, rows, 0), begin, end, sums);
    case 4:
      return dot_tile<4>(panel, rows_of_tile(tile, rows, 0), begin, end, sums);
    default:
      for (int first = 0; first < rows; first += kSumRows)
        dot_tile<kSumRows>(panel, rows_of_tile(tile, rows, first), begin, end, sums + first * kPanelColumns);
  }
}

// A panel is read by all tiles of a block of rows before the next one is.
template <class Panel>
static void int8_multiply(const MadeShare& share) {
  constexpr std::int64_t kLevel = kRoundedTileRows * kPanelColumns;
  const std::int64_t row_bytes = share.blocks * kRoundedBlockBytes;
  for (std::int64_t first = 0; first < share.rows; first += kRowBlock) {
    const int rows = share.rows - first < kRowBlock ? static_cast<int>(share.rows - first) : kRowBlock;
    const std::byte* data = share.panels;
    for (std::int64_t column = 0; column < share.columns; column += kPanelColumns, data += share.panel_bytes) {
      for (int r = 0, size = kRoundedTileRows; r < rows; r += size) {
        while (size > rows - r) size /= 2;
        const std::byte* tile = share.x + (first + r) * row_bytes;
        const auto sum = [&](int i, float* sums) __attribute__((always_inline)) {
          dot_rows(Panel{data}, tile, size, share.bounds[i] / kRoundedBlock, share.bounds[i + 1] / kRoundedBlock, sums);
        };
        store_panel(share, first + r, size, column, sum_tree<kLevel>(share.slices, size, share.scratch, sum));
      }
    }
  }
}

static void int8_product(const MadeShare& share) {
  with_integers(share.dtype, [&](auto panel) __attribute__((always_inline)) { int8_multiply<decltype(panel)>(share); });
}

// ---- rounding

HWY_INLINE void store_f32(std::byte* p, float value) {
  __builtin_memcpy(p, &value, sizeof value);
}
HWY_INLINE void store_i32(std::byte* p, std::int32_t value) {
  __builtin_memcpy(p, &value, sizeof value);
}

// Codes of 32 columns, even ones of every eight first, and the negative sums of both halves.
HWY_INLINE void round_codes(const float* x, float inverse, std::byte* codes, std::int32_t (&negative_sums)[2]) {
  const hn::FixedTag<std::int8_t, kLanes> narrow;
  constexpr int kStep = kLanes < 8 ? 8 : kLanes;
  const hn::FixedTag<std::uint8_t, kStep> bytes;
  const hn::Repartition<std::uint64_t, decltype(bytes)> words;
  alignas(16) static constexpr std::uint8_t kOrder[16] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};
  const auto order = hn::LoadU(bytes, kOrder), bias = hn::Set(bytes, std::uint8_t{128});
  const Vec factor = hn::Set(kF, inverse);
  for (int c = 0; c < kRoundedBlock; c += kStep) {
    alignas(16) std::int8_t in_order[kStep];
    for (int i = 0; i < kStep; i += kLanes)
      hn::StoreU(hn::DemoteTo(narrow, hn::NearestInt(hn::Mul(hn::LoadU(kF, x + c + i), factor))), narrow, in_order + i);
    const auto found = hn::LoadU(bytes, reinterpret_cast<const std::uint8_t*>(in_order));
    hn::StoreU(hn::TableLookupBytes(found, order), bytes, reinterpret_cast<std::uint8_t*>(codes) + c);
    // Sums of eight are made of bytes without a sign.
    const auto sums = hn::SumOfLanes(words, hn::SumsOf8(hn::Xor(found, bias)));
    negative_sums[c / 16] += 128 * kStep - static_cast<std::int32_t>(hn::GetLane(sums));
  }
}

static void round_row(const float* x, std::int64_t blocks, const RowPlace& to) {
  constexpr std::int32_t kInfinity = 0x7f800000, kMagnitude = 0x7fffffff;
  constexpr float kLargestMin = 1e-30f;
  std::byte* tile = to.tile;
  const IntVec least = hn::BitCast(IntTag(), hn::Set(kF, kLargestMin));
  for (std::int64_t b = 0; b < blocks; ++b, x += kRoundedBlock, tile += kRoundedBlockBytes * to.rows) {
    // Magnitudes are in the order of their bits, infinity and NaN above all.
    IntVec top = least;
    for (int c = 0; c < kRoundedBlock; c += kLanes)
      top = hn::Max(top, hn::And(hn::BitCast(IntTag(), hn::LoadU(kF, x + c)), hn::Set(IntTag(), kMagnitude)));
    const std::int32_t bits = hn::GetLane(hn::MaxOfLanes(IntTag(), top));
    float largest;
    __builtin_memcpy(&largest, &bits, sizeof largest);
    std::byte* codes = tile + kRoundedBlock * to.row;
    float scale = largest * (1.0f / 127);
    std::int32_t negative_sums[2] = {0, 0};
    if (bits < kInfinity) {
      round_codes(x, 127.0f / largest, codes, negative_sums);
    } else {
      scale = __builtin_nanf("");
      __builtin_memset(codes, 0, kRoundedBlock);
    }
    const std::int32_t negative_sum = negative_sums[0] + negative_sums[1];
    std::byte* numbers = tile + kRoundedBlock * to.rows + 4 * to.row;
    store_f32(numbers, scale);
    store_f32(numbers + 4 * to.rows, scale * static_cast<float>(-negative_sum));
    store_i32(numbers + 8 * to.rows, negative_sum);
    store_i32(numbers + 12 * to.rows, negative_sums[0]);
    store_i32(numbers + 16 * to.rows, negative_sums[1]);
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
