// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The inner loops of every product: sums[row][column] += Σ x[row][k] · panel[k][column], k ascending, one fused
// multiply-add per step. Included once per instruction set.
//
// Lanes run over columns, so an output is one chain of additions in one fixed order, whatever the number of rows beside
// it and however the tile is shaped: the same row has the same bits in every batch. A panel type knows how its elements
// lie in memory; walk() hands out the f32 values of one k after another. kRowsFused is the number of rows up to which
// each tile unpacks for itself; beyond, a copy in f32 that all share is faster (measured).

namespace tandem::cpu::HWY_NAMESPACE {

// The machine's own prefetching stops at each 4 KiB page; ours asks for what is needed about 300 cycles of arithmetic
// later.
constexpr int kPrefetchBytes = 2048;

// Plain types: [k, stride]. ahead: how far from what is read lies what is asked for, in bytes.
struct F32Panel {
  static constexpr bool kPlain = true;
  static constexpr int kRowsFused =
      kLanes == 16 ? 16 : 1;  // narrow vectors would walk memory once for each part of a panel
  const float* data;
  std::int64_t stride;
  std::int64_t ahead = kPrefetchBytes;
  HWY_INLINE Vec load(std::int64_t k, int column) const { return hn::LoadU(kF, data + k * stride + column); }
};

struct Bf16Panel {
  static constexpr bool kPlain = true;
  static constexpr int kRowsFused = kLanes == 4 ? 16 : 32;
  const std::uint16_t* data;
  std::int64_t stride;
  std::int64_t ahead = kPrefetchBytes;
  HWY_INLINE Vec load(std::int64_t k, int column) const { return widen_bf16(data + k * stride + column); }
};

// Words of two k.
struct Bf16Pairs {
  static constexpr bool kPlain = false;
  static constexpr int kRowsFused = kLanes == 4 ? 16 : 32;
  const std::uint32_t* data;
};

struct F16Panel {
  static constexpr bool kPlain = true;
  static constexpr int kRowsFused = kLanes == 4 ? 16 : 32;
  const std::uint16_t* data;
  std::int64_t stride;
  std::int64_t ahead = kPrefetchBytes;
  HWY_INLINE Vec load(std::int64_t k, int column) const { return widen_f16(data + k * stride + column); }
};

// Blocks of 128 k, the last one perhaps shorter: f32 scales of 32 columns, then [k][32 columns] E4M3.
struct F8Panel {
  static constexpr bool kPlain = false;
  static constexpr int kRowsFused = kLanes == 16 ? 16 : 4;
  static constexpr int kBlock = 128;
  static constexpr int kBlockBytes = (4 + kBlock) * kPanelColumns;
  const std::byte* data;
};

// Blocks of 32 k: f16 scales of 32 columns, then [8][32 columns] words of four int8, those of even k before those of
// odd.
struct Q8Panel {
  static constexpr bool kPlain = false;
  static constexpr int kRowsFused = kLanes == 16 ? 16 : kLanes == 8 ? 12 : 4;
  static constexpr int kBlockBytes = 34 * kPanelColumns;
  const std::byte* data;
};

// Blocks of 32 k: f16 scales, (Q4_1) f16 minima, then [4][32 columns] words whose eight nibbles are successive k,
// lowest first. Q4_0 is the same with the minimum -8 · scale, which is exact.
template <bool kHasMinimum>
struct Q4Panel {
  static constexpr bool kPlain = false;
  static constexpr int kRowsFused = kLanes == 16 ? 16 : 4;
  static constexpr int kHeaderBytes = (kHasMinimum ? 4 : 2) * kPanelColumns;
  static constexpr int kBlockBytes = kHeaderBytes + 16 * kPanelColumns;
  const std::byte* data;
};

// Blocks of 256 k: f16 scales, f16 minima, twelve rows of six-bit scales and minima, then eight groups of 32 k: (Q5_K)
// a word of fifth bits, four words of nibbles. Fifth bits are in the order that panel_format.h says.
template <bool kHasFifth>
struct KPanel {
  static constexpr bool kPlain = false;
  static constexpr int kRowsFused = kLanes == 16 ? 16 : 4;
  static constexpr int kHeaderBytes = (4 + 12) * kPanelColumns;
  static constexpr int kGroupBytes = (kHasFifth ? 20 : 16) * kPanelColumns;
  static constexpr int kBlockBytes = kHeaderBytes + 8 * kGroupBytes;
  const std::byte* data;
};

// Blocks of 256 k: f16 scales, sixteen rows of int8 scales, then sixteen groups of 16 k: a word of bit pairs, two words
// of nibbles. Values are 0 … 63, less 32.
struct Q6KPanel {
  static constexpr bool kPlain = false;
  static constexpr int kRowsFused = kLanes == 16 ? 16 : 4;
  static constexpr int kHeaderBytes = (2 + 16) * kPanelColumns;
  static constexpr int kGroupBytes = 12 * kPanelColumns;
  static constexpr int kBlockBytes = kHeaderBytes + 16 * kGroupBytes;
  const std::byte* data;
};

template <int kBytes>
HWY_INLINE void prefetch(const std::byte* p, std::int64_t ahead = kPrefetchBytes) {
  for (int i = 0; i < kBytes; i += 64) hwy::Prefetch(p + ahead + i);
}

// Calls use(k, w) for k = 0 … count-1 with the V vectors of panel row begin + k from column on.
template <int V, class Panel, class Use>
HWY_INLINE void walk(const Panel& panel, std::int64_t begin, std::int64_t count, int column, const Use& use) {
  for (std::int64_t k = 0; k < count; ++k) {
    const auto* row = reinterpret_cast<const std::byte*>(panel.data + (begin + k) * panel.stride + column);
    prefetch<V * kLanes* static_cast<int>(sizeof(*panel.data))>(row, panel.ahead);
    Vec w[V];
    for (int v = 0; v < V; ++v) w[v] = panel.load(begin + k, column + v * kLanes);
    use(k, w);
  }
}

// Each half of the words of two k as f32.
HWY_INLINE Vec lower_bf16(const std::uint32_t* words) {
  return hn::BitCast(kF, hn::ShiftLeft<16>(hn::LoadU(UintTag(), words)));
}
HWY_INLINE Vec upper_bf16(const std::uint32_t* words) {
  return hn::BitCast(kF, hn::And(hn::LoadU(UintTag(), words), hn::Set(UintTag(), 0xffff0000u)));
}

// begin and count may be odd.
template <int V, class Use>
HWY_INLINE void walk(const Bf16Pairs& panel, std::int64_t begin, std::int64_t count, int column, const Use& use) {
  if (count == 0) return;  // of a weight without k there is no panel
  const std::uint32_t* words = panel.data + begin / 2 * kPanelColumns + column;
  std::int64_t k = 0;
  Vec w[V];
  if (begin % 2 == 1) {
    for (int v = 0; v < V; ++v) w[v] = upper_bf16(words + v * kLanes);
    use(k++, w);
    words += kPanelColumns;
  }
  for (; k + 1 < count; k += 2, words += kPanelColumns) {
    prefetch<V * kLanes * 4>(reinterpret_cast<const std::byte*>(words));
    for (int v = 0; v < V; ++v) w[v] = lower_bf16(words + v * kLanes);
    use(k, w);
    for (int v = 0; v < V; ++v) w[v] = upper_bf16(words + v * kLanes);
    use(k + 1, w);
  }
  if (k < count) {
    for (int v = 0; v < V; ++v) w[v] = lower_bf16(words + v * kLanes);
    use(k, w);
  }
}

// Signed byte B of each lane.
template <int B>
HWY_INLINE Vec byte_value(UintVec word) {
  return hn::ConvertTo(kF, hn::ShiftRight<24>(hn::BitCast(IntTag(), hn::ShiftLeft<24 - 8 * B>(word))));
}

template <int B, int V, class Use>
HWY_INLINE void use_bytes(const UintVec (&even)[V], const UintVec (&odd)[V], const Vec (&scale)[V], std::int64_t k,
                          const Use& use) {
  Vec w[V];
  for (int v = 0; v < V; ++v) w[v] = hn::Mul(scale[v], byte_value<B>(even[v]));
  use(k + 2 * B, w);
  for (int v = 0; v < V; ++v) w[v] = hn::Mul(scale[v], byte_value<B>(odd[v]));
  use(k + 2 * B + 1, w);
}

template <int V, class Use>
HWY_INLINE void walk(const Q8Panel& panel, std::int64_t begin, std::int64_t count, int column, const Use& use) {
  const std::byte* block = panel.data + begin / 32 * Q8Panel::kBlockBytes;
  for (std::int64_t k = 0; k < count; k += 32, block += Q8Panel::kBlockBytes) {
    prefetch<Q8Panel::kBlockBytes>(block);
    Vec scale[V];
    for (int v = 0; v < V; ++v)
      scale[v] = widen_f16(reinterpret_cast<const std::uint16_t*>(block) + column + v * kLanes);
    const auto* words = reinterpret_cast<const std::uint32_t*>(block + 2 * kPanelColumns) + column;
    for (int j = 0; j < 32; j += 8, words += 2 * kPanelColumns) {
      UintVec even[V], odd[V];
      for (int v = 0; v < V; ++v) {
        even[v] = hn::LoadU(UintTag(), words + v * kLanes);
        odd[v] = hn::LoadU(UintTag(), words + kPanelColumns + v * kLanes);
      }
      use_bytes<0>(even, odd, scale, k + j, use);
      use_bytes<1>(even, odd, scale, k + j, use);
      use_bytes<2>(even, odd, scale, k + j, use);
      use_bytes<3>(even, odd, scale, k + j, use);
    }
  }
}

template <int V, class Use>
HWY_INLINE void walk(const F8Panel& panel, std::int64_t begin, std::int64_t count, int column, const Use& use) {
  const std::byte* block = panel.data + begin / F8Panel::kBlock * F8Panel::kBlockBytes;
  for (std::int64_t k = 0; k < count; k += F8Panel::kBlock, block += F8Panel::kBlockBytes) {
    Vec scale[V];
    for (int v = 0; v < V; ++v) scale[v] = hn::LoadU(kF, reinterpret_cast<const float*>(block) + column + v * kLanes);
    const auto* codes = reinterpret_cast<const std::uint8_t*>(block + 4 * kPanelColumns) + column;
    const int steps = count - k < F8Panel::kBlock ? static_cast<int>(count - k) : F8Panel::kBlock;
    for (int j = 0; j < steps; ++j, codes += kPanelColumns) {
      hwy::Prefetch(codes + kPrefetchBytes);
      Vec w[V];
      for (int v = 0; v < V; ++v) w[v] = hn::Mul(scale[v], widen_f8(codes + v * kLanes));
      use(k + j, w);
    }
  }
}

// The low nibble of each lane as f32.
HWY_INLINE Vec nibble_value(UintVec word) {
  return hn::ConvertTo(kF, hn::BitCast(IntTag(), hn::And(word, hn::Set(UintTag(), 15u))));
}

template <int V, bool kHasMinimum, class Use>
HWY_INLINE void walk(const Q4Panel<kHasMinimum>& panel, std::int64_t begin, std::int64_t count, int column,
                     const Use& use) {
  using Panel = Q4Panel<kHasMinimum>;
  const std::byte* block = panel.data + begin / 32 * Panel::kBlockBytes;
  for (std::int64_t k = 0; k < count; k += 32, block += Panel::kBlockBytes) {
    prefetch<Panel::kBlockBytes>(block);
    Vec scale[V], minimum[V];
    const auto* halves = reinterpret_cast<const std::uint16_t*>(block) + column;
    for (int v = 0; v < V; ++v) {
      scale[v] = widen_f16(halves + v * kLanes);
      if constexpr (kHasMinimum)
        minimum[v] = widen_f16(halves + kPanelColumns + v * kLanes);
      else
        minimum[v] = hn::Mul(scale[v], hn::Set(kF, -8.0f));
    }
    const auto* words = reinterpret_cast<const std::uint32_t*>(block + Panel::kHeaderBytes) + column;
    for (int group = 0; group < 4; ++group, words += kPanelColumns) {
      UintVec q[V];
      for (int v = 0; v < V; ++v) q[v] = hn::LoadU(UintTag(), words + v * kLanes);
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) {
        Vec w[V];
        for (int v = 0; v < V; ++v) {
          w[v] = hn::MulAdd(scale[v], nibble_value(q[v]), minimum[v]);
          q[v] = hn::ShiftRight<4>(q[v]);
        }
        use(k + group * 8 + j, w);
      }
    }
  }
}

