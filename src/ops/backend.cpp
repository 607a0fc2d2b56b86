// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/backend.h"

#include <algorithm>

#include "base/error.h"

namespace tandem {

namespace {

class DrawnAtOnce final : public Draw {
 public:
  std::vector<std::size_t> finish() override { return {}; }
};

}  // namespace

std::unique_ptr<Draw> Backend::begin(const Sample& op, const Tensor& ids) {
  run(op);
  synchronise();
  std::vector<std::int32_t> drawn;
  drawn.reserve(op.out.size());
  for (const SampledToken& token : op.out) drawn.push_back(std::max(token.id, 0));
  copy(ids.data, drawn.data(), drawn.size() * sizeof(std::int32_t));
  synchronise();
  return std::make_unique<DrawnAtOnce>();
}

bool Backend::prepare(std::span<const std::int64_t>, const std::function<void()>&) {
  throw Error(ErrorCode::kUnsupported, describe() + " records no steps");
}

void Backend::launch(std::span<const std::int64_t>) {
  throw Error(ErrorCode::kUnsupported, describe() + " records no steps");
}

void Backend::come_to_rest() noexcept {
  try {
    synchronise();
  } catch (const Error&) {
    return;
  }
}

}  // namespace tandem
