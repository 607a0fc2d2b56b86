// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/slice_trace.h"

#include <algorithm>
#include <utility>

namespace tandem {

namespace {

struct Interval {
  double begin = 0, end = 0;
  std::int32_t batch = 0;  // index in a list of Batch
};

// A micro-batch's layer with those before and after it.
struct Batch {
  LayerTimes t;
  std::int32_t layer = 0;
  bool has_before = false, has_next = false;
  LayerTimes before, next;
};

std::vector<Batch> batches_of(const SliceTrace& trace) {
  std::vector<Batch> all;
  const auto pitch = static_cast<std::size_t>(trace.micro_batches);
  for (std::size_t i = 0; i < trace.times.size(); ++i) {
    Batch b{.t = trace.times[i], .layer = static_cast<std::int32_t>(i / pitch) % trace.layers};
    b.has_before = i >= pitch;
    b.has_next = i + pitch < trace.times.size();
    if (b.has_before) b.before = trace.times[i - pitch];
    if (b.has_next) b.next = trace.times[i + pitch];
    all.push_back(b);
  }
  return all;
}

TracedStages stages_of(const SliceTrace& trace, const std::vector<Batch>& all) {
  std::vector<double> attention, head, to_ffn, queue, gather, products, combine, ffn, to_attention;
  for (const Batch& b : all) {
    if (!b.has_before) continue;  // the first of all: what was before it is not in the trace
    if (trace.attention) (b.layer == 0 ? head : attention).push_back(b.t.handed_over - b.t.returned);
    if (!trace.ffn) continue;
    gather.push_back(b.t.gathered - b.t.seen);
    queue.push_back(b.t.begun - b.t.gathered);
    products.push_back(b.t.multiplied - b.t.begun);
    combine.push_back(b.t.sent - b.t.multiplied);
    ffn.push_back(gather.back() + products.back() + combine.back());
    if (!trace.attention) continue;
    to_ffn.push_back(b.t.seen - b.t.handed_over);
    if (b.has_next) to_attention.push_back(b.next.returned - b.t.sent);
  }
  return {.attention = quantiles_of(std::move(attention)),
          .head = quantiles_of(std::move(head)),
          .to_ffn = quantiles_of(std::move(to_ffn)),
          .queue = quantiles_of(std::move(queue)),
          .gather = quantiles_of(std::move(gather)),
          .products = quantiles_of(std::move(products)),
          .combine = quantiles_of(std::move(combine)),
          .ffn = quantiles_of(std::move(ffn)),
          .to_attention = quantiles_of(std::move(to_attention))};
}

// Times within [begin, end] in which none of the intervals is; batch: whose interval ends it, none at the end.
std::vector<Interval> gaps_between(std::vector<Interval> busy, double begin, double end) {
  std::ranges::sort(busy, {}, &Interval::begin);
  std::vector<Interval> gaps;
  double until = begin;
  for (const Interval& i : busy) {
    if (i.begin >= end) break;
    if (i.begin > until) gaps.push_back({until, i.begin, i.batch});
    until = std::max(until, i.end);
  }
  return gaps;
}

double length(const Interval& i) {
  return i.end - i.begin;
}

// Of a gap the part within [begin, end].
double part_of(const Interval& gap, double begin, double end) {
  return std::max(0., std::min(end, gap.end) - std::max(begin, gap.begin));
}

IdleShares attention_idle(const std::vector<Batch>& all, double begin, double end) {
  std::vector<Interval> busy;
  busy.reserve(all.size());
  for (std::size_t i = 0; i < all.size(); ++i)
    busy.push_back({all[i].t.returned, all[i].t.handed_over, static_cast<std::int32_t>(i)});
  IdleShares idle;
  for (const Interval& gap : gaps_between(std::move(busy), begin, end)) {
    const Batch& b = all[static_cast<std::size_t>(gap.batch)];
    const double on_link =
        part_of(gap, b.before.sent, b.t.returned) + part_of(gap, b.before.handed_over, b.before.seen);
    idle.for_link += on_link / (end - begin);
    idle.for_other_side += (length(gap) - on_link) / (end - begin);
  }
  return idle;
}

IdleShares ffn_idle(const std::vector<Batch>& all, double begin, double end) {
  std::vector<Interval> busy;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Batch& b = all[i];
    const auto index = static_cast<std::int32_t>(i);
    busy.push_back({b.t.seen, b.t.gathered, index});
    busy.push_back({b.t.begun, b.t.multiplied, index});
    busy.push_back({b.t.multiplied, b.t.sent, index});
  }
  IdleShares idle;
  for (const Interval& gap : gaps_between(std::move(busy), begin, end)) {
    const Batch& b = all[static_cast<std::size_t>(gap.batch)];
    const double on_link = part_of(gap, b.before.sent, b.t.returned) + part_of(gap, b.t.handed_over, b.t.seen);
    idle.for_link += on_link / (end - begin);
    idle.for_other_side += (length(gap) - on_link) / (end - begin);
  }
  return idle;
}

double products_share(const std::vector<Batch>& all, double begin, double end) {
  double busy = 0;
  for (const Batch& b : all) busy += std::max(0., std::min(b.t.multiplied, end) - std::max(b.t.begun, begin));
  return busy / (end - begin);
}

}  // namespace

