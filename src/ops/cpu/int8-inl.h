// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Products of rows rounded to int8 with weights in blocks of integers. Included by kernels-inl.h, and for AVX-512 with
// VNNI once more by itself; hence all that is not inlined is static.
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

constexpr int kRoundedTileRows = kLanes == 16 ? 16 : 4;
// Vectors of sums that a tile keeps in registers.
constexpr int kTileSums = kLanes == 16 ? 16 : 4;

HWY_INLINE IntVec broadcast_word(const std::byte* p) {
  std::int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return hn::Set(IntTag(), word);
}

// ---- dot products of bytes

#if defined(__AVX512VNNI__)

// start + Σ bytes of w, which are unsigned, times the codes.
template <int kWords, int kLargest>
HWY_INLINE IntVec dot(const UintVec (&w)[kWords], const std::byte* codes, IntVec start) {
  for (int j = 0; j < kWords; ++j)
    start = IntVec{_mm512_dpbusd_epi32(start.raw, w[j].raw, broadcast_word(codes + 4 * j).raw)};
  return start;
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

template <int kWords, int kLargest>
HWY_INLINE IntVec dot_of_small(const UintVec (&w)[kWords], const std::byte* codes) {
  constexpr int kRun = 32767 / (2 * 127 * kLargest) < kWords ? 32767 / (2 * 127 * kLargest) : kWords;
  static_assert(kWords % kRun == 0, "sums of 16 bits divide a block");
  IntVec total = hn::Zero(IntTag());
  for (int j = 0; j < kWords; j += kRun) {
    PairVec sum = pair_products(w[j], broadcast_word(codes + 4 * j));
    for (int i = j + 1; i < j + kRun; ++i) sum = hn::Add(sum, pair_products(w[i], broadcast_word(codes + 4 * i)));
    total = hn::Add(total, add_pairs(sum));
  }
  return total;
}

template <int kWords, int kLargest>
HWY_INLINE IntVec dot(const UintVec (&w)[kWords], const std::byte* codes, IntVec start) {
  if constexpr (kLargest < 128) {
    return hn::Add(start, dot_of_small<kWords, kLargest>(w, codes));
  } else {  // half a byte at a time
    const UintVec nibbles = hn::Set(UintTag(), 0x0f0f0f0fu);
    UintVec low[kWords], high[kWords];
    for (int j = 0; j < kWords; ++j) {
      low[j] = hn::And(w[j], nibbles);
      high[j] = hn::And(hn::ShiftRight<4>(w[j]), nibbles);
    }
    const IntVec upper = hn::ShiftLeft<4>(dot_of_small<kWords, 15>(high, codes));
    return hn::Add(hn::Add(start, upper), dot_of_small<kWords, 15>(low, codes));
  }
}

#endif

// ---- panels as bytes: panel_format.h says how they lie in memory

// For each type: kParts of a block of 32 have a scale of their own; integers are up to kLargest, less 2^kOffsetBits
// unless that is 0. unpack() gives the words of a part, scale and, with kHasMinimum, what is added for each code.
template <bool kMinimum>
struct Q4Integers {
  static constexpr int kParts = 1, kWords = 8, kLargest = 15, kOffsetBits = kMinimum ? 0 : 3;
  static constexpr bool kHasMinimum = kMinimum;
  using Stored = Q4Panel<kMinimum>;
  static constexpr int kBlockBytes = Stored::kBlockBytes;  // of 32
  const std::byte* data;

  HWY_INLINE void unpack(std::int64_t block, int, int column, UintVec (&words)[8], Vec& scale, Vec& minimum) const {
    const std::byte* p = data + block * kBlockBytes;
    const auto* halves = reinterpret_cast<const std::uint16_t*>(p) + column;
    scale = widen_f16(halves);
    if constexpr (kMinimum) minimum = widen_f16(halves + kPanelColumns);
    unpack_nibbles(reinterpret_cast<const std::uint32_t*>(p + Stored::kHeaderBytes) + column, words);
  }

  // Of words of eight nibbles the even ones, then the odd ones.
  template <int kCount>
  HWY_INLINE static void unpack_nibbles(const std::uint32_t* p, UintVec (&words)[kCount]) {
    const UintVec nibbles = hn::Set(UintTag(), 0x0f0f0f0fu);
    for (int j = 0; j < kCount / 2; ++j) {
      const UintVec word = hn::LoadU(UintTag(), p + j * kPanelColumns);
      words[2 * j] = hn::And(word, nibbles);
      words[2 * j + 1] = hn::And(hn::ShiftRight<4>(word), nibbles);
    }
  }
};

struct Q8Integers {
  static constexpr int kParts = 1, kWords = 8, kLargest = 255, kOffsetBits = 7;
  static constexpr bool kHasMinimum = false;
  static constexpr int kBlockBytes = Q8Panel::kBlockBytes;
  const std::byte* data;

  HWY_INLINE void unpack(std::int64_t block, int, int column, UintVec (&words)[8], Vec& scale, Vec&) const {
    const std::byte* p = data + block * kBlockBytes;
    scale = widen_f16(reinterpret_cast<const std::uint16_t*>(p) + column);
    const auto* q = reinterpret_cast<const std::uint32_t*>(p + 2 * kPanelColumns) + column;
    for (int j = 0; j < 8; ++j)
      words[j] = hn::Xor(hn::LoadU(UintTag(), q + j * kPanelColumns), hn::Set(UintTag(), 0x80808080u));
  }
};

template <bool kHasFifth>
struct KIntegers {
  static constexpr int kParts = 1, kWords = 8, kLargest = kHasFifth ? 31 : 15, kOffsetBits = 0;
  static constexpr bool kHasMinimum = true;
  using Stored = KPanel<kHasFifth>;
  static constexpr int kBlockBytes = Stored::kBlockBytes / 8;
  const std::byte* data;

  HWY_INLINE void unpack(std::int64_t block, int, int column, UintVec (&words)[8], Vec& scale, Vec& minimum) const {
    const std::byte* p = data + block / 8 * Stored::kBlockBytes;
    const int g = static_cast<int>(block % 8);
    const auto* halves = reinterpret_cast<const std::uint16_t*>(p) + column;
    k_scales(p + 4 * kPanelColumns + column, g, scale, minimum);
    scale = hn::Mul(widen_f16(halves), scale);
    minimum = hn::Neg(hn::Mul(widen_f16(halves + kPanelColumns), minimum));
    const auto* q = reinterpret_cast<const std::uint32_t*>(p + Stored::kHeaderBytes + g * Stored::kGroupBytes) + column;
    if constexpr (kHasFifth) {
      Q4Integers<true>::unpack_nibbles(q + kPanelColumns, words);
      add_fifth(hn::LoadU(UintTag(), q), words);
    } else {
      Q4Integers<true>::unpack_nibbles(q, words);
    }
  }

  HWY_INLINE static void add_fifth(UintVec fifth, UintVec (&words)[8]) {
    for (int j = 0; j < 8; ++j, fifth = hn::ShiftRight<1>(fifth))
      words[j] = hn::Or(words[j], hn::ShiftLeft<4>(hn::And(fifth, hn::Set(UintTag(), 0x01010101u))));
  }
};

struct Q6KIntegers {
  static constexpr int kParts = 2, kWords = 4, kLargest = 63, kOffsetBits = 5;
  static constexpr bool kHasMinimum = false;
  using Stored = Q6KPanel;
  static constexpr int kBlockBytes = Stored::kBlockBytes / 8;
  const std::byte* data;

  HWY_INLINE void unpack(std::int64_t block, int part, int column, UintVec (&words)[4], Vec& scale, Vec&) const {
    const hn::Rebind<std::int8_t, FloatTag> bytes;
    const std::byte* p = data + block / 8 * Stored::kBlockBytes;
    const int g = static_cast<int>(block % 8) * 2 + part;
    const auto* scales = reinterpret_cast<const std::int8_t*>(p + 2 * kPanelColumns) + g * kPanelColumns + column;
    const auto small = hn::PromoteTo(IntTag(), hn::LoadU(bytes, scales));
    scale = hn::Mul(widen_f16(reinterpret_cast<const std::uint16_t*>(p) + column), hn::ConvertTo(kF, small));
    const auto* q = reinterpret_cast<const std::uint32_t*>(p + Stored::kHeaderBytes + g * Stored::kGroupBytes) + column;
    Q4Integers<true>::unpack_nibbles(q + kPanelColumns, words);
    UintVec pairs = hn::LoadU(UintTag(), q);
    for (int j = 0; j < 4; ++j, pairs = hn::ShiftRight<2>(pairs))
      words[j] = hn::Or(words[j], hn::ShiftLeft<4>(hn::And(pairs, hn::Set(UintTag(), 0x03030303u))));
  }
};

// ---- tiles

// Blocks [begin, end) of R rows and V vectors of columns.
template <int R, int V, class Panel>
HWY_INLINE void dot_columns(const Panel& panel, const std::byte* tile, std::int64_t begin, std::int64_t end, int column,
                            float* sums) {
  Vec sum[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = hn::Zero(kF);
  for (std::int64_t block = begin; block < end; ++block) {
    const std::byte* codes = tile + block * (kRoundedBlockBytes * R);
    const auto* scales = reinterpret_cast<const float*>(codes + kRoundedBlock * R);
    const auto* scaled_sums = scales + R;
    const std::byte* negative_sums = codes + (kRoundedBlock + 8) * R;
    if (column == 0) prefetch<Panel::kBlockBytes>(panel.data + block * Panel::kBlockBytes);
    for (int v = 0; v < V; ++v) {
      for (int part = 0; part < Panel::kParts; ++part) {
        UintVec words[Panel::kWords];
        Vec scale, minimum = hn::Zero(kF);
        panel.unpack(block, part, column + v * kLanes, words, scale, minimum);
        for (int r = 0; r < R; ++r) {
          IntVec start = hn::Zero(IntTag());
          if constexpr (Panel::kOffsetBits > 0) {
            const int kind = Panel::kParts == 1 ? 0 : 1 + part;
            start = hn::ShiftLeft<Panel::kOffsetBits>(broadcast_word(negative_sums + 4 * (kind * R + r)));
          }
          const IntVec integer =
              dot<Panel::kWords, Panel::kLargest>(words, codes + kRoundedBlock * r + 16 * part, start);
          const Vec factor = hn::Mul(hn::Set(kF, scales[r]), scale);
          sum[r][v] = hn::MulAdd(hn::ConvertTo(kF, integer), factor, sum[r][v]);
          if constexpr (Panel::kHasMinimum) sum[r][v] = hn::MulAdd(hn::Set(kF, scaled_sums[r]), minimum, sum[r][v]);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) hn::StoreU(sum[r][v], kF, sums + r * kPanelColumns + column + v * kLanes);
}

template <int R, class Panel>
HWY_NOINLINE static void dot_tile(const Panel& panel, const std::byte* tile, std::int64_t begin, std::int64_t end,
                                  float* sums) {
  constexpr int kPanelVectors = kPanelColumns / kLanes;
  constexpr int kVectors = kTileSums / R < kPanelVectors ? kTileSums / R : kPanelVectors;
  for (int column = 0; column < kPanelColumns; column += kVectors * kLanes)
    dot_columns<R, kVectors>(panel, tile, begin, end, column, sums);
}

template <class Panel>
HWY_INLINE void dot_rows(const Panel& panel, const std::byte* tile, int rows, std::int64_t begin, std::int64_t end,
                         float* sums) {
  switch (rows) {
    case 1:
      return dot_tile<1>(panel, tile, begin, end, sums);
    case 2:
      return dot_tile<2>(panel, tile, begin, end, sums);
    case 4:
      return dot_tile<4>(panel, tile, begin, end, sums);
    default:
      if constexpr (kRoundedTileRows == 16) {
        if (rows == 8) return dot_tile<8>(panel, tile, begin, end, sums);
        return dot_tile<16>(panel, tile, begin, end, sums);
      }
  }
}

// The tree over all slices, as sum_tree() in product-inl.h walks it.
template <class Panel>
HWY_INLINE const float* int8_tree(const Panel& panel, const Int8Share& share, const std::byte* tile, int rows) {
  constexpr int kLevel = kRoundedTileRowsMax * kPanelColumns;
  int depth = 0;
  for (int i = 0; i < share.slices; ++i, ++depth) {
    dot_rows(panel, tile, rows, share.bounds[i] / kRoundedBlock, share.bounds[i + 1] / kRoundedBlock,
             share.scratch + depth * kLevel);
    for (int bits = i; bits & 1; bits >>= 1, --depth) {
      float* left = share.scratch + (depth - 1) * kLevel;
      for (int j = 0; j < rows * kPanelColumns; j += kLanes)
        hn::StoreU(hn::Add(hn::LoadU(kF, left + j), hn::LoadU(kF, left + kLevel + j)), kF, left + j);
    }
  }
  return share.scratch;
}

HWY_INLINE void store_tile(const float* sums, int rows, int columns, float* out, std::int64_t out_stride) {
  for (int r = 0; r < rows; ++r, sums += kPanelColumns, out += out_stride) {
    int c = 0;
    for (; c + kLanes <= columns; c += kLanes) hn::StoreU(hn::LoadU(kF, sums + c), kF, out + c);
    for (; c < columns; ++c) out[c] = sums[c];
  }
}

// A panel is read by all tiles of a block of rows before the next one is.
template <class Panel>
static void int8_multiply(const Int8Share& share) {
  const std::int64_t row_bytes = share.blocks * kRoundedBlockBytes;
  for (std::int64_t first = 0; first < share.rows; first += kRowBlock) {
    const int rows = share.rows - first < kRowBlock ? static_cast<int>(share.rows - first) : kRowBlock;
    const std::byte* data = share.panels;
    for (std::int64_t column = 0; column < share.columns; column += kPanelColumns, data += share.panel_bytes) {
      const int columns =
          share.columns - column < kPanelColumns ? static_cast<int>(share.columns - column) : kPanelColumns;
      for (int r = 0, size = kRoundedTileRows; r < rows; r += size) {
        while (size > rows - r) size /= 2;
        const float* sums = int8_tree(Panel{data}, share, share.x + (first + r) * row_bytes, size);
        store_tile(sums, size, columns, share.out + (first + r) * share.out_stride + column, share.out_stride);
      }
    }
  }
}

static void int8_product(const Int8Share& share) {
  switch (share.dtype) {
    case DType::kQ8_0:
      return int8_multiply<Q8Integers>(share);
    case DType::kQ4_0:
      return int8_multiply<Q4Integers<false>>(share);
    case DType::kQ4_1:
      return int8_multiply<Q4Integers<true>>(share);
    case DType::kQ4_K:
      return int8_multiply<KIntegers<false>>(share);
    case DType::kQ5_K:
      return int8_multiply<KIntegers<true>>(share);
    case DType::kQ6_K:
      return int8_multiply<Q6KIntegers>(share);
    default:
      return;  // nobody asks
  }
}

// ---- rounding

HWY_INLINE void store_f32(std::byte* p, float value) {
  __builtin_memcpy(p, &value, sizeof value);
}
HWY_INLINE void store_i32(std::byte* p, std::int32_t value) {
  __builtin_memcpy(p, &value, sizeof value);
}

// Codes of 32 columns, even ones of every eight first, and the negative sums of both halves; those of a block that is
// not finite are zero.
HWY_INLINE void round_codes(const float* x, float inverse, std::byte* codes, std::int32_t (&negative_sums)[2]) {
  const hn::Rebind<std::int8_t, FloatTag> narrow;
  const hn::FixedTag<std::uint8_t, 8> eight;
  alignas(16) static constexpr std::uint8_t kOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};
  alignas(64) std::int8_t in_order[kRoundedBlock];
  const Vec factor = hn::Set(kF, inverse);
  for (int half = 0; half < 2; ++half) {
    IntVec sum = hn::Zero(IntTag());
    for (int c = 16 * half; c < 16 * half + 16; c += kLanes) {
      const IntVec code = hn::NearestInt(hn::Mul(hn::LoadU(kF, x + c), factor));
      sum = hn::Sub(sum, code);
      hn::StoreU(hn::DemoteTo(narrow, code), narrow, in_order + c);
    }
    negative_sums[half] = hn::GetLane(hn::SumOfLanes(IntTag(), sum));
  }
  const auto order = hn::LoadU(eight, kOrder);
  for (int c = 0; c < kRoundedBlock; c += 8) {
    const auto group = hn::LoadU(eight, reinterpret_cast<const std::uint8_t*>(in_order) + c);
    hn::StoreU(hn::TableLookupBytes(group, order), eight, reinterpret_cast<std::uint8_t*>(codes) + c);
  }
}

static void round_row(const float* x, std::int64_t blocks, const RoundedRow& to) {
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
    float scale = largest / 127.0f;
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
