// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A processor's backend that claims to be a device whose rows go to others without the host; its copies are made as
// late as can be (tests/transport/late_device.h).
#pragma once

#include <memory>
#include <utility>

#include "engine/settings/engine_config.h"
#include "ops/forwarding.h"
#include "tests/transport/late_device.h"

namespace tandem {

class LateBackend : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  bool host_memory() const override { return false; }
  void run(const Operator& op) override {
    stream_->do_all();
    ForwardingBackend::run(op);
  }
  void copy(void* to, const void* from, std::size_t bytes) override {
    stream_->do_all();
    ForwardingBackend::copy(to, from, bytes);
  }
  void synchronise() override {
    stream_->do_all();
    ForwardingBackend::synchronise();
  }
  std::unique_ptr<CopyLane> make_copy_lane() override { return std::make_unique<LateLane>(stream_); }

 protected:
  std::shared_ptr<LateStream> stream_ = std::make_shared<LateStream>();
};

inline void use_late_backends(EngineConfig& config) {
  config.wrap_backend = [](std::unique_ptr<Backend> inner) { return std::make_unique<LateBackend>(std::move(inner)); };
}

}  // namespace tandem
