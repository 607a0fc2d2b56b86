// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Filling the cache, and attention over it: who computes which queries. The sums are in attention-inl.h.
//
// Queries are ordered so that those sharing K and V are neighbours: a run of rows of one sequence, then the kv head,
// then row and head of the group. Each thread takes a stretch of that order of about equal cost and cuts it into
// shares.
#include <algorithm>

#include "base/scalar.h"
#include "ops/cpu/cpu_kv_cache.h"
#include "ops/cpu/machine.h"

namespace tandem::cpu {

namespace {

template <class Element>
Element rounded(float value) {
  if constexpr (sizeof(Element) == sizeof(float))
    return value;
  else
    return f32_to_bf16(value);
}

// Columns [begin, end) of K for all rows: neighbouring tokens share cache lines, so threads divide columns, not rows.
template <class Element>
void append_k(const AppendKv& op, const CpuKvCache& cache, std::int64_t begin, std::int64_t end) {
  const std::int64_t dim = cache.spec().k_dim;
  for (std::int64_t i = 0; i < op.k.rows(); ++i) {
    const std::int32_t slot = op.slots.as<const std::int32_t>()[i];
    const float* in = op.k.row<float>(i);
    for (std::int64_t c = begin; c < end;) {  // head after head
      const std::int64_t head = c / dim, head_end = std::min(end, (head + 1) * dim);
      auto* out = reinterpret_cast<Element*>(cache.k(slot / kBlockTokens, op.layer, static_cast<std::int32_t>(head))) +
                  slot % kBlockTokens;
      for (; c < head_end; ++c) out[(c - head * dim) * kBlockTokens] = rounded<Element>(in[c]);
    }
  }
}

// Whole rows: the values, or the keys that hold them.
template <class Element>
void append_rows(const AppendKv& op, const CpuKvCache& cache, std::int64_t begin, std::int64_t end) {
  const KvSpec& spec = cache.spec();
  const Tensor& from = spec.v_in_k ? op.k : op.v;
  const std::int32_t dim = spec.v_in_k ? spec.k_dim : spec.v_dim;
  for (std::int64_t i = begin; i < end; ++i) {
    const std::int32_t slot = op.slots.as<const std::int32_t>()[i];
    for (std::int32_t head = 0; head < spec.kv_heads; ++head) {
      auto* out = reinterpret_cast<Element*>(cache.v(slot / kBlockTokens, op.layer, head)) +
                  static_cast<std::int64_t>(slot % kBlockTokens) * cache.v_stride();
      const float* in = from.row<float>(i) + head * dim;
      for (std::int32_t d = 0; d < dim; ++d) out[d] = rounded<Element>(in[d]);
    }
  }
}

// One thread's walk over the queries.
class QueryWalk {
 public:
  QueryWalk(Machine& machine, const PagedAttention& op, int thread, int threads)
      : machine_(machine), op_(op), cache_(cpu_cache(*op.cache)), group_(op.heads / cache_.spec().kv_heads) {
    std::int64_t total = 0;
    for (std::int64_t r = 0; r < op.q.rows(); ++r) total += cost(r) * op.heads;
    const KvSpec& spec = cache_.spec();
    begin_ = total * thread / threads;
    end_ = total * (thread + 1) / threads;
    share_.scratch =
        machine.scratch(thread, attention_scratch_floats(spec.k_dim, cache_.v_padded(), cache_.v_stride()));
    share_.block_stride = static_cast<std::int64_t>(cache_.block_stride());
    share_.is_f32 = cache_.is_f32();
    share_.k_dim = spec.k_dim;
    share_.v_dim = spec.v_dim;
    share_.v_padded = cache_.v_padded();
    share_.v_stride = cache_.v_stride();
    share_.scale = op.scale;
  }

  void run() {
    const std::int64_t run_rows = std::max(1, kQueriesMax / group_);
    for (std::int64_t first = 0; first < op_.q.rows() && done_ < end_;) {
      std::int64_t last = first + 1;
      while (last < op_.q.rows() && last - first < run_rows && sequence(last) == sequence(first)) ++last;
      for (std::int32_t kv_head = 0; kv_head < cache_.spec().kv_heads; ++kv_head) {
        const bool is_last = kv_head + 1 == cache_.spec().kv_heads;
        const std::int64_t row = is_last && last < op_.q.rows() ? last : first;
        share_.next = keys(is_last ? 0 : kv_head + 1) + first_block(row) * share_.block_stride;
        take(first, last, kv_head);
      }
      first = last;
    }
  }