// One byte of each lane's column, in the low bits.
HWY_INLINE UintVec widen_byte(const std::byte* p) {
  const hn::Rebind<std::uint8_t, FloatTag> bytes;
  return hn::PromoteTo(UintTag(), hn::LoadU(bytes, reinterpret_cast<const std::uint8_t*>(p)));
}

HWY_INLINE Vec small_value(UintVec value) {
  return hn::ConvertTo(kF, hn::BitCast(IntTag(), value));
}

// Six-bit scale and minimum of group g; rows are the twelve rows of bytes at the lane's column. See k_scale in
// tensor/dtype.h.
HWY_INLINE void k_scales(const std::byte* rows, int g, Vec& scale, Vec& minimum) {
  const UintVec low = hn::Set(UintTag(), 15u), six = hn::Set(UintTag(), 63u);
  const auto row = [&](int i) __attribute__((always_inline)) { return widen_byte(rows + i * kPanelColumns); };
  if (g < 4) {
    scale = small_value(hn::And(row(g), six));
    minimum = small_value(hn::And(row(g + 4), six));
  } else {
    const UintVec both = row(g + 4);
    scale = small_value(hn::Or(hn::And(both, low), hn::ShiftLeft<4>(hn::ShiftRight<6>(row(g - 4)))));
    minimum = small_value(hn::Or(hn::ShiftRight<4>(both), hn::ShiftLeft<4>(hn::ShiftRight<6>(row(g)))));
  }
}

