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

struct Product {
  const Tensor& out;
  const Tensor& x;
  const KSlices& slices;
};

// Panels [begin, end) of a piece, segment by segment.
void run_panels(const Kernels& kernels, const Product& product, const Piece& piece, std::int64_t begin,
                std::int64_t end, float* scratch) {
  std::int64_t first = 0;  // panel of the segment
  for (const Segment& segment : piece.weight->segments()) {
    const std::int64_t from = std::max(begin - first, std::int64_t{0});
    const std::int64_t to = std::min(end - first, segment.panels);
    first += segment.panels;
    if (from >= to) continue;
    ProductShare share;
    share.dtype = segment.dtype;
    share.panels = piece.weight->panel(segment, from);
    share.panel_bytes = static_cast<std::int64_t>(segment.panel_bytes);
    share.columns = std::min(to * kPanelColumns, segment.columns) - from * kPanelColumns;
    share.bounds = product.slices.bounds.data();
    share.slices = product.slices.count;
    share.x = product.x.row<float>(piece.row_begin) + piece.x_column;
    share.x_stride = product.x.row_stride;
    share.out =
        product.out.row<float>(piece.row_begin) + piece.out_column + segment.first_column + from * kPanelColumns;
    share.out_stride = product.out.row_stride;
    share.rows = piece.rows();
    share.scratch = scratch;
    kernels.product(share);
  }
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
  const auto part = [&](int thread) {
    const std::int64_t begin = total * thread / threads, end = total * (thread + 1) / threads;
    float* scratch = machine.scratch(thread, kProductScratchFloats);
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
      if (from < to) run_panels(machine.kernels, product, piece, from, to, scratch);
      done += cost * piece.weight->panels();
    }
  };
  if (threads == 1)
    part(0);
  else
    machine.team.run(part);
}

}  // namespace

void run(Machine& machine, const MatMul& op) {
  const PackedWeight& weight = packed(op.weight);
  // Rows are divided too when there are fewer than four panels for each thread.
  std::int64_t parts = 1;
  while (weight.panels() * parts < 4 * machine.team.threads() && op.x.rows() / (2 * parts) >= 16) parts *= 2;
  run_pieces(machine, {op.out, op.x, op.slices}, parts,
             [&](std::int64_t i) { return Piece{&weight, op.x.rows() * i / parts, op.x.rows() * (i + 1) / parts}; });
}

void run(Machine& machine, const GroupedMatMul& op) {
  const auto* offsets = op.offsets.as<const std::int32_t>();
  run_pieces(machine, {op.out, op.x, op.slices}, static_cast<std::int64_t>(op.experts.size()),
             [&](std::int64_t i) { return Piece{&packed(op.experts[i]), offsets[i], offsets[i + 1]}; });
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