Quantiles quantiles_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::ranges::sort(values);
  return {.p50 = values[values.size() / 2], .p99 = values[std::min(values.size() - 1, values.size() * 99 / 100)]};
}

std::string to_string(SlowPart part) {
  switch (part) {
    case SlowPart::kNone:
      return "nobody";
    case SlowPart::kAttention:
      return "attention";
    case SlowPart::kFfn:
      return "the FFN";
    case SlowPart::kLink:
      return "the link";
  }
  return "?";
}

SlowPart TraceSummary::waited_for() const {
  const std::pair<double, SlowPart> waits[] = {{ffn.for_other_side, SlowPart::kAttention},
                                               {attention.for_other_side, SlowPart::kFfn},
                                               {attention.for_link + ffn.for_link, SlowPart::kLink}};
  const auto& most = *std::ranges::max_element(waits, {}, [](const auto& wait) { return wait.first; });
  return most.first < kWaitMin ? SlowPart::kNone : most.second;
}

void derive_begun(SliceTrace& trace) {
  std::vector<LayerTimes*> by_end;
  by_end.reserve(trace.times.size());
  for (LayerTimes& t : trace.times) by_end.push_back(&t);
  std::ranges::sort(by_end, {}, [](const LayerTimes* t) { return t->multiplied; });
  double end = 0;
  for (LayerTimes* t : by_end) {
    t->begun = std::max(t->gathered, end);
    end = t->multiplied;
  }
}

TraceSummary summary_of(const SliceTrace& trace) {
  TraceSummary summary;
  if (trace.steps < 2) return summary;
  const std::vector<Batch> all = batches_of(trace);
  summary.stages = stages_of(trace, all);
  // From where every micro-batch is in the trace until the first one leaves it.
  const auto window = [&](double LayerTimes::* point) {
    double begin = trace.at(0, 0, 0).*point, end = trace.at(trace.steps - 1, trace.layers - 1, 0).*point;
    for (std::int32_t m = 1; m < trace.micro_batches; ++m) {
      begin = std::max(begin, trace.at(0, 0, m).*point);
      end = std::min(end, trace.at(trace.steps - 1, trace.layers - 1, m).*point);
    }
    return std::pair(begin, end);
  };
  if (!trace.ffn) return summary;
  const auto [begin, end] = window(&LayerTimes::multiplied);
  summary.products = products_share(all, begin, end);
  if (!trace.attention) return summary;
  summary.ffn = ffn_idle(all, begin, end);
  const auto [first, last] = window(&LayerTimes::handed_over);
  summary.attention = attention_idle(all, first, last);
  return summary;
}

}  // namespace tandem
