// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Panels of blocks of integers as bytes, for products of int8; panel_format.h says how they lie in memory. All is
// inlined, so any file may include this for its instruction set, behind vector-inl.h and panel-inl.h.

namespace tandem::cpu::HWY_NAMESPACE {

// Takes four successive bytes of each column out of words of eight nibbles: those of the even ones, then of the odd.
struct Nibbles {
  const std::uint32_t* next_word;

  HWY_INLINE void next(UintVec& even, UintVec& odd) {
    const UintVec nibbles = hn::Set(UintTag(), 0x0f0f0f0fu), word = hn::LoadU(UintTag(), next_word);
    even = hn::And(word, nibbles);
    odd = hn::And(hn::ShiftRight<4>(word), nibbles);
    next_word += kPanelColumns;
  }
};

// For each type: kParts of a block of 32 have a scale of their own; integers are up to kLargest, less 2^kOffsetBits
// unless that is 0. A Part is one vector of columns: its scale and, with kHasMinimum, what is added for each code;
// next() gives the bytes of the next eight k.
template <bool kMinimum>
struct Q4Integers {
  static constexpr int kParts = 1, kLargest = 15, kOffsetBits = kMinimum ? 0 : 3;
  static constexpr bool kHasMinimum = kMinimum;
  using Stored = Q4Panel<kMinimum>;
  static constexpr int kBlockBytes = Stored::kBlockBytes;  // of 32
  const std::byte* data;

  struct Part : Nibbles {
    Vec scale, minimum;
  };
  HWY_INLINE Part open(std::int64_t block, int, int column) const {
    const std::byte* p = data + block * kBlockBytes;
    const auto* halves = reinterpret_cast<const std::uint16_t*>(p) + column;
    Part part{
        {reinterpret_cast<const std::uint32_t*>(p + Stored::kHeaderBytes) + column}, widen_f16(halves), hn::Zero(kF)};
    if constexpr (kMinimum) part.minimum = widen_f16(halves + kPanelColumns);
    return part;
  }
};

struct Q8Integers {
  static constexpr int kParts = 1, kLargest = 255, kOffsetBits = 7;
  static constexpr bool kHasMinimum = false;
  static constexpr int kBlockBytes = Q8Panel::kBlockBytes;
  const std::byte* data;

  struct Part {
    const std::uint32_t* next_word;
    Vec scale, minimum;

    HWY_INLINE void next(UintVec& even, UintVec& odd) {
      const UintVec offset = hn::Set(UintTag(), 0x80808080u);
      even = hn::Xor(hn::LoadU(UintTag(), next_word), offset);
      odd = hn::Xor(hn::LoadU(UintTag(), next_word + kPanelColumns), offset);
      next_word += 2 * kPanelColumns;
    }
  };
  HWY_INLINE Part open(std::int64_t block, int, int column) const {
    const std::byte* p = data + block * kBlockBytes;
    return {reinterpret_cast<const std::uint32_t*>(p + 2 * kPanelColumns) + column,
            widen_f16(reinterpret_cast<const std::uint16_t*>(p) + column), hn::Zero(kF)};
  }
};

// kBits of each integer lie apart from its nibble.
template <int kBits>
struct NibblesAndUpper {
  Nibbles nibbles;
  UintVec upper;
  Vec scale, minimum;

  HWY_INLINE void next(UintVec& even, UintVec& odd) {
    constexpr std::uint32_t kMask = kBits == 1 ? 0x01010101u : 0x03030303u;
    const UintVec mask = hn::Set(UintTag(), kMask);
    nibbles.next(even, odd);
    even = hn::Or(even, hn::ShiftLeft<4>(hn::And(upper, mask)));
    odd = hn::Or(odd, hn::ShiftLeft<4>(hn::And(hn::ShiftRight<kBits>(upper), mask)));
    upper = hn::ShiftRight<2 * kBits>(upper);
  }
};

template <bool kHasFifth>
struct KIntegers {
  static constexpr int kParts = 1, kLargest = kHasFifth ? 31 : 15, kOffsetBits = 0;
  static constexpr bool kHasMinimum = true;
  using Stored = KPanel<kHasFifth>;
  static constexpr int kBlockBytes = Stored::kBlockBytes / 8;
  const std::byte* data;

  HWY_INLINE auto open(std::int64_t block, int, int column) const {
    const std::byte* p = data + block / 8 * Stored::kBlockBytes;
    const int g = static_cast<int>(block % 8);
    const auto* halves = reinterpret_cast<const std::uint16_t*>(p) + column;
    Vec scale, minimum;
    k_scales(p + 4 * kPanelColumns + column, g, scale, minimum);
    scale = hn::Mul(widen_f16(halves), scale);
    minimum = hn::Neg(hn::Mul(widen_f16(halves + kPanelColumns), minimum));
    const auto* q = reinterpret_cast<const std::uint32_t*>(p + Stored::kHeaderBytes + g * Stored::kGroupBytes) + column;
    if constexpr (kHasFifth)
      return NibblesAndUpper<1>{{q + kPanelColumns}, hn::LoadU(UintTag(), q), scale, minimum};
    else
      return Q4Integers<true>::Part{{q}, scale, minimum};
  }
};

struct Q6KIntegers {
  static constexpr int kParts = 2, kLargest = 63, kOffsetBits = 5;
  static constexpr bool kHasMinimum = false;
  using Stored = Q6KPanel;
  static constexpr int kBlockBytes = Stored::kBlockBytes / 8;
  const std::byte* data;

  HWY_INLINE NibblesAndUpper<2> open(std::int64_t block, int part, int column) const {
    const hn::Rebind<std::int8_t, FloatTag> bytes;
    const std::byte* p = data + block / 8 * Stored::kBlockBytes;
    const int g = static_cast<int>(block % 8) * 2 + part;
    const auto* scales = reinterpret_cast<const std::int8_t*>(p + 2 * kPanelColumns) + g * kPanelColumns + column;
    const auto small = hn::PromoteTo(IntTag(), hn::LoadU(bytes, scales));
    const Vec scale = hn::Mul(widen_f16(reinterpret_cast<const std::uint16_t*>(p) + column), hn::ConvertTo(kF, small));
    const auto* q = reinterpret_cast<const std::uint32_t*>(p + Stored::kHeaderBytes + g * Stored::kGroupBytes) + column;
    return {{q + kPanelColumns}, hn::LoadU(UintTag(), q), scale, hn::Zero(kF)};
  }
};

// use(panel) with a panel of the type's, of no data; it has to be inlined. Nobody asks for other types.
template <class Use>
HWY_INLINE void with_integers(DType dtype, const Use& use) {
  switch (dtype) {
    case DType::kQ8_0:
      return use(Q8Integers{});
    case DType::kQ4_0:
      return use(Q4Integers<false>{});
    case DType::kQ4_1:
      return use(Q4Integers<true>{});
    case DType::kQ4_K:
      return use(KIntegers<false>{});
    case DType::kQ5_K:
      return use(KIntegers<true>{});
    case DType::kQ6_K:
      return use(Q6KIntegers{});
    default:
      return;
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
