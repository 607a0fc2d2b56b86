// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How a model file gets its weights. The same code runs twice: once to declare, which only records what the model
// needs, so that everything missing, extra or misshapen is reported together and parameters can be counted; once to
// load.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/tensor_requirements.h"
#include "ops/backend.h"

namespace tandem {

enum class Part { kEmbedding, kAttention, kNorm, kRouter, kExperts, kSharedExpert, kDenseFfn, kHead };
std::string_view name(Part part);

struct PartSize {
  std::int64_t parameters = 0;
  std::int64_t bytes = 0;  // as stored in the checkpoint
};

struct LoadProgress {
  std::int64_t bytes_done = 0;
  std::int64_t bytes_total = 0;  // of the tensors that this share reads
};
using LoadListener = std::function<void(const LoadProgress&)>;

// A named tensor and the range of it that is wanted. Experts are stacked on a leading axis.
struct WeightName {
  std::string name;
  Shape shape;                                     // as the file must have it
  std::int64_t row_begin = 0, row_end = -1;        // of the output rows; -1: to the end
  std::int64_t column_begin = 0, column_end = -1;  // of the input columns
  std::int64_t expert = -1;             // index on the leading axis of a [experts, n, k] tensor; -1: a plain [n, k]
  std::vector<std::int32_t> row_order;  // see WeightPart
};

class WeightReader {
 public:
  // Declares: every request is recorded, nothing is read, results are null. The checkpoint may lack what is asked for.
  explicit WeightReader(const Checkpoint& checkpoint);
  // Loads. total: bytes the listener is told to expect.
  WeightReader(const Checkpoint& checkpoint, Backend& backend, std::int64_t bytes_total, LoadListener listener);

  // From here on linear layers may be stored as E4M3 with scales in a tensor of their name and "_scale_inv".
  void accept_block_fp8() { accepts_block_fp8_ = true; }

  // Parts stacked along the output rows into one packed matrix.
  std::unique_ptr<Weight> matrix(Part part, const std::vector<WeightName>& parts);
  // A plain tensor or range with rows and columns exchanged: [columns, rows]. Kept as f32 where the file is quantised.
  std::unique_ptr<Weight> transposed(Part part, const WeightName& w);
  // The multiple at which the width of a gated FFN may be cut into slices: 32, or the quantisation blocks along it.
  std::int64_t slice_granule(const std::string& gate, const std::string& up, const std::string& down) const;
  // A vector, widened to f32.
  Buffer vector(Part part, const std::string& name, std::int64_t elements);
  // Values that are computed, not read, where operators can use them.
  Buffer constant(std::span<const float> values);

  const TensorRequirements& requirements() const { return requirements_; }
  // Declared so far: stored bytes of all ranges asked for.
  std::int64_t bytes_declared() const { return bytes_declared_; }
  // Loaded so far: memory of packed weights.
  std::int64_t bytes_packed() const { return bytes_packed_; }
  // The part that a declared tensor belongs to.
  Part part_of(const std::string& name) const { return part_of_.at(name); }
  // Scales are no parameters.
  static bool is_scale(const std::string& name) { return name.ends_with("_scale_inv"); }
  void ignore(const std::string& pattern) { requirements_.ignored.push_back(pattern); }

 private:
  // elements of those that the tensor has are wanted.
  void declare(Part part, const std::string& name, const Shape& shape, std::vector<DType> dtypes,
               std::int64_t elements);
  void declare_matrix(Part part, const WeightName& w);
  bool is_block_fp8(const std::string& name) const;
  std::int64_t add_part(WeightSource& source, const WeightName& w) const;
  void count_done(std::int64_t bytes);

  const Checkpoint& checkpoint_;
  Backend* backend_ = nullptr;  // null: declaring
  bool accepts_block_fp8_ = false;
  LoadProgress progress_;
  LoadListener listener_;
  TensorRequirements requirements_;
  std::int64_t bytes_declared_ = 0;
  std::int64_t bytes_packed_ = 0;
  std::map<std::string, Part> part_of_;
};

}  // namespace tandem
