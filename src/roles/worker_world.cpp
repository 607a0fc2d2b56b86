// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/worker_world.h"

#include <unistd.h>

#include <thread>
#include <utility>

#include "base/random_bytes.h"

namespace tandem {
namespace {

class JoinedThread final : public WorkerThread {
 public:
  explicit JoinedThread(std::function<void()> run) : thread_(std::move(run)) {}
  ~JoinedThread() override { thread_.join(); }

 private:
  std::thread thread_;
};

}  // namespace

std::unique_ptr<WorkerThread> MachineWorld::start(std::function<void()> run) {
  return std::make_unique<JoinedThread>(std::move(run));
}

void MachineWorld::fill_random(std::span<std::byte> bytes) {
  tandem::fill_random(bytes);
}

std::int64_t MachineWorld::process() const {
  return getpid();
}

}  // namespace tandem
