// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "verify/operator_comparison.h"

#include <algorithm>
#include <limits>
#include <set>

#include "ops/reference/reference_backend.h"
#include "verify/comparing_backend.h"

namespace tandem {

namespace {

constexpr std::int64_t kOutputsMax = 48;     // compared of a product
constexpr std::int64_t kKeptOutputsMax = 8;  // of a weight whose source does not last

// The first, the last and others between them, at uneven distances.
std::vector<std::int64_t> spread(std::int64_t n, std::int64_t count) {
  std::set<std::int64_t> chosen;
  for (std::int64_t i = 0; i < std::min(n, count); ++i)
    chosen.insert(n <= count ? i : std::min(n - 1, i * (n - 1) / (count - 1) + (i + 1 < count ? i * 7 % 11 : 0)));
  return {chosen.begin(), chosen.end()};
}

// The same matrix with only these rows.
WeightSource rows_of_source(const WeightSource& source, std::span<const std::int64_t> rows) {
  WeightSource reduced;
  reduced.k = source.k;
  for (const std::int64_t row : rows) {
    std::int64_t first = 0;
    std::size_t p = 0;
    while (row - first >= source.parts[p].rows) first += source.parts[p++].rows;
    WeightPart part = source.parts[p];
    part.row_order = {static_cast<std::int32_t>(part.source_row(row - first))};
    part.rows = 1;
    reduced.parts.push_back(std::move(part));
  }
  return reduced;
}

SampledWeight sampled(const WeightSource& source, std::int64_t count) {
  SampledWeight result;
  result.outputs = spread(source.n(), count);
  result.weight = make_reference_backend()->pack(rows_of_source(source, result.outputs));
  return result;
}

}  // namespace

OperatorComparison::OperatorComparison(const Checkpoint& checkpoint, const ModelConfig& model) : model_(model) {
  std::set<const std::byte*> seen;
  for (const TensorInfo& info : checkpoint.tensors())
    if (const auto bytes = checkpoint.file(info).bytes(); seen.insert(bytes.data()).second) files_.push_back(bytes);
}

std::unique_ptr<Backend> OperatorComparison::wrap(std::unique_ptr<Backend> inner) {
  return make_comparing_backend(std::move(inner), *this);
}

bool OperatorComparison::is_mapped(const std::byte* data) const {
  return std::ranges::any_of(files_, [&](std::span<const std::byte> file) {
    return !std::less<>()(data, file.data()) && std::less<>()(data, file.data() + file.size());
  });
}

void OperatorComparison::remember(const Weight* packed, const WeightSource& source) {
  const bool lasts = std::ranges::all_of(source.parts, [&](const WeightPart& part) { return is_mapped(part.data); });
  SampledWeight now = lasts ? SampledWeight() : sampled(source, kKeptOutputsMax);
  std::lock_guard lock(mutex_);
  sources_.erase(packed);  // of a weight that is gone
  sampled_.erase(packed);
  if (lasts)
    sources_.emplace(packed, source);
  else
    sampled_.emplace(packed, std::move(now));
}

SampledWeight OperatorComparison::sample(const Weight* packed) const {
  std::lock_guard lock(mutex_);
  if (const auto kept = sampled_.find(packed); kept != sampled_.end()) return kept->second;
  return sampled(sources_.at(packed), kOutputsMax);
}

std::shared_ptr<const Weight> OperatorComparison::rows_of(const Weight* packed,
                                                          std::span<const std::int32_t> rows) const {
  std::lock_guard lock(mutex_);
  const auto source = sources_.find(packed);
  if (source == sources_.end()) return nullptr;
  const std::vector<std::int64_t> wanted(rows.begin(), rows.end());
  return make_reference_backend()->pack(rows_of_source(source->second, wanted));
}

void OperatorComparison::add(const std::string& name, double limit, double difference) {
  std::lock_guard lock(mutex_);
  auto found = std::ranges::find(results_, name, &ComparedOperator::name);
  if (found == results_.end()) found = results_.insert(results_.end(), {name, 0, 0, limit});
  ++found->compared;
  found->largest = std::max(found->largest, difference);
}

std::vector<ComparedOperator> OperatorComparison::results() const {
  std::lock_guard lock(mutex_);
  return results_;
}

}  // namespace tandem
