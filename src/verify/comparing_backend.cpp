// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "verify/comparing_backend.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/format.h"
#include "ops/forwarding.h"
#include "ops/page_format.h"
#include "ops/reference/reference_backend.h"
#include "verify/operator_comparison.h"

namespace tandem {

namespace {

constexpr std::int64_t kRowsMax = 8;     // compared of an operator
constexpr std::size_t kExpertsMax = 16;  // compared of a grouped product
constexpr std::size_t kHeadsMax = 8;     // compared of a product by heads

// Sums of products in f32, in another order; an exponential of a few terms. Differences grow with the root of a sum's
// length, and are some 1e-6 of its largest result at a length of ten thousand.
constexpr double kSumLimit = 1e-4;
constexpr double kExactLimit = 1e-6;  // of what is only widened
// FP8 products keep some 14 bits of a sum; where a result is rounded in between, a value beside a border moves a step.
constexpr double kFp8Limit = 1e-2, kFp8RoundedLimit = 0.1;

// Rows of a tensor in memory of their own.
struct HostRows {
  std::vector<std::byte> bytes;
  Tensor view;

  explicit operator bool() const { return static_cast<bool>(view); }
};

HostRows host_rows(DType dtype, std::int64_t rows, std::int64_t columns) {
  HostRows out;
  out.bytes.resize(static_cast<std::size_t>(rows) * row_bytes(dtype, static_cast<std::size_t>(columns)));
  out.view = Tensor(out.bytes.data(), dtype, {rows, columns});
  return out;
}

double relative_difference(const Tensor& measured, const Tensor& reference) {
  double largest = 0, size = 0;
  for (std::int64_t row = 0; row < reference.rows(); ++row) {
    for (std::int64_t column = 0; column < reference.shape[1]; ++column) {
      const double expected = reference.f32()[row * reference.row_stride + column];
      const double difference = std::abs(measured.f32()[row * measured.row_stride + column] - expected);
      if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
      largest = std::max(largest, difference);
      size = std::max(size, std::abs(expected));
    }
  }
  return largest == 0 ? 0 : largest / std::max<double>(size, std::numeric_limits<float>::min());
}

// The columns of out that a sample stands for.
HostRows columns_of(const Tensor& out, std::span<const std::int64_t> columns, std::int64_t first = 0) {
  HostRows picked = host_rows(DType::kF32, out.rows(), std::ssize(columns));
  for (std::int64_t row = 0; row < out.rows(); ++row)
    for (std::size_t c = 0; c < columns.size(); ++c)
      picked.view.f32()[row * std::ssize(columns) + static_cast<std::int64_t>(c)] =
          out.f32()[row * out.row_stride + first + columns[c]];
  return picked;
}

class ComparingBackend final : public ForwardingBackend {
 public:
  ComparingBackend(std::unique_ptr<Backend> inner, OperatorComparison& comparison)
      : ForwardingBackend(std::move(inner)), comparison_(comparison), reference_(make_reference_backend()) {}

  std::unique_ptr<Weight> pack(const WeightSource& source) override {
    std::unique_ptr<Weight> packed = ForwardingBackend::pack(source);
    if (source.n() > 0 && source.k > 0) comparison_.remember(packed.get(), source);
    return packed;
  }

  void run(const Operator& op) override {
    if (!comparison_.on() || tandem::rows(op) == 0) return ForwardingBackend::run(op);
    std::visit([this](const auto& o) { compare(o); }, op);
  }

 private:
  // What is not among those below is run and not compared.
  template <class Op>
  void compare(const Op& op) {
    inner().run(op);
  }
  void compare(const EmbedRows& op);
  void compare(const RmsNorm& op);
  void compare(const AddRmsNorm& op);
  void compare(const MatMul& op);
  void compare(const GroupedMatMul& op);
  void compare(const Int8MatMul& op);
  void compare(const Int8GroupedMatMul& op);
  void compare(const Fp8MatMul& op);
  void compare(const Fp8Experts& op);
  void compare(const Rope& op);
  void compare(const ProjectHeads& op);
  void compare(const GateHeads& op);
  void compare(const PagedAttention& op);
  void compare(const SwiGlu& op);
  void compare(const SelectExperts& op);

  // The rows from first on, or all of a vector; nothing where there are no data.
  HostRows fetch(const Tensor& tensor, std::int64_t first);
  HostRows fetch_all(const Tensor& tensor) { return fetch(tensor, 0); }
  template <class Product>
  void compare_whole(const std::string& name, double limit, const Product& op);
  template <class Product, class Grouped>
  void compare_grouped(const std::string& name, const Grouped& op);
  template <class Product = MatMul>
  void compare_product(const std::string& name, double limit, const Weight* weight, const Tensor& x, const Tensor& out,
                       std::int64_t out_column, const KSlices& slices);
  std::unique_ptr<KvCache> copy_blocks(const KvCache& cache, const Tensor& table);
  std::string product_name(const Weight& weight) const;
  static std::int64_t first_of(const Tensor& tensor) { return std::max<std::int64_t>(tensor.rows() - kRowsMax, 0); }

