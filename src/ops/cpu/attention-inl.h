// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Attention of some queries over one kv head of one sequence. Included by kernels-inl.h only, once per instruction set.
//
// Problem: decode reads the whole context for one row and is bound by memory; prefill shares it between rows and is
// bound by multiply-adds. The queries of a share (heads of a group, neighbouring rows) walk the blocks together, so K
// and V are read once. Scores have a lane per token, so no sum runs across lanes; outputs have a lane per value.
// Softmax is taken online, block after block from position 0. What a query computes depends on its own context alone;
// tokens behind it are masked by selection, never by a product with zero, since they may hold NaN.

namespace tandem::cpu::HWY_NAMESPACE {

struct Softmax {
  float top;    // largest score so far
  float total;  // Σ e^(score - top)
};

// Turns the raw scores of one block into e^(score - top), updates the state and returns the factor for earlier sums.
HWY_INLINE float update(Softmax& state, float* scores, int valid, float scale) {
  const Vec minus_infinity = hn::Set(kF, -__builtin_inff());
  Vec tops = minus_infinity;
  for (int t = 0; t < kTokensPerBlock; t += kLanes) {
    const Vec score = hn::Mul(hn::LoadU(kF, scores + t), hn::Set(kF, scale));
    const int lanes = valid - t < 0 ? 0 : smaller(valid - t, kLanes);
    const Vec masked = hn::IfThenElse(hn::FirstN(kF, static_cast<std::size_t>(lanes)), score, minus_infinity);
    hn::StoreU(masked, kF, scores + t);
    tops = hn::Max(tops, masked);
  }
  const float block_top = hn::GetLane(hn::MaxOfLanes(kF, tops));
  const float top = block_top > state.top ? block_top : state.top;
  // While every score is -infinity there is nothing to measure from.
  const Vec shift = hn::Set(kF, top == -__builtin_inff() ? 0.0f : top);
  Vec sums = hn::Zero(kF);
  for (int t = 0; t < kTokensPerBlock; t += kLanes) {
    const Vec p = exp(hn::Sub(hn::LoadU(kF, scores + t), shift));
    hn::StoreU(p, kF, scores + t);
    sums = hn::Add(sums, p);
  }
  const float factor = hn::GetLane(exp(hn::Sub(hn::Set(kF, state.top), shift)));
  state.top = top;
  state.total = state.total * factor + hn::GetLane(hn::SumOfLanes(kF, sums));
  return factor;
}

HWY_INLINE void scale_row(float* values, int count, float factor) {
  const Vec f = hn::Set(kF, factor);
  for (int i = 0; i < count; i += kLanes) hn::StoreU(hn::Mul(hn::LoadU(kF, values + i), f), kF, values + i);
}

struct AttentionScratch {
  float* scores;   // [queries, 64]
  float* outputs;  // [queries, v_padded]
  float* k;        // [k_dim, 64] widened
  float* v;        // [64, v_padded] widened
};

// outputs += probabilities · V for each query over its valid tokens. Queries are taken together as far as all of a tile
// may see, then one by one; the order of a query's sums is the same.
template <class Panel>
void add_values(const Panel& v, const AttentionScratch& scratch, int queries, const int* valid, int v_padded) {
  for (int first = 0; first < queries; first += kTileRows) {
    const int count = smaller(kTileRows, queries - first);
    const float* p[kTileRows];
    int shared = kTokensPerBlock;
    for (int i = 0; i < count; ++i) {
      p[i] = scratch.scores + (first + i) * kTokensPerBlock;
      shared = smaller(shared, valid[first + i]);
    }
    float* outputs = scratch.outputs + static_cast<std::int64_t>(first) * v_padded;
    if (shared > 0) accumulate_all(v, 0, shared, v_padded, p, count, 0, outputs, v_padded);
    for (int i = 0; i < count; ++i) {
      const int rest = valid[first + i] - shared;
      if (rest > 0) accumulate_all(v, shared, rest, v_padded, p + i, 1, shared, outputs + i * v_padded, v_padded);
    }
  }
}

template <class Panel>
void attend_block(const AttentionShare& share, const Panel& k, const Panel& v, const int* valid, Softmax* states,
                  const AttentionScratch& scratch) {
  fill_zero(scratch.scores, share.queries * kTokensPerBlock);
  accumulate_all(k, 0, share.k_dim, kTokensPerBlock, share.q, share.queries, 0, scratch.scores, kTokensPerBlock);
  for (int i = 0; i < share.queries; ++i) {
    if (valid[i] == 0) continue;
    const float factor = update(states[i], scratch.scores + i * kTokensPerBlock, valid[i], share.scale);
    if (factor != 1) scale_row(scratch.outputs + static_cast<std::int64_t>(i) * share.v_padded, share.v_padded, factor);
  }
  add_values(v, scratch, share.queries, valid, share.v_padded);
}

// Panel is that of the cache's type; with many queries a block is widened once and they share that.
template <class Panel, class Element>
void attend(const AttentionShare& share, const AttentionScratch& scratch) {
  Softmax states[kQueriesMax];
  std::int32_t longest = 0;
  for (int i = 0; i < share.queries; ++i) {
    states[i] = {-__builtin_inff(), 0.0f};
    if (share.context[i] > longest) longest = share.context[i];
  }
  fill_zero(scratch.outputs, static_cast<std::int64_t>(share.queries) * share.v_padded);
  for (std::int32_t begin = 0; begin < longest; begin += kTokensPerBlock) {
    const std::int64_t offset = share.blocks[begin / kTokensPerBlock] * share.block_stride;
    int valid[kQueriesMax];
    for (int i = 0; i < share.queries; ++i) {
      const std::int32_t rest = share.context[i] - begin;
      valid[i] = rest < 0 ? 0 : smaller(rest, kTokensPerBlock);
    }
    const Panel k{reinterpret_cast<const Element*>(share.k + offset), kTokensPerBlock};
    const Panel v{reinterpret_cast<const Element*>(share.v + offset), share.v_padded};
    if (share.queries <= kTileRows || sizeof(Element) == sizeof(float)) {
      attend_block(share, k, v, valid, states, scratch);
    } else {
      widen(k, 0, share.k_dim, kTokensPerBlock, scratch.k);
      widen(v, 0, smaller(longest - begin, kTokensPerBlock), share.v_padded, scratch.v);
      attend_block(share, F32Panel{scratch.k, kTokensPerBlock}, F32Panel{scratch.v, share.v_padded}, valid, states,
                   scratch);
    }
  }
  for (int i = 0; i < share.queries; ++i) {
    const float* sums = scratch.outputs + static_cast<std::int64_t>(i) * share.v_padded;
    for (int c = 0; c < share.v_dim; ++c) share.out[i][c] = sums[c] / states[i].total;
  }
}

void attention(const AttentionShare& share) {
  AttentionScratch scratch;
  scratch.scores = share.scratch;
  scratch.outputs = scratch.scores + kQueriesMax * kTokensPerBlock;
  scratch.k = scratch.outputs + static_cast<std::int64_t>(kQueriesMax) * share.v_padded;
  scratch.v = scratch.k + static_cast<std::int64_t>(kTokensPerBlock) * share.k_dim;
  if (share.is_f32)
    attend<F32Panel, float>(share, scratch);
  else
    attend<Bf16Panel, std::uint16_t>(share, scratch);
}

}  // namespace tandem::cpu::HWY_NAMESPACE
