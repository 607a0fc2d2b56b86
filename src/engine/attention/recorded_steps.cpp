// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/attention/recorded_steps.h"

#include <algorithm>

namespace tandem {

namespace {
constexpr Nanoseconds kPreparationMax = 10 * kSecond;
constexpr std::size_t kKindsMax = 4096;
}  // namespace

RecordedSteps::RecordedSteps(Backend& backend, DeviceSeam* seam, const WorkerConfig& config)
    : backend_(backend), seam_(seam), local_(config.layout.local()), patience_(config.resend_after) {}

void RecordedSteps::note(const Kind& kind) {
  if (seen_.size() >= kKindsMax) seen_.clear();
  seen_.insert(kind.key);
}

bool RecordedSteps::prepare(const Kind& kind, const Record& record) {
  const bool is_new = backend_.prepare(kind.key, record);
  if (!is_new || seam_->prepare(kind.rows, std::max(kPreparationMax, patience_))) return true;
  leave_seam();  // it has ended, or its device does not take part
  return false;
}

std::uint64_t RecordedSteps::give(const Kind& kind, const Record& record) {
  if (local_) {
    backend_.replay(kind.key, record);
    return 0;
  }
  const std::uint64_t epoch = seam_->start(kind.rows);
  seam_->attention_flags().begin(epoch);
  backend_.launch(kind.key);
  return epoch;
}

void RecordedSteps::await_launch() {
  if (seam_) seam_->await_launch(patience_);
}

bool RecordedSteps::stalled(std::uint64_t epoch) const {
  return epoch > 0 && seam_->attention_flags().poisoned(epoch);
}

}  // namespace tandem
