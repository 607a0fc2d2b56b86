// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/micro_batch_pipeline.h"

#include <algorithm>
#include <array>
#include <limits>

#include "base/check.h"
#include "base/rng.h"

namespace tandem {

namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr std::int64_t kLayersBefore = 12;  // the step that counts; more change nothing

enum StreamName : std::uint8_t { kBefore, kProducts, kAfter, kStreams };

// What a stream does next for its micro-batch: with the multiprocessors, or without.
struct Piece {
  double seconds = 0;
  bool is_kernel = false;
};

class StepSimulation {
 public:
  explicit StepSimulation(const PipelineStep& step);
  double run();

 private:
  enum class Place : std::uint8_t { kHead, kAttention, kLink, kFfn, kLinkBack };
  struct MicroBatch {
    Place place = Place::kAttention;
    std::int64_t layer = 0;  // counted on over the end of a step
    double left = 1;         // of the head or of attention: the part that is still to do
    double until = kNever;   // on a link
    std::array<double, kStreams> ready{kNever, kNever, kNever};  // for a stream of F
    double begun = 0, took = -1;                                 // the step that counts
  };
  struct Stream {
    std::int64_t item = 0;  // layer · micro-batches + micro-batch
    std::size_t piece = 0;  // of it
    double until = kNever;  // of the piece; never: none goes on
    double waits_since = kNever;
    bool has_kernel = false;
  };

  std::int64_t layers() const { return static_cast<std::int64_t>(kinds_.size()); }
  const PipelineLayers& kind(std::int64_t layer) const { return *kinds_[static_cast<std::size_t>(layer % layers())]; }
  bool is_in_attention(const MicroBatch& m) const { return m.place == Place::kHead || m.place == Place::kAttention; }
  double seconds_of_share(const MicroBatch& m, double company) const;
  MicroBatch& batch_of(const Stream& stream) {
    return batches_[static_cast<std::size_t>(stream.item % step_.micro_batches)];
  }
  std::size_t pieces(StreamName name, const Stream& stream, std::array<Piece, 3>& out) const;
  void advance();
  void move_on(MicroBatch& m);
  void enter_attention(MicroBatch& m);
  void end_piece(StreamName name);
  void end_item(StreamName name);
  void start_pieces();
  bool wants(StreamName name);
  void start(StreamName name, const Piece& piece);

