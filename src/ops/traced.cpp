// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/traced.h"

#include "ops/forwarding.h"

namespace tandem {

namespace {

// The weight that an operator multiplies by, the first of several; null where there is none.
const Weight* weight_of(const Operator& op) {
  return std::visit(
      []<class Op>(const Op& o) -> const Weight* {
        if constexpr (std::same_as<Op, MatMul> || std::same_as<Op, Fp8MatMul> || std::same_as<Op, Int8MatMul>)
          return o.weight;
        else if constexpr (std::same_as<Op, GroupedMatMul> || std::same_as<Op, Int8GroupedMatMul>)
          return o.experts.empty() ? nullptr : o.experts.front();
        else if constexpr (std::same_as<Op, ProjectHeads>)
          return o.weights.front();
        else
          return nullptr;
      },
      op);
}

class TracedBackend final : public ForwardingBackend {
 public:
  TracedBackend(std::unique_ptr<Backend> inner, const Clock& clock, TraceSink sink)
      : ForwardingBackend(std::move(inner)), clock_(clock), sink_(std::move(sink)) {}

  void run(const Operator& op) override {
    const Nanoseconds begin = clock_.now();
    ForwardingBackend::run(op);
    ForwardingBackend::synchronise();
    const Nanoseconds end = clock_.now();
    const Weight* weight = weight_of(op);
    sink_({name(op), rows(op), weight ? weight->n() : 0, weight ? weight->k() : 0, work(op), begin, end});
  }

 private:
  const Clock& clock_;
  TraceSink sink_;
};

}  // namespace

std::unique_ptr<Backend> make_traced_backend(std::unique_ptr<Backend> inner, const Clock& clock, TraceSink sink) {
  return std::make_unique<TracedBackend>(std::move(inner), clock, std::move(sink));
}

}  // namespace tandem