template <int V, bool kHasFifth, class Use>
HWY_INLINE void walk(const KPanel<kHasFifth>& panel, std::int64_t begin, std::int64_t count, int column,
                     const Use& use) {
  using Panel = KPanel<kHasFifth>;
  const std::byte* block = panel.data + begin / 256 * Panel::kBlockBytes;
  for (std::int64_t k = 0; k < count; k += 256, block += Panel::kBlockBytes) {
    const auto* halves = reinterpret_cast<const std::uint16_t*>(block) + column;
    for (int g = 0; g < 8; ++g) {
      const std::byte* group = block + Panel::kHeaderBytes + g * Panel::kGroupBytes;
      prefetch<Panel::kGroupBytes>(group);
      const auto* words = reinterpret_cast<const std::uint32_t*>(group) + column;
      Vec scale[V], minimum[V];
      UintVec fifth[V];
      for (int v = 0; v < V; ++v) {
        k_scales(block + 4 * kPanelColumns + column + v * kLanes, g, scale[v], minimum[v]);
        scale[v] = hn::Mul(widen_f16(halves + v * kLanes), scale[v]);
        minimum[v] = hn::Mul(widen_f16(halves + kPanelColumns + v * kLanes), minimum[v]);
        if constexpr (kHasFifth) fifth[v] = hn::LoadU(UintTag(), words + v * kLanes);
      }
      if constexpr (kHasFifth) words += kPanelColumns;
      for (int word = 0; word < 4; ++word, words += kPanelColumns) {
        UintVec q[V], upper[V];
        for (int v = 0; v < V; ++v) {
          q[v] = hn::LoadU(UintTag(), words + v * kLanes);
          if constexpr (kHasFifth) {
            upper[v] = fifth[v];
            fifth[v] = hn::ShiftRight<2>(fifth[v]);
          }
        }
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) {
          Vec w[V];
          for (int v = 0; v < V; ++v) {
            UintVec value = hn::And(q[v], hn::Set(UintTag(), 15u));
            if constexpr (kHasFifth) {
              value = hn::Or(value, hn::ShiftLeft<4>(hn::And(upper[v], hn::Set(UintTag(), 1u))));
              upper[v] = j % 2 == 0 ? hn::ShiftRight<1>(upper[v]) : hn::ShiftRight<7>(upper[v]);
            }
            w[v] = hn::MulSub(scale[v], small_value(value), minimum[v]);
            q[v] = hn::ShiftRight<4>(q[v]);
          }
          use(k + g * 32 + word * 8 + j, w);
        }
      }
    }
  }
}