  OperatorComparison& comparison_;
  std::unique_ptr<Backend> reference_;
};

HostRows ComparingBackend::fetch(const Tensor& tensor, std::int64_t first) {
  if (!tensor) return {};
  const bool is_vector = tensor.shape.rank == 1;
  const std::int64_t rows = is_vector ? 1 : tensor.rows() - first,
                     columns = is_vector ? tensor.shape[0] - first : tensor.shape[1];
  HostRows out = host_rows(tensor.dtype, rows, columns);
  const std::size_t bytes = row_bytes(tensor.dtype, static_cast<std::size_t>(columns));
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t begin = is_vector ? first : (first + row) * tensor.row_stride;
    inner().copy(out.bytes.data() + static_cast<std::size_t>(row) * bytes,
                 tensor.as<std::byte>() + row_bytes(tensor.dtype, static_cast<std::size_t>(begin)), bytes);
  }
  inner().synchronise();
  if (is_vector) out.view = Tensor(out.bytes.data(), tensor.dtype, {columns});
  return out;
}

void ComparingBackend::compare(const EmbedRows& op) {
  inner().run(op);
  const HostRows ids = fetch_all(op.ids), out = fetch_all(op.out);
  const auto table =
      comparison_.rows_of(op.table, {ids.view.as<std::int32_t>(), static_cast<std::size_t>(op.out.rows())});
  if (!table) return;
  HostRows rows = host_rows(DType::kI32, 1, op.out.rows()),
           expected = host_rows(DType::kF32, op.out.rows(), op.out.shape[1]);
  for (std::int32_t i = 0; i < op.out.rows(); ++i) rows.view.as<std::int32_t>()[i] = i;
  rows.view = Tensor(rows.bytes.data(), DType::kI32, {op.out.rows()});
  reference_->run(EmbedRows{expected.view, table.get(), rows.view});
  comparison_.add("embedding", kExactLimit, relative_difference(out.view, expected.view));
}

void ComparingBackend::compare(const RmsNorm& op) {
  const HostRows x = fetch(op.x, first_of(op.x)), weight = fetch_all(op.weight);
  inner().run(op);
  const HostRows out = fetch(op.out, first_of(op.out));
  HostRows expected = host_rows(DType::kF32, out.view.rows(), out.view.shape[1]);
  reference_->run(RmsNorm{expected.view, x.view, weight.view, op.eps});
  comparison_.add("norm", kSumLimit, relative_difference(out.view, expected.view));
}

void ComparingBackend::compare(const AddRmsNorm& op) {
  const HostRows x = fetch(op.x, first_of(op.x)), sum = fetch(op.residual, first_of(op.x)),
                 weight = fetch_all(op.weight);
  inner().run(op);
  const HostRows out = fetch(op.out, first_of(op.x)), residual = fetch(op.residual, first_of(op.x));
  HostRows expected = host_rows(DType::kF32, out.view.rows(), out.view.shape[1]);
  reference_->run(AddRmsNorm{expected.view, sum.view, x.view, weight.view, op.eps});
  comparison_.add("norm", kSumLimit, relative_difference(out.view, expected.view));
  if (op.out.data != op.residual.data)  // else nobody needs the sum, and it is gone
    comparison_.add("residual sum", kExactLimit, relative_difference(residual.view, sum.view));
}

std::string ComparingBackend::product_name(const Weight& weight) const {
  if (weight.n() == comparison_.model().vocab) return "head";
  return weight.n() == comparison_.model().experts ? "router" : "projection";
}

template <class Product>
void ComparingBackend::compare_product(const std::string& name, double limit, const Weight* weight, const Tensor& x,
                                       const Tensor& out, std::int64_t out_column, const KSlices& slices) {
  const SampledWeight sample = comparison_.sample(weight);
  const HostRows measured = columns_of(out, sample.outputs, out_column);
  HostRows expected = host_rows(DType::kF32, x.rows(), std::ssize(sample.outputs));
  reference_->run(Product{expected.view, x, sample.weight.get(), slices});
  comparison_.add(name, limit, relative_difference(measured.view, expected.view));
}

// MatMul, Int8MatMul or Fp8MatMul.
template <class Product>
void ComparingBackend::compare_whole(const std::string& name, double limit, const Product& op) {
  const HostRows x = fetch(op.x, first_of(op.x));
  inner().run(op);
  if (op.weight->n() == 0 || op.weight->k() == 0) return;
  const HostRows out = fetch(op.out, first_of(op.out));
  compare_product<Product>(name, limit, op.weight, x.view, out.view, 0, op.slices);
}

void ComparingBackend::compare(const MatMul& op) {
  compare_whole(product_name(*op.weight), kSumLimit, op);
}

// Codes are the same everywhere, so that sums are as near as those of f32.
void ComparingBackend::compare(const Int8MatMul& op) {
  compare_whole(product_name(*op.weight) + " in int8", kSumLimit, op);
}

void ComparingBackend::compare(const Fp8MatMul& op) {
  compare_whole("projection in fp8", kFp8Limit, op);
}

void ComparingBackend::compare(const GroupedMatMul& op) {
  compare_grouped<MatMul>("experts", op);
}

void ComparingBackend::compare(const Int8GroupedMatMul& op) {
  compare_grouped<Int8MatMul>("experts in int8", op);
}

template <class Product, class Grouped>
void ComparingBackend::compare_grouped(const std::string& name, const Grouped& op) {
  const HostRows x = fetch_all(op.x), offsets = fetch_all(op.offsets);
  inner().run(op);
  const HostRows out = fetch_all(op.out);
  const auto* at = offsets.view.as<std::int32_t>();
  std::size_t compared = 0;
  for (std::size_t e = 0; e < op.experts.size() && compared < kExpertsMax; ++e) {
    const std::int64_t count = std::min<std::int64_t>(at[e + 1] - at[e], kRowsMax);
    if (count == 0 || op.experts[e]->n() == 0 || op.experts[e]->k() == 0) continue;
    compare_product<Product>(name, kSumLimit, op.experts[e], x.view.slice_rows(at[e], count),
                             out.view.slice_rows(at[e], count), 0, op.slices);
    ++compared;
  }
}

// The last slot whose expert is held, and some outputs of its expert.
void ComparingBackend::compare(const Fp8Experts& op) {
  const HostRows x = fetch_all(op.x), ids = fetch_all(op.expert_ids), weights = fetch_all(op.expert_weights);
  inner().run(op);
  const auto* id = ids.view.as<std::int32_t>();
  const auto held = static_cast<std::int32_t>(op.gate_up.size());
  std::int64_t slot = ids.view.shape.elements() - 1;
  while (slot >= 0 && (id[slot] < op.begin || id[slot] >= op.begin + held)) --slot;
  if (slot < 0) return;
  const std::int32_t expert = id[slot] - op.begin;
  std::vector<std::int32_t> all(static_cast<std::size_t>(op.gate_up[expert]->n()));
  std::iota(all.begin(), all.end(), 0);
  const auto gate_up = comparison_.rows_of(op.gate_up[expert], all);
  if (!gate_up) return;
  const SampledWeight down = comparison_.sample(op.down[expert]);
  const Weight *gate_ups[] = {gate_up.get()}, *downs[] = {down.weight.get()};
  const std::int64_t row = slot / ids.view.shape[1];
  HostRows expected = host_rows(DType::kF32, 1, op.out.shape[1]);  // of which only the sampled outputs are made
  std::int32_t first = 0;
  reference_->run(Fp8Experts{.out = expected.view,
                             .x = x.view.slice_rows(row, 1),
                             .expert_ids = Tensor(&first, DType::kI32, {1, 1}),
                             .expert_weights = Tensor(weights.view.f32() + slot, DType::kF32, {1, 1}),
                             .gate_up = gate_ups,
                             .down = downs,
                             .begin = 0});
  const HostRows out = fetch(op.out, op.out.rows() - 1);
  comparison_.add("experts in fp8", kFp8RoundedLimit,
                  relative_difference(columns_of(out.view, down.outputs).view,
                                      expected.view.slice_columns(0, std::ssize(down.outputs))));
}

void ComparingBackend::compare(const Rope& op) {
  const std::int64_t first = first_of(op.x);
  const HostRows x = fetch(op.x, first), positions = fetch(op.positions, first), inv_freq = fetch_all(op.inv_freq);
  inner().run(op);
  const HostRows out = fetch(op.x, first);
  Rope reference = op;
  reference.x = x.view;
  reference.positions = positions.view;
  reference.inv_freq = inv_freq.view;
  reference_->run(reference);
  comparison_.add("rotation", kSumLimit, relative_difference(out.view, x.view));
}

void ComparingBackend::compare(const ProjectHeads& op) {
  const HostRows x = fetch(op.x, first_of(op.x));
  inner().run(op);
  const HostRows out = fetch(op.out, first_of(op.out));
  const auto heads = std::ssize(op.weights);
  const std::int64_t in_columns = op.x.shape[1] / heads, out_columns = op.out.shape[1] / heads;
  for (std::size_t h = 0; h < std::min(op.weights.size(), kHeadsMax); ++h) {
    const auto head = static_cast<std::int64_t>(h);
    compare_product("projection by heads", kSumLimit, op.weights[h],
                    x.view.slice_columns(head * in_columns, op.weights[h]->k()), out.view, head * out_columns,
                    KSlices::whole(op.weights[h]->k()));
  }
}

void ComparingBackend::compare(const GateHeads& op) {
  const HostRows x = fetch(op.x, first_of(op.x)), gates = fetch(op.gates, first_of(op.x));
  inner().run(op);
  const HostRows out = fetch(op.x, first_of(op.x));
  reference_->run(GateHeads{x.view, gates.view});
  comparison_.add("gates of heads", kSumLimit, relative_difference(out.view, x.view));
}

// table names blocks of the cache; it is changed to name those of the copy.
std::unique_ptr<KvCache> ComparingBackend::copy_blocks(const KvCache& cache, const Tensor& table) {
  std::vector<std::int32_t> blocks;
  for (std::int64_t i = 0; i < table.shape.elements(); ++i) {
    std::int32_t& block = table.as<std::int32_t>()[i];
    if (block < 0 || block >= cache.spec().blocks) {
      block = 0;  // not read: the sequence ends before, or its window begins behind
      continue;
    }
    const auto found = std::ranges::find(blocks, block);
    const auto index = static_cast<std::int32_t>(found - blocks.begin());
    if (found == blocks.end()) blocks.push_back(block);
    block = index;
  }
  KvSpec spec = cache.spec();
  spec.blocks = std::ssize(blocks);
  std::unique_ptr<KvCache> copy = reference_->make_kv_cache(spec);
  std::vector<std::byte> page(page_bytes(spec));
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    inner().export_page(cache, blocks[i], page);
    reference_->import_page(*copy, static_cast<std::int32_t>(i), page);
  }
  return copy;
}

