// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How a model file gets its weights. The same code runs twice: once to declare, which only records what the model
// needs, so that everything missing, extra or misshapen is reported together and parameters can be counted; once to
// load.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/tensor_requirements.h"
#include "ops/backend.h"

namespace tandem {

enum class Part {
  kEmbedding,
  kAttention,
  kNorm,
  kRouter,
  kExperts,
  kSharedExpert,
  kDenseFfn,
  kHead,
  kVision,
  kProjector
};
std::string_view name(Part part);

struct PartSize {
  std::int64_t parameters = 0;
  std::int64_t bytes = 0;  // as stored in the checkpoint, or as assumed where it holds no weights
};
using PartSizes = std::map<Part, PartSize>;
std::int64_t total_bytes(const PartSizes& parts);

// How the weights of a checkpoint that has only a configuration would be stored. kFp8: E4M3 with one f32 scale per
// 128×128 block for the matrices of attention and feed-forward, bf16 for everything else.
enum class AssumedPrecision { kBf16, kFp8 };

// What a model asked a tensor for.
struct TensorRole {
  Part part;
  float added = 0;  // to what is stored (WeightReader::vector)
};

// Told after each tensor how many stored bytes of it were read.
using LoadListener = std::function<void(std::int64_t bytes)>;

// A named tensor and the range of it that is wanted. Experts are stacked on a leading axis; all axes but the first of
// any other tensor together are its columns (a convolution's weights).
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
  explicit WeightReader(const Checkpoint& checkpoint, AssumedPrecision assumed = AssumedPrecision::kBf16);
  // Loads.
  WeightReader(const Checkpoint& checkpoint, Backend& backend, LoadListener listener);

  // From here on linear layers may be stored as E4M3 with scales in a tensor of their name and "_scale_inv".
  void accept_block_fp8() { accepts_block_fp8_ = true; }

  // Parts stacked along the output rows into one packed matrix.
  std::unique_ptr<Weight> matrix(Part part, const std::vector<WeightName>& parts);
  // A tensor or range with rows and columns exchanged: [columns, rows]. Keeps the type of the file where its blocks can
  // be exchanged too (E4M3 from a row that begins a block); is f32 where they cannot.
  std::unique_ptr<Weight> transposed(Part part, const WeightName& w);
  // The multiple at which the width of a gated FFN may be cut into slices: 32, the quantisation blocks of down's
  // columns, or those of FP8, where the file may have such (accept_block_fp8).
  std::int64_t slice_granule(const std::string& down) const;
  // Throws Error{kUnsupported} where the backend cannot multiply by count weights, things, at once; of: the first one's
  // name.
  void check_count(const std::string& of, std::int64_t count, const char* things) const;
  // A vector, widened to f32, plus added.
  Buffer vector(Part part, const std::string& name, std::int64_t elements, float added = 0) {
    return values(part, name, Shape{elements}, added);
  }
  // The same of a tensor of any shape.
  Buffer values(Part part, const std::string& name, const Shape& shape, float added = 0) {
    return constant(numbers(part, name, shape, added));
  }
  // The same for the host to compute with; declaring, none.
  std::vector<float> numbers(Part part, const std::string& name, const Shape& shape, float added = 0);
  // Whether the file has a tensor of this name; for one that comes in several forms.
  bool has(const std::string& name) const { return checkpoint_.find(name) != nullptr; }
  // Values that are computed, not read, where operators can use them.
  Buffer constant(std::span<const float> values);

  const TensorRequirements& requirements() const { return requirements_; }
  // Of requirements().required, one by one.
  const std::vector<TensorRole>& roles() const { return roles_; }
  // Declared so far: size of all ranges asked for.
  const PartSizes& parts() const { return parts_; }
  // Loaded so far: memory of packed weights.
  std::int64_t bytes_packed() const { return bytes_packed_; }
  // Scales are no parameters.
  static bool is_scale(const std::string& name) { return name.ends_with("_scale_inv"); }
  void ignore(const std::string& pattern) { requirements_.ignored.push_back(pattern); }

 private:
  // rows · columns of the tensor are wanted; a vector is one row.
  void declare(TensorRole role, const std::string& name, const Shape& shape, std::vector<DType> dtypes,
               std::int64_t rows, std::int64_t columns);
  void declare_matrix(Part part, const WeightName& w);
  bool is_block_fp8(const std::string& name) const;
  std::int64_t add_part(WeightSource& source, const WeightName& w) const;
  void release(const WeightName& w) const;
  void count_done(std::int64_t bytes) const;

  const Checkpoint& checkpoint_;
  AssumedPrecision assumed_ = AssumedPrecision::kBf16;
  Backend* backend_ = nullptr;  // null: declaring
  bool accepts_block_fp8_ = false;
  LoadListener listener_;
  TensorRequirements requirements_;
  std::vector<TensorRole> roles_;
  std::set<std::string> declared_;
  PartSizes parts_;
  std::int64_t bytes_packed_ = 0;
};

}  // namespace tandem