template <int V, class Use>
HWY_INLINE void walk(const Q6KPanel& panel, std::int64_t begin, std::int64_t count, int column, const Use& use) {
  const hn::Rebind<std::int8_t, FloatTag> bytes;
  const std::byte* block = panel.data + begin / 256 * Q6KPanel::kBlockBytes;
  for (std::int64_t k = 0; k < count; k += 256, block += Q6KPanel::kBlockBytes) {
    const auto* halves = reinterpret_cast<const std::uint16_t*>(block) + column;
    const auto* scales = reinterpret_cast<const std::int8_t*>(block + 2 * kPanelColumns) + column;
    for (int g = 0; g < 16; ++g, scales += kPanelColumns) {
      const std::byte* group = block + Q6KPanel::kHeaderBytes + g * Q6KPanel::kGroupBytes;
      prefetch<Q6KPanel::kGroupBytes>(group);
      const auto* words = reinterpret_cast<const std::uint32_t*>(group) + column;
      Vec scale[V], minimum[V];
      UintVec pairs[V];
      for (int v = 0; v < V; ++v) {
        const auto small = hn::PromoteTo(IntTag(), hn::LoadU(bytes, scales + v * kLanes));
        scale[v] = hn::Mul(widen_f16(halves + v * kLanes), hn::ConvertTo(kF, small));
        minimum[v] = hn::Mul(scale[v], hn::Set(kF, 32.0f));
        pairs[v] = hn::LoadU(UintTag(), words + v * kLanes);
      }
      words += kPanelColumns;
      for (int word = 0; word < 2; ++word, words += kPanelColumns) {
        UintVec q[V], pair[V];
        for (int v = 0; v < V; ++v) {
          q[v] = hn::LoadU(UintTag(), words + v * kLanes);
          pair[v] = pairs[v];
          pairs[v] = hn::ShiftRight<4>(pairs[v]);
        }
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) {
          Vec w[V];
          for (int v = 0; v < V; ++v) {
            const UintVec upper = hn::ShiftLeft<4>(hn::And(pair[v], hn::Set(UintTag(), 3u)));
            const UintVec value = hn::Or(hn::And(q[v], hn::Set(UintTag(), 15u)), upper);
            pair[v] = j % 2 == 0 ? hn::ShiftRight<2>(pair[v]) : hn::ShiftRight<6>(pair[v]);
            w[v] = hn::MulSub(scale[v], small_value(value), minimum[v]);
            q[v] = hn::ShiftRight<4>(q[v]);
          }
          use(k + g * 16 + word * 8 + j, w);
        }
      }
    }
  }
}