 private:
  std::int32_t sequence(std::int64_t row) const { return op_.sequences.as<const std::int32_t>()[row]; }
  std::int32_t context(std::int64_t row) const { return op_.positions.as<const std::int32_t>()[row] + 1; }
  std::int32_t begin(std::int64_t row) const { return op_.first_seen(context(row) - 1); }
  // In which block what a row sees begins.
  std::int64_t first_block(std::int64_t row) const {
    return op_.block_table.row<const std::int32_t>(sequence(row))[begin(row) / kBlockTokens];
  }
  // Of one head in block 0, or the values that hold them.
  const std::byte* keys(std::int32_t kv_head) const {
    return cache_.spec().v_in_k ? cache_.v(0, op_.layer, kv_head) : cache_.k(0, op_.layer, kv_head);
  }
  // In blocks, with one for what every query costs.
  std::int64_t cost(std::int64_t row) const { return (context(row) - begin(row)) / kBlockTokens + 2; }

  // The queries of rows [first, last) on one kv head that are this thread's.
  void take(std::int64_t first, std::int64_t last, std::int32_t kv_head) {
    share_.queries = 0;
    share_.blocks = op_.block_table.row<const std::int32_t>(sequence(first));
    share_.k = cache_.spec().v_in_k ? nullptr : cache_.k(0, op_.layer, kv_head);
    share_.v = cache_.v(0, op_.layer, kv_head);
    for (std::int64_t row = first; row < last; ++row) {
      for (std::int32_t h = 0; h < group_; ++h) {
        const bool is_mine = done_ >= begin_ && done_ < end_;
        done_ += cost(row);
        if (!is_mine) continue;
        const std::int64_t head = static_cast<std::int64_t>(kv_head) * group_ + h;
        share_.q[share_.queries] = op_.q.row<float>(row) + head * share_.k_dim;
        share_.out[share_.queries] = op_.out.row<float>(row) + head * share_.v_dim;
        share_.begin[share_.queries] = begin(row);
        share_.context[share_.queries] = context(row);
        if (++share_.queries == kQueriesMax) flush();
      }
    }
    flush();
  }

  void flush() {
    if (share_.queries > 0) machine_.kernels.attention(share_);
    share_.queries = 0;
  }

  Machine& machine_;
  const PagedAttention& op_;
  const CpuKvCache& cache_;
  const std::int32_t group_;  // query heads per kv head
  std::int64_t begin_, end_;  // this thread's stretch of the total cost
  std::int64_t done_ = 0;     // cost of the queries walked over
  AttentionShare share_;
};

}  // namespace

void run(Machine& machine, const AppendKv& op) {
  const CpuKvCache& cache = cpu_cache(*op.cache);
  const auto k = cache.is_f32() ? append_k<float> : append_k<std::uint16_t>;
  const auto rows = cache.is_f32() ? append_rows<float> : append_rows<std::uint16_t>;
  if (!cache.spec().v_in_k)
    machine.split(op.k.shape[1], op.k.rows(),
                  [&](int, std::int64_t begin, std::int64_t end) { k(op, cache, begin, end); });
  machine.split(op.k.rows(), op.k.shape[1],
                [&](int, std::int64_t begin, std::int64_t end) { rows(op, cache, begin, end); });
}

void run(Machine& machine, const PagedAttention& op) {
  // Below this many multiply-adds the caller is done before the team is awake.
  constexpr std::int64_t kWorthATeam = 64 * 1024;
  const KvSpec& spec = op.cache->spec();
  const int threads =
      op.context_tokens * op.heads * (spec.k_dim + spec.v_dim) < kWorthATeam ? 1 : machine.team.threads();
  if (threads == 1) return QueryWalk(machine, op, 0, 1).run();
  machine.team.run([&](int thread) { QueryWalk(machine, op, thread, threads).run(); });
}

}  // namespace tandem::cpu