  const PipelineStep& step_;
  std::vector<const PipelineLayers*> kinds_;  // of each layer
  std::vector<MicroBatch> batches_;
  std::array<Stream, kStreams> streams_{};
  std::int64_t first_layer_ = 0;  // of the step that counts
  double now_ = 0, link_free_ = 0, link_back_free_ = 0;
  bool multiprocessors_are_free_ = true;
};

StepSimulation::StepSimulation(const PipelineStep& step) : step_(step) {
  TANDEM_CHECK(step.micro_batches > 0, "a step without micro-batches");
  for (const PipelineLayers& like : step.layers) {
    TANDEM_CHECK(!like.ffn.products.empty() && like.attention_alone > 0, "a layer without attention or products");
    kinds_.insert(kinds_.end(), static_cast<std::size_t>(like.count), &like);
  }
  TANDEM_CHECK(!kinds_.empty(), "a step without layers");
  batches_.resize(static_cast<std::size_t>(step.micro_batches));
  first_layer_ = (kLayersBefore + layers() - 1) / layers() * layers();
  const std::int64_t first = first_layer_ - kLayersBefore;
  for (MicroBatch& m : batches_) {
    m.layer = first;
    enter_attention(m);
  }
  for (Stream& stream : streams_) stream.item = first * step.micro_batches;
}

// What all of its head or its attention would take with so many micro-batches at A for all of that time.
double StepSimulation::seconds_of_share(const MicroBatch& m, double company) const {
  if (m.place == Place::kHead) return std::max(step_.head_alone, company * step_.head_busy);
  const PipelineLayers& like = kind(m.layer);
  return std::max(like.attention_alone, company * like.attention_busy);
}

// Gaps are with what goes on without multiprocessors: a copy, a flag, and the way from one stream to the next.
std::size_t StepSimulation::pieces(StreamName name, const Stream& stream, std::array<Piece, 3>& out) const {
  const std::int64_t layer = stream.item / step_.micro_batches;
  const FfnPieces& ffn = kind(layer).ffn;
  std::size_t count = 0;
  const auto add = [&](double seconds, bool is_kernel) {
    if (seconds > 0) out[count++] = {seconds + (is_kernel ? 0 : ffn.gap), is_kernel};
  };
  if (name == kProducts) {
    const std::uint64_t draw = mix64(static_cast<std::uint64_t>(stream.item) + 1);
    const FfnPieces::Products& products = ffn.products[draw % ffn.products.size()];
    add(products.gate_up, true);
    add(products.down, true);
  } else {
    add(name == kBefore ? ffn.copy_in : ffn.copy_out, false);
    add(name == kBefore ? ffn.gather : ffn.combine, true);
    if (name == kAfter) add(ffn.flag, false);
  }
  return count;
}

void StepSimulation::enter_attention(MicroBatch& m) {
  m.until = kNever;
  m.left = 1;
  const bool begins = m.layer % layers() == 0;
  m.place = begins && step_.head_alone > 0 ? Place::kHead : Place::kAttention;
  if (m.layer == first_layer_) m.begun = now_;
  if (m.layer == first_layer_ + layers()) m.took = now_ - m.begun;
}

void StepSimulation::move_on(MicroBatch& m) {
  switch (m.place) {
    case Place::kHead:
      m.place = Place::kAttention;
      m.left = 1;
      break;
    case Place::kAttention:
      m.place = Place::kLink;
      m.until = link_free_ = std::max(now_, link_free_) + kind(m.layer).to_ffn;
      break;
    case Place::kLink:
      m.place = Place::kFfn;
      m.until = kNever;
      m.ready[kBefore] = now_ + kind(m.layer).ffn.gap;
      break;
    case Place::kFfn:
      m.place = Place::kLinkBack;
      m.until = link_back_free_ = std::max(now_, link_back_free_) + kind(m.layer).to_attention;
      break;
    case Place::kLinkBack:
      ++m.layer;
      enter_attention(m);
  }
}

void StepSimulation::end_item(StreamName name) {
  Stream& stream = streams_[name];
  MicroBatch& m = batch_of(stream);
  m.ready[name] = kNever;
  if (name == kAfter)
    move_on(m);
  else
    m.ready[name + 1] = now_ + kind(m.layer).ffn.gap;
  stream.piece = 0;
  ++stream.item;
}

void StepSimulation::end_piece(StreamName name) {
  Stream& stream = streams_[name];
  if (stream.has_kernel) multiprocessors_are_free_ = true;
  stream.until = kNever;
  stream.has_kernel = false;
  ++stream.piece;
}

void StepSimulation::start(StreamName name, const Piece& piece) {
  Stream& stream = streams_[name];
  stream.until = now_ + piece.seconds;
  stream.has_kernel = piece.is_kernel;
  stream.waits_since = kNever;
  if (piece.is_kernel) multiprocessors_are_free_ = false;
}

// Starts what needs no multiprocessors, ends what has nothing left, and says whether a kernel stands at its begin.
bool StepSimulation::wants(StreamName name) {
  Stream& stream = streams_[name];
  while (stream.until == kNever && batch_of(stream).ready[name] <= now_) {
    std::array<Piece, 3> of_item;
    if (const std::size_t count = pieces(name, stream, of_item); stream.piece == count) {
      end_item(name);
    } else if (const Piece& piece = of_item[stream.piece]; !piece.is_kernel) {
      start(name, piece);
    } else {
      stream.waits_since = std::min(stream.waits_since, now_);
      return true;
    }
  }
  return false;
}

void StepSimulation::start_pieces() {
  const bool before = wants(kBefore), products = wants(kProducts), after = wants(kAfter);
  if (!multiprocessors_are_free_) return;
  StreamName next = kProducts;
  if (before && after)
    next = streams_[kBefore].waits_since < streams_[kAfter].waits_since ? kBefore : kAfter;
  else if (before || after)
    next = before ? kBefore : kAfter;
  else if (!products)
    return;
  std::array<Piece, 3> of_item;
  (void)pieces(next, streams_[next], of_item);
  start(next, of_item[streams_[next].piece]);
}

// To the next event.
void StepSimulation::advance() {
  const auto company =
      static_cast<double>(std::ranges::count_if(batches_, [&](const auto& m) { return is_in_attention(m); }));
  double next = kNever;
  MicroBatch* first = nullptr;  // that leaves A then
  const auto sooner = [&](double when) {
    if (when < next) next = when, first = nullptr;
  };
  for (const MicroBatch& m : batches_) {
    sooner(m.until);
    for (const double ready : m.ready)
      if (ready > now_) sooner(ready);
  }
  for (const Stream& stream : streams_) sooner(stream.until);
  for (MicroBatch& m : batches_)
    if (is_in_attention(m))
      if (const double when = now_ + m.left * seconds_of_share(m, company); when < next) next = when, first = &m;
  TANDEM_CHECK(next < kNever, "micro-batches that all wait");
  for (MicroBatch& m : batches_)
    if (is_in_attention(m)) m.left = std::max(0.0, m.left - (next - now_) / seconds_of_share(m, company));
  now_ = next;
  if (first != nullptr) move_on(*first);
  for (MicroBatch& m : batches_)
    if (m.until <= now_) move_on(m);
  for (const StreamName name : {kBefore, kProducts, kAfter})
    if (streams_[name].until <= now_) end_piece(name);
  start_pieces();
}

double StepSimulation::run() {
  while (std::ranges::any_of(batches_, [](const MicroBatch& m) { return m.took < 0; })) advance();
  double all = 0;
  for (const MicroBatch& m : batches_) all += m.took;
  return all / static_cast<double>(batches_.size());
}

}  // namespace

double step_seconds(const PipelineStep& step) {
  return StepSimulation(step).run();
}

}  // namespace tandem