template <int kRowCount>
struct TileSize {
  static constexpr int kRows = kRowCount;
};

// R rows times V vectors of columns, all sums in registers.
template <int R, int V, class Panel>
HWY_INLINE void accumulate(const Panel& panel, std::int64_t begin, std::int64_t count, int column,
                           const float* const* x, std::int64_t x_begin, float* sums, std::int64_t sums_stride) {
  Vec sum[R][V];
  const float* row[R];
  for (int r = 0; r < R; ++r) {
    row[r] = x[r] + x_begin;
    for (int v = 0; v < V; ++v) sum[r][v] = hn::LoadU(kF, sums + r * sums_stride + column + v * kLanes);
  }
  walk<V>(panel, begin, count, column, [&](std::int64_t k, const Vec(&w)[V]) __attribute__((always_inline)) {
    for (int r = 0; r < R; ++r) {
      const Vec xk = hn::Set(kF, row[r][k]);
      for (int v = 0; v < V; ++v) sum[r][v] = hn::MulAdd(xk, w[v], sum[r][v]);
    }
  });
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) hn::StoreU(sum[r][v], kF, sums + r * sums_stride + column + v * kLanes);
}

// R rows times width columns, a multiple of the vector. A single row takes four vectors at a time, for independent
// chains.
template <int R, class Panel>
HWY_NOINLINE void accumulate_rows(const Panel& panel, std::int64_t begin, std::int64_t count, int width,
                                  const float* const* x, std::int64_t x_begin, float* sums, std::int64_t sums_stride) {
  int column = 0;
  if constexpr (R == 1 && (Panel::kPlain || 4 * kLanes <= kPanelColumns)) {
    for (; column + 4 * kLanes <= width; column += 4 * kLanes)
      accumulate<R, 4>(panel, begin, count, column, x, x_begin, sums, sums_stride);
  }
  for (; column + 2 * kLanes <= width; column += 2 * kLanes)
    accumulate<R, 2>(panel, begin, count, column, x, x_begin, sums, sums_stride);
  if constexpr (Panel::kPlain) {
    for (; column < width; column += kLanes)
      accumulate<R, 1>(panel, begin, count, column, x, x_begin, sums, sums_stride);
  }
}

