// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Operators of a running model, run once more by the reference backend: the same inputs, the weights read again from
// the checkpoint. Whatever a backend does with a weight or a row shows as a difference, in any model and on any device.
//
// Products are compared in some of their outputs and every operator in its last rows, so that the reference, which is
// slow, costs little: rows and outputs do not depend on each other.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/config.h"
#include "ops/backend.h"

namespace tandem {

// All operators of one kind.
struct ComparedOperator {
  std::string name;           // "projection", "attention"
  std::int64_t compared = 0;  // times
  double largest = 0;  // of |difference| over the largest value of the reference; infinite where one is not finite
  double limit = 0;

  bool passed() const { return largest <= limit; }
};

// Some outputs of a packed weight, for the reference.
struct SampledWeight {
  std::vector<std::int64_t> outputs;  // which of the weight's n
  std::shared_ptr<const Weight> weight;
};

// Shared by the backends of an engine, each of which has a thread of its own. Must outlive them.
class OperatorComparison {
 public:
  OperatorComparison(const Checkpoint& checkpoint, const ModelConfig& model);

  // A backend that compares while comparing is on, and passes everything on otherwise.
  std::unique_ptr<Backend> wrap(std::unique_ptr<Backend> inner);
  void compare(bool on) { on_ = on; }
  bool on() const { return on_; }
  // In the order in which kinds were first met. After comparing was turned off.
  std::vector<ComparedOperator> results() const;

  // For the backends.
  void remember(const Weight* packed, const WeightSource& source);
  SampledWeight sample(const Weight* packed) const;
  // The weight with only these of its outputs; null where the source is gone.
  std::shared_ptr<const Weight> rows_of(const Weight* packed, std::span<const std::int32_t> rows) const;
  void add(const std::string& name, double limit, double difference);
  const ModelConfig& model() const { return model_; }

 private:
  bool is_mapped(const std::byte* data) const;

  const ModelConfig model_;
  std::vector<std::span<const std::byte>> files_;
  std::atomic<bool> on_{false};
  mutable std::mutex mutex_;                        // guards all below
  std::map<const Weight*, WeightSource> sources_;   // whose data are in the files
  std::map<const Weight*, SampledWeight> sampled_;  // of others, taken when they were packed
  std::vector<ComparedOperator> results_;
};

}  // namespace tandem
