// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/traced.h"

#include "ops/forwarding.h"

namespace tandem {

namespace {

class TracedBackend final : public ForwardingBackend {
 public:
  TracedBackend(std::unique_ptr<Backend> inner, const Clock& clock, TraceSink sink)
      : ForwardingBackend(std::move(inner)), clock_(clock), sink_(std::move(sink)) {}

  void run(const Operator& op) override {
    const Nanoseconds begin = clock_.now();
    ForwardingBackend::run(op);
    ForwardingBackend::synchronise();
    sink_({name(op), rows(op), work(op), begin, clock_.now()});
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