// As many rows as two vectors of columns leave registers for: 8 · 2 of 32, or 6 · 2 of 16 less those for x and w.
constexpr int kTileRows = kLanes == 16 ? 8 : kLanes == 8 ? 6 : 4;

template <class Panel>
HWY_INLINE void accumulate_all(const Panel& panel, std::int64_t begin, std::int64_t count, int width,
                               const float* const* x, int rows, std::int64_t x_begin, float* sums,
                               std::int64_t sums_stride) {
  int r = 0;
  const auto tile = [&](auto size) __attribute__((always_inline)) {
    accumulate_rows<decltype(size)::kRows>(panel, begin, count, width, x + r, x_begin, sums + r * sums_stride,
                                           sums_stride);
    r += decltype(size)::kRows;
  };
  while (rows - r >= kTileRows) tile(TileSize<kTileRows>());
  while (rows - r >= 4) tile(TileSize<4>());
  if (rows - r == 3) tile(TileSize<3>());
  if (rows - r == 2) tile(TileSize<2>());
  if (rows - r == 1) tile(TileSize<1>());
}

// Writes V vectors of columns of panel rows [begin, begin + count) as f32 [count, width].
template <int V, class Panel>
HWY_INLINE void widen_columns(const Panel& panel, std::int64_t begin, std::int64_t count, int column, int width,
                              float* out) {
  walk<V>(panel, begin, count, column, [&](std::int64_t k, const Vec(&w)[V]) __attribute__((always_inline)) {
    for (int v = 0; v < V; ++v) hn::StoreU(w[v], kF, out + k * width + column + v * kLanes);
  });
}

template <class Panel>
HWY_NOINLINE void widen(const Panel& panel, std::int64_t begin, std::int64_t count, int width, float* out) {
  constexpr int kWide = Panel::kPlain && kLanes < 16 ? 4 : 2;
  int column = 0;
  for (; column + kWide * kLanes <= width; column += kWide * kLanes)
    widen_columns<kWide>(panel, begin, count, column, width, out);
  for (; column < width; column += kLanes) widen_columns<1>(panel, begin, count, column, width, out);
}

}  // namespace tandem::cpu::HWY_NAMESPACE
