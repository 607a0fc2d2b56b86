// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Vectors and the exponential. Included once per instruction set, all inlined; no include guard on purpose.

namespace tandem::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using IntTag = hn::RebindToSigned<FloatTag>;
using UintTag = hn::RebindToUnsigned<FloatTag>;
using Vec = hn::Vec<FloatTag>;
using UintVec = hn::Vec<UintTag>;

constexpr FloatTag kF;
constexpr int kLanes = HWY_MAX_BYTES / sizeof(float);
static_assert(kPanelColumns % (2 * kLanes) == 0, "a panel is a whole number of vector pairs");

HWY_INLINE Vec widen_bf16(const std::uint16_t* p) {
  const hn::Rebind<std::uint16_t, FloatTag> halves;
  return hn::BitCast(kF, hn::ShiftLeft<16>(hn::PromoteTo(UintTag(), hn::LoadU(halves, p))));
}

HWY_INLINE Vec widen_f16(const std::uint16_t* p) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2  // the hardware's conversion; smaller targets are better ones
  const hn::Rebind<hwy::float16_t, FloatTag> halves;
  return hn::PromoteTo(kF, hn::LoadU(halves, reinterpret_cast<const hwy::float16_t*>(p)));
#else
  // The exponent is moved by a product with 2^112, which also makes subnormals right; infinities and NaN are patched.
  const hn::Rebind<std::uint16_t, FloatTag> halves;
  const UintTag u;
  const UintVec bits = hn::PromoteTo(u, hn::LoadU(halves, p));
  const UintVec sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(u, 0x8000u)));
  const UintVec magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(u, 0x7fffu)));
  const UintVec scaled = hn::BitCast(u, hn::Mul(hn::BitCast(kF, magnitude), hn::Set(kF, 0x1p112f)));
  const IntTag s;
  const auto special = hn::Gt(hn::BitCast(s, magnitude), hn::Set(s, (31 << 23) - 1));
  const auto patch = hn::BitCast(u, hn::IfThenElseZero(special, hn::Set(s, 0x7f800000)));
  return hn::BitCast(kF, hn::Or(hn::Or(scaled, patch), sign));
#endif
}

// Exact, with NaN where all seven bits are set.
HWY_INLINE Vec widen_f8(const std::uint8_t* p) {
  const hn::Rebind<std::uint8_t, FloatTag> bytes;
  const UintTag u;
  const UintVec bits = hn::PromoteTo(u, hn::LoadU(bytes, p));
  const UintVec magnitude = hn::And(bits, hn::Set(u, 0x7fu));
  const UintVec sign = hn::ShiftLeft<24>(hn::And(bits, hn::Set(u, 0x80u)));
  const Vec value = hn::Mul(hn::BitCast(kF, hn::ShiftLeft<20>(magnitude)), hn::Set(kF, 0x1p120f));
  const UintVec nan = hn::VecFromMask(u, hn::Eq(magnitude, hn::Set(u, 0x7fu)));
  return hn::BitCast(kF, hn::Or(hn::Or(hn::BitCast(u, value), sign), nan));
}

// e^x within about one unit in the last place: x = n·ln 2 + r with |r| ≤ ln 2 / 2, e^r by its Taylor series to r⁷ (the
// next term is below 6e-9), then 2^n in two factors so that subnormal results are right. NaN stays NaN.
HWY_INLINE Vec exp(Vec x) {
  const IntTag s;
  // Beyond these bounds the result is 0 or infinite.
  const Vec bounded = hn::Min(hn::Max(x, hn::Set(kF, -104.0f)), hn::Set(kF, 89.0f));
  const auto n = hn::NearestInt(hn::Mul(bounded, hn::Set(kF, 1.44269504088896341f)));
  const Vec n_float = hn::ConvertTo(kF, n);
  // ln 2 in two parts; the first has few bits, so that its product with n is exact.
  Vec r = hn::NegMulAdd(n_float, hn::Set(kF, 0.693359375f), bounded);
  r = hn::NegMulAdd(n_float, hn::Set(kF, -2.12194440054690583e-4f), r);
  Vec sum = hn::Set(kF, 1.0f / 5040);
  sum = hn::MulAdd(sum, r, hn::Set(kF, 1.0f / 720));
  sum = hn::MulAdd(sum, r, hn::Set(kF, 1.0f / 120));
  sum = hn::MulAdd(sum, r, hn::Set(kF, 1.0f / 24));
  sum = hn::MulAdd(sum, r, hn::Set(kF, 1.0f / 6));
  sum = hn::MulAdd(sum, r, hn::Set(kF, 0.5f));
  sum = hn::Add(hn::MulAdd(hn::Mul(r, r), sum, r), hn::Set(kF, 1.0f));
  const auto half = hn::ShiftRight<1>(n);
  const auto bias = hn::Set(s, 127);
  const Vec first = hn::BitCast(kF, hn::ShiftLeft<23>(hn::Add(half, bias)));
  const Vec second = hn::BitCast(kF, hn::ShiftLeft<23>(hn::Add(hn::Sub(n, half), bias)));
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Mul(hn::Mul(sum, first), second));
}

HWY_INLINE int smaller(int a, int b) {
  return a < b ? a : b;
}

}  // namespace tandem::cpu::HWY_NAMESPACE