void ComparingBackend::compare(const PagedAttention& op) {
  const std::int64_t first = first_of(op.q);
  const HostRows q = fetch(op.q, first), sequences = fetch(op.sequences, first), positions = fetch(op.positions, first);
  const HostRows table = fetch_all(op.block_table);
  inner().run(op);
  const HostRows out = fetch(op.out, first);
  inner().synchronise();
  const std::unique_ptr<KvCache> cache = copy_blocks(*op.cache, table.view);
  HostRows expected = host_rows(DType::kF32, out.view.rows(), out.view.shape[1]);
  PagedAttention reference = op;
  reference.out = expected.view;
  reference.q = q.view;
  reference.block_table = table.view;
  reference.sequences = sequences.view;
  reference.positions = positions.view;
  reference.cache = cache.get();
  reference_->run(reference);
  comparison_.add("attention", kSumLimit, relative_difference(out.view, expected.view));
}

void ComparingBackend::compare(const SwiGlu& op) {
  const HostRows gate_up = fetch(op.gate_up, first_of(op.gate_up));
  inner().run(op);
  const HostRows out = fetch(op.out, first_of(op.out));
  HostRows expected = host_rows(DType::kF32, out.view.rows(), out.view.shape[1]);
  reference_->run(SwiGlu{expected.view, gate_up.view, op.limit});
  comparison_.add("gated activation", kSumLimit, relative_difference(out.view, expected.view));
}

void ComparingBackend::compare(const SelectExperts& op) {
  const std::int64_t first = first_of(op.logits);
  const HostRows logits = fetch(op.logits, first), bias = fetch_all(op.bias);
  inner().run(op);
  const HostRows ids = fetch(op.expert_ids, first), weights = fetch(op.expert_weights, first);
  const std::int64_t rows = ids.view.rows(), k = ids.view.shape[1];
  HostRows expected_ids = host_rows(DType::kI32, rows, k), expected = host_rows(DType::kF32, rows, k);
  SelectExperts reference = op;
  reference.expert_ids = expected_ids.view;
  reference.expert_weights = expected.view;
  reference.logits = logits.view;
  reference.bias = bias.view;
  reference_->run(reference);
  // Given the same logits the choice is the same, to the order.
  const bool same = ids.bytes == expected_ids.bytes;
  comparison_.add("choice of experts", kSumLimit,
                  same ? relative_difference(weights.view, expected.view) : std::numeric_limits<double>::infinity());
}

}  // namespace

std::unique_ptr<Backend> make_comparing_backend(std::unique_ptr<Backend> inner, OperatorComparison& comparison) {
  return std::make_unique<ComparingBackend>(std::move(inner), comparison);
}

}  // namespace tandem
