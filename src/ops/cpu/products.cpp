// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Products: who computes which panels for which rows. The sums are in product-inl.h.
//
// A product is a list of pieces, each a weight and a range of rows: one per expert or head, or one per part of the rows
// when a weight has too few panels to go round. Threads take consecutive panels of that list, of about equal cost.
#include <algorithm>
#include <span>

#include "ops/cpu/machine.h"
#include "ops/cpu/packed_weight.h"
#include "ops/cpu/rounded_rows.h"
#include "ops/cpu/term_rows.h"

namespace tandem::cpu {

namespace {

struct Piece {
  const PackedWeight* weight;
  std::int64_t row_begin, row_end;
  std::int64_t x_column = 0, out_column = 0;  // where its columns begin

  std::int64_t rows() const { return row_end - row_begin; }
  // Of one panel, in rows; reading and unpacking the panel counts as a few. Nothing is read for no rows.
  std::int64_t panel_cost() const { return rows() == 0 ? 0 : rows() + 4; }
};

// What rows of x are made into, once for all panels. Of a product in terms, panels that do not take them go by x
// itself.
enum class Form { kPlain, kInt8, kTerms };

struct Product {
  const Tensor& out;
  const Tensor& x;
  const KSlices& slices;
  Form form = Form::kPlain;

