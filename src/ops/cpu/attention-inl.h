// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Attention of some queries over one kv head of one sequence. Included by kernels-inl.h only, once per instruction set.
//
// Problem: decode reads the whole context for one row and is bound by memory; prefill shares it between rows and is
// bound by multiply-adds. The queries of a share (heads of a group, neighbouring rows) walk the blocks together, so K
// and V are read once. Scores have a lane per token, so no sum runs across lanes; outputs have a lane per value.
// Softmax is taken online, block after block in order of position. What a query computes depends on what it sees alone;
// other tokens are masked by selection, never by a product with zero, since they may hold NaN.
//
// Where values are in the keys (MLA), a block is rows of keys. Scores then have a lane per query: the queries are
// turned into a panel once, keys are the rows multiplied with it, and the small table of scores is turned back.

namespace tandem::cpu::HWY_NAMESPACE {

// The tokens of a block that a query sees: [begin, end).
struct Seen {
  int begin, end;
};

struct Softmax {
  float top;    // largest score so far
  float total;  // Σ e^(score - top)
};

// Turns the raw scores of one block into e^(score - top), updates the state and returns the factor for earlier sums.
HWY_INLINE float update(Softmax& state, float* scores, Seen seen, float scale) {
  const Vec minus_infinity = hn::Set(kF, -__builtin_inff());
  Vec tops = minus_infinity;
  for (int t = 0; t < kTokensPerBlock; t += kLanes) {
    const Vec score = hn::Mul(hn::LoadU(kF, scores + t), hn::Set(kF, scale));
    const auto first_lanes = [t](int token) __attribute__((always_inline)) {
      return hn::FirstN(kF, static_cast<std::size_t>(token < t ? 0 : smaller(token - t, kLanes)));
    };
    const Vec masked =
        hn::IfThenElse(hn::AndNot(first_lanes(seen.begin), first_lanes(seen.end)), score, minus_infinity);
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
  float* scores;    // [queries, 64]
  float* outputs;   // [queries, v_padded]
  float* k;         // [k_dim, 64] widened
  float* v;         // [64, v_stride] widened
  float* queries;   // [k_dim, queries], the queries side by side
  float* by_token;  // [64, queries], their scores
};

// outputs += probabilities · V for each query over the tokens it sees. Queries are taken together where all of a tile
// see a token, else one by one; the order of a query's sums is the same.
template <class Panel>
void add_values(const Panel& v, const AttentionScratch& scratch, int queries, const Seen* seen, int v_padded) {
  for (int first = 0; first < queries; first += kTileRows) {
    const int count = smaller(kTileRows, queries - first);
    const float* p[kTileRows];
    Seen shared{0, kTokensPerBlock};
    for (int i = 0; i < count; ++i) {
      p[i] = scratch.scores + (first + i) * kTokensPerBlock;
      if (seen[first + i].begin > shared.begin) shared.begin = seen[first + i].begin;
      shared.end = smaller(shared.end, seen[first + i].end);
    }
    float* outputs = scratch.outputs + static_cast<std::int64_t>(first) * v_padded;
    const auto add_one = [&](int i, int begin, int end) {
      if (begin < end)
        accumulate_all(v, begin, end - begin, v_padded, p + i, 1, begin, outputs + i * v_padded, v_padded);
    };
    if (shared.begin >= shared.end) {
      for (int i = 0; i < count; ++i) add_one(i, seen[first + i].begin, seen[first + i].end);
      continue;
    }
    for (int i = 0; i < count; ++i) add_one(i, seen[first + i].begin, shared.begin);
    accumulate_all(v, shared.begin, shared.end - shared.begin, v_padded, p, count, shared.begin, outputs, v_padded);
    for (int i = 0; i < count; ++i) add_one(i, shared.end, seen[first + i].end);
  }
}

// Raw scores are in the scratch; what the block adds to each query's softmax and outputs.
template <class Panel>
void add_block(const AttentionShare& share, const Panel& v, const Seen* seen, Softmax* states,
               const AttentionScratch& scratch) {
  for (int i = 0; i < share.queries; ++i) {
    if (seen[i].begin >= seen[i].end) continue;
    const float factor = update(states[i], scratch.scores + i * kTokensPerBlock, seen[i], share.scale);
    if (factor != 1) scale_row(scratch.outputs + static_cast<std::int64_t>(i) * share.v_padded, share.v_padded, factor);
  }
  add_values(v, scratch, share.queries, seen, share.v_padded);
}

template <class Panel>
void attend_block(const AttentionShare& share, const Panel& k, const Panel& v, int tokens, const Seen* seen,
                  Softmax* states, const AttentionScratch& scratch) {
  fill_zero(scratch.scores, share.queries * kTokensPerBlock);
  accumulate_all(k, 0, share.k_dim, tokens, share.q, share.queries, 0, scratch.scores, kTokensPerBlock);
  add_block(share, v, seen, states, scratch);
}

// The number of queries, rounded up to whole vectors.
HWY_INLINE int queries_padded(const AttentionShare& share) {
  return (share.queries + kLanes - 1) / kLanes * kLanes;
}

void turn_queries(const AttentionShare& share, float* queries) {
  const int stride = queries_padded(share);
  for (int i = 0; i < stride; ++i)
    for (int d = 0; d < share.k_dim; ++d) queries[d * stride + i] = i < share.queries ? share.q[i][d] : 0.0f;
}

// A block of rows [64, v_stride] in f32, of which tokens [all.begin, all.end) are seen by somebody.
void attend_rows(const AttentionShare& share, const float* rows, Seen all, const Seen* seen, Softmax* states,
                 const AttentionScratch& scratch) {
  const int stride = queries_padded(share);
  const float* keys[kTokensPerBlock];
  for (int t = 0; t < kTokensPerBlock; ++t) keys[t] = rows + static_cast<std::int64_t>(t) * share.v_stride;
  fill_zero(scratch.by_token, static_cast<std::int64_t>(kTokensPerBlock) * stride);
  accumulate_all(F32Panel{scratch.queries, stride}, 0, share.k_dim, stride, keys + all.begin, all.end - all.begin, 0,
                 scratch.by_token + static_cast<std::int64_t>(all.begin) * stride, stride);
  for (int i = 0; i < share.queries; ++i)
    for (int t = 0; t < kTokensPerBlock; ++t)
      scratch.scores[i * kTokensPerBlock + t] = scratch.by_token[static_cast<std::int64_t>(t) * stride + i];
  add_block(share, F32Panel{rows, share.v_stride}, seen, states, scratch);
}

// What the queries see of the block of tokens from begin on, and all of them together.
Seen seen_in_block(const AttentionShare& share, std::int32_t begin, Seen* seen) {
  const auto within = [begin](std::int32_t token) {
    return token < begin ? 0 : smaller(token - begin, kTokensPerBlock);
  };
  Seen all{kTokensPerBlock, 0};
  for (int i = 0; i < share.queries; ++i) {
    seen[i] = {within(share.begin[i]), within(share.context[i])};
    if (seen[i].begin >= seen[i].end) continue;
    all.begin = smaller(all.begin, seen[i].begin);
    if (seen[i].end > all.end) all.end = seen[i].end;
  }
  return all;
}

// Panel is that of the cache's type; with many queries a block is widened once and they share that.
template <class Panel, class Element>
void attend(const AttentionShare& share, const AttentionScratch& scratch) {
  Softmax states[kQueriesMax];
  std::int32_t longest = 0, first = share.begin[0];
  for (int i = 0; i < share.queries; ++i) {
    states[i] = {-__builtin_inff(), 0.0f};
    if (share.context[i] > longest) longest = share.context[i];
    first = smaller(first, share.begin[i]);
  }
  if (!share.k) turn_queries(share, scratch.queries);
  fill_zero(scratch.outputs, static_cast<std::int64_t>(share.queries) * share.v_padded);
  for (std::int32_t begin = first / kTokensPerBlock * kTokensPerBlock; begin < longest; begin += kTokensPerBlock) {
    const std::int64_t offset = share.blocks[begin / kTokensPerBlock] * share.block_stride;
    Seen seen[kQueriesMax];
    const Seen all = seen_in_block(share, begin, seen);
    if (all.begin >= all.end) continue;  // between two windows
    const std::int32_t end = begin + kTokensPerBlock;
    const std::byte* keys = share.k ? share.k : share.v;
    const std::byte* next =
        end < longest ? keys + share.blocks[end / kTokensPerBlock] * share.block_stride : share.next;
    // A walk over K asks for V, one over V for what comes then: half a block's time is what memory takes.
    const Panel v{reinterpret_cast<const Element*>(share.v + offset), share.v_stride, next - (share.v + offset)};
    if (!share.k) {
      const float* rows = reinterpret_cast<const float*>(v.data);
      if constexpr (sizeof(Element) != sizeof(float)) {
        widen(v, all.begin, all.end - all.begin, share.v_stride, scratch.v + all.begin * share.v_stride);
        rows = scratch.v;
      }
      attend_rows(share, rows, all, seen, states, scratch);
      continue;
    }
    const Panel k{reinterpret_cast<const Element*>(share.k + offset), kTokensPerBlock, share.v - share.k};
    // Scores are made of tokens that somebody sees, to whole tiles.
    const int tokens = (all.end + 2 * kLanes - 1) / (2 * kLanes) * (2 * kLanes);
    if (share.queries <= kTileRows || sizeof(Element) == sizeof(float)) {
      attend_block(share, k, v, tokens, seen, states, scratch);
    } else {
      widen(k, 0, share.k_dim, kTokensPerBlock, scratch.k);
      widen(v, 0, all.end, share.v_stride, scratch.v);
      attend_block(share, F32Panel{scratch.k, kTokensPerBlock}, F32Panel{scratch.v, share.v_stride}, tokens, seen,
                   states, scratch);
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
  scratch.queries = scratch.v + static_cast<std::int64_t>(kTokensPerBlock) * share.v_stride;
  scratch.by_token = scratch.queries + static_cast<std::int64_t>(kQueriesMax) * share.k_dim;
  if (share.is_f32)
    attend<F32Panel, float>(share, scratch);
  else
    attend<Bf16Panel, std::uint16_t>(share, scratch);
}

}  // namespace tandem::cpu::HWY_NAMESPACE
