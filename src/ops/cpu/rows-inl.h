// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Kernels over one row, and the yardsticks. Included by kernels-inl.h only, once per instruction set.

namespace tandem::cpu::HWY_NAMESPACE {

void rms_norm(float* out, const float* x, const float* weight, std::int64_t columns, float eps) {
  Vec squares = hn::Zero(kF);
  std::int64_t c = 0;
  for (; c + kLanes <= columns; c += kLanes) {
    const Vec v = hn::LoadU(kF, x + c);
    squares = hn::MulAdd(v, v, squares);
  }
  float total = hn::GetLane(hn::SumOfLanes(kF, squares));
  for (; c < columns; ++c) total += x[c] * x[c];
  const float scale = 1.0f / __builtin_sqrtf(total / static_cast<float>(columns) + eps);
  const Vec scales = hn::Set(kF, scale);
  for (c = 0; c + kLanes <= columns; c += kLanes)
    hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(kF, x + c), scales), hn::LoadU(kF, weight + c)), kF, out + c);
  for (; c < columns; ++c) out[c] = x[c] * scale * weight[c];
}

void add(float* sum, const float* x, std::int64_t columns) {
  std::int64_t c = 0;
  for (; c + kLanes <= columns; c += kLanes)
    hn::StoreU(hn::Add(hn::LoadU(kF, sum + c), hn::LoadU(kF, x + c)), kF, sum + c);
  for (; c < columns; ++c) sum[c] += x[c];
}

HWY_INLINE Vec activated(Vec gate) {
  return hn::Div(gate, hn::Add(hn::Set(kF, 1.0f), exp(hn::Neg(gate))));
}

// NaN is over no limit, so it stays.
HWY_INLINE Vec limited(Vec x, Vec limit) {
  return hn::IfThenElse(hn::Gt(x, limit), limit, x);
}

HWY_INLINE Vec gated(Vec gate, Vec up, float limit) {
  if (limit <= 0) return hn::Mul(activated(gate), up);
  const Vec high = hn::Set(kF, limit);
  return hn::Mul(limited(activated(gate), high), hn::Neg(limited(hn::Neg(limited(up, high)), high)));
}

void swiglu(float* out, const float* gate, const float* up, std::int64_t columns, float limit) {
  std::int64_t c = 0;
  for (; c + kLanes <= columns; c += kLanes)
    hn::StoreU(gated(hn::LoadU(kF, gate + c), hn::LoadU(kF, up + c), limit), kF, out + c);
  for (; c < columns; ++c) out[c] = hn::GetLane(gated(hn::Set(kF, gate[c]), hn::Set(kF, up[c]), limit));
}

void exponential(float* out, const float* x, std::int64_t count) {
  std::int64_t c = 0;
  for (; c + kLanes <= count; c += kLanes) hn::StoreU(exp(hn::LoadU(kF, x + c)), kF, out + c);
  for (; c < count; ++c) out[c] = hn::GetLane(exp(hn::Set(kF, x[c])));
}

float read(const float* data, std::int64_t count) {
  Vec sums[4] = {hn::Zero(kF), hn::Zero(kF), hn::Zero(kF), hn::Zero(kF)};
  for (std::int64_t i = 0; i + 4 * kLanes <= count; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j) sums[j] = hn::Add(sums[j], hn::LoadU(kF, data + i + j * kLanes));
  return hn::GetLane(hn::SumOfLanes(kF, hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]))));
}

double multiply_add(std::int64_t rounds, float* sink) {
  constexpr int kChains = 12;  // enough to fill two units of latency four to six
  Vec chain[kChains];
  for (int j = 0; j < kChains; ++j) chain[j] = hn::Set(kF, static_cast<float>(j));
  const Vec factor = hn::Set(kF, 0.999f), term = hn::Set(kF, 0.001f);
  for (std::int64_t i = 0; i < rounds; ++i)
    for (int j = 0; j < kChains; ++j) chain[j] = hn::MulAdd(chain[j], factor, term);
  Vec total = hn::Zero(kF);
  for (int j = 0; j < kChains; ++j) total = hn::Add(total, chain[j]);
  *sink = hn::GetLane(hn::SumOfLanes(kF, total));
  return 2.0 * kChains * kLanes * static_cast<double>(rounds);
}

}  // namespace tandem::cpu::HWY_NAMESPACE