  // Of a row in that form.
  std::int64_t blocks() const {
    if (form == Form::kInt8) return x.shape[1] / kRoundedBlock;
    std::int64_t sum = 0;
    for (int i = 0; i < slices.count; ++i) {
      const auto at = static_cast<std::size_t>(i);
      sum += term_blocks(slices.bounds[at + 1] - slices.bounds[at]);
    }
    return sum;
  }
  std::int64_t row_bytes() const {
    if (form == Form::kPlain) return 0;
    return blocks() * (form == Form::kInt8 ? kRoundedBlockBytes : kTermBlockBytes);
  }
};

// What a thread works with.
struct Part {
  float* scratch;
  const std::byte* made;  // row 0 of x in the product's form
};

// What both kinds of a share have alike.
template <class Share>
Share share_of(const Segment& segment, const Product& product, const Piece& piece, std::int64_t from, std::int64_t to,
               float* scratch) {
  Share share;
  share.dtype = segment.dtype;
  share.panels = piece.weight->panel(segment, from);
  share.panel_bytes = static_cast<std::int64_t>(segment.panel_bytes);
  share.columns = std::min(to * kPanelColumns, segment.columns) - from * kPanelColumns;
  share.bounds = product.slices.bounds.data();
  share.slices = product.slices.count;
  share.out = product.out.row<float>(piece.row_begin) + piece.out_column + segment.first_column + from * kPanelColumns;
  share.out_stride = product.out.row_stride;
  share.rows = piece.rows();
  share.scratch = scratch;
  return share;
}

// Panels [begin, end) of a piece, segment by segment.
void run_panels(const Kernels& kernels, const Product& product, const Piece& piece, std::int64_t begin,
                std::int64_t end, const Part& part) {
  std::int64_t first = 0;  // panel of the segment
  for (const Segment& segment : piece.weight->segments()) {
    const std::int64_t from = std::max(begin - first, std::int64_t{0});
    const std::int64_t to = std::min(end - first, segment.panels);
    first += segment.panels;
    if (from >= to) continue;
    const bool is_int8 = product.form == Form::kInt8;
    if (is_int8 || (product.form == Form::kTerms && kernels.takes_terms(segment.dtype))) {
      auto share = share_of<MadeShare>(segment, product, piece, from, to, part.scratch);
      share.blocks = product.blocks();
      share.x = part.made + piece.row_begin * product.row_bytes();
      (is_int8 ? kernels.int8_product : kernels.term_product)(share);
    } else {
      auto share = share_of<ProductShare>(segment, product, piece, from, to, part.scratch);
      share.x = product.x.row<float>(piece.row_begin) + piece.x_column;
      share.x_stride = product.x.row_stride;
      kernels.product(share);
    }
  }
}

// Makes rows [begin, end) of x, where they belong among all that are made.
template <class PieceAt>
void make_rows(const Kernels& kernels, const Product& product, std::int64_t count, const PieceAt& piece_at,
               std::int64_t begin, std::int64_t end, std::byte* made) {
  const Tensor& x = product.x;
  const std::int64_t k = x.shape[1], blocks = product.blocks(), row_bytes = product.row_bytes();
  for (std::int64_t i = 0; i < count; ++i) {
    const Piece piece = piece_at(i);
    std::byte* first = made + piece.row_begin * row_bytes;
    for (std::int64_t row = std::max(piece.row_begin, begin); row < std::min(piece.row_end, end); ++row) {
      const std::int64_t in_piece = row - piece.row_begin;
      if (product.form == Form::kInt8)
        kernels.round_row(x.row<float>(row), blocks, rounded_row(first, k, piece.rows(), in_piece));
      else
        kernels.split_row(x.row<float>(row), product.slices.bounds.data(), product.slices.count,
                          term_row(first, blocks, piece.rows(), in_piece));
    }
  }
}

// Rows that each thread makes for itself cost less than waiting for others to do their part; in elements.
constexpr std::int64_t kMadeByEach = 8 * 1024;

// Where made rows are found by everybody, or null where each thread makes its own.
template <class PieceAt>
const std::byte* make_together(Machine& machine, const Product& product, std::int64_t count, const PieceAt& piece_at,
                               int threads) {
  const std::int64_t rows = product.x.rows();
  if (threads == 1 || rows * product.x.shape[1] <= kMadeByEach) return nullptr;
  std::byte* made = machine.shared(rows * product.row_bytes());
  machine.team.run([&](int thread) {
    make_rows(machine.kernels, product, count, piece_at, rows * thread / threads, rows * (thread + 1) / threads, made);
  });
  return made;
}

// piece_at(i) gives piece i of count.
template <class PieceAt>
void run_pieces(Machine& machine, const Product& product, std::int64_t count, const PieceAt& piece_at) {
  std::int64_t total = 0, multiply_adds = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const Piece piece = piece_at(i);
    total += piece.weight->panels() * piece.panel_cost();
    multiply_adds += piece.weight->n() * piece.weight->k() * piece.rows();
    const auto bounds = std::span(product.slices.bounds).first(static_cast<std::size_t>(product.slices.count) + 1);
    TANDEM_CHECK(std::ranges::all_of(bounds,
                                     [&](std::int32_t bound) {
                                       return bound % piece.weight->block() == 0 || bound == piece.weight->k();
                                     }),
                 "a slice of a quantised weight ends inside a block");
  }
  // Below this the caller is done before the team is awake.
  constexpr std::int64_t kWorthATeam = 64 * 1024;
  const int threads = multiply_adds < kWorthATeam ? 1 : machine.team.threads();
  const bool is_plain = product.form == Form::kPlain;
  const std::byte* together = is_plain ? nullptr : make_together(machine, product, count, piece_at, threads);
  const std::int64_t rows = product.x.rows();
  const std::int64_t own = together ? 0 : rows * product.row_bytes() / 4;
  const auto part = [&](int thread) {
    const std::int64_t begin = total * thread / threads, end = total * (thread + 1) / threads;
    float* scratch = machine.scratch(thread, kProductScratchFloats + own);
    auto* alone = reinterpret_cast<std::byte*>(scratch + kProductScratchFloats);
    if (own > 0) make_rows(machine.kernels, product, count, piece_at, 0, rows, alone);
    const Part mine{scratch, together ? together : alone};
    std::int64_t done = 0;  // cost of the pieces walked over
    for (std::int64_t i = 0; i < count && done < end; ++i) {
      const Piece piece = piece_at(i);
      const std::int64_t cost = piece.panel_cost();
      if (cost == 0) continue;
      // A panel is the thread's in whose stretch its cost begins.
      const auto panel_at = [&](std::int64_t limit) {
        return std::clamp((limit - done + cost - 1) / cost, std::int64_t{0}, piece.weight->panels());
      };
      const std::int64_t from = begin > done ? panel_at(begin) : 0;
      const std::int64_t to = panel_at(end);
      if (from < to) run_panels(machine.kernels, product, piece, from, to, mine);
      done += cost * piece.weight->panels();
    }
  };
  if (threads == 1)
    part(0);
  else
    machine.team.run(part);
}

bool takes_terms(const Kernels& kernels, const PackedWeight& weight) {
  return std::ranges::any_of(weight.segments(),
                             [&](const Segment& segment) { return kernels.takes_terms(segment.dtype); });
}

// By the weights alone: a row goes the same way in every batch, and a slice in every layout.
template <class Op>
Form form_of(const Kernels& kernels, std::span<const Weight* const> weights) {
  if (Int8Operator<Op>) return Form::kInt8;
  return kernels.takes_terms &&
                 std::ranges::any_of(weights, [&](const Weight* w) { return takes_terms(kernels, packed(w)); })
             ? Form::kTerms
             : Form::kPlain;
}

template <class Op>
void run_matmul(Machine& machine, const Op& op) {
  const PackedWeight& weight = packed(op.weight);
  // Rows are divided too when there are fewer than four panels for each thread.
  std::int64_t parts = 1;
  while (weight.panels() * parts < 4 * machine.team.threads() && op.x.rows() / (2 * parts) >= 16) parts *= 2;
  const Form form = form_of<Op>(machine.kernels, {&op.weight, 1});
  run_pieces(machine, {op.out, op.x, op.slices, form}, parts,
             [&](std::int64_t i) { return Piece{&weight, op.x.rows() * i / parts, op.x.rows() * (i + 1) / parts}; });
}

template <class Op>
void run_grouped(Machine& machine, const Op& op) {
  const auto* offsets = op.offsets.template as<const std::int32_t>();
  const Form form = form_of<Op>(machine.kernels, op.experts);
  run_pieces(machine, {op.out, op.x, op.slices, form}, static_cast<std::int64_t>(op.experts.size()),
             [&](std::int64_t i) { return Piece{&packed(op.experts[i]), offsets[i], offsets[i + 1]}; });
}

}  // namespace

void run(Machine& machine, const MatMul& op) {
  run_matmul(machine, op);
}

void run(Machine& machine, const GroupedMatMul& op) {
  run_grouped(machine, op);
}

void run(Machine& machine, const Int8MatMul& op) {
  run_matmul(machine, op);
}

void run(Machine& machine, const Int8GroupedMatMul& op) {
  run_grouped(machine, op);
}

void run(Machine& machine, const ProjectHeads& op) {
  const auto heads = static_cast<std::int64_t>(op.weights.size());
  const std::int64_t rows = op.x.rows(), k = op.weights.front()->k(), n = op.weights.front()->n();
  const std::int64_t x_head = op.x.shape[1] / heads, out_head = op.out.shape[1] / heads;
  const KSlices whole = KSlices::whole(k);
  run_pieces(machine, {op.out, op.x, whole}, heads,
             [&](std::int64_t h) { return Piece{&packed(op.weights[h]), 0, rows, h * x_head, h * out_head}; });
  if (x_head == k) return;
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t h = 0; h < heads; ++h)
      std::copy_n(op.x.row<float>(i) + h * x_head + k, x_head - k, op.out.row<float>(i) + h * out_head + n);
}

}  // namespace tandem::cpu
