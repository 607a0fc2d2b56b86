// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/constraint_thread.h"

#include <algorithm>
#include <utility>

namespace tandem {

ConstraintThread::ConstraintThread(ConstraintFactory factory, std::function<void()> on_made)
    : factory_(std::move(factory)), on_made_(std::move(on_made)) {}

ConstraintThread::~ConstraintThread() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void ConstraintThread::make(Request request, ConstraintRecipe recipe) {
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  {
    std::lock_guard lock(mutex_);
    jobs_.push_back({std::move(request), std::move(recipe)});
  }
  changed_.notify_all();
}

std::vector<ConstraintThread::Made> ConstraintThread::take_made() {
  std::lock_guard lock(mutex_);
  return std::exchange(made_, {});
}

std::int64_t ConstraintThread::waiting() const {
  std::lock_guard lock(mutex_);
  return std::ssize(jobs_);
}

bool ConstraintThread::cancel(RequestId id) {
  const auto is_it = [&](const auto& entry) { return entry.request.id == id; };
  std::lock_guard lock(mutex_);
  if (making_ == id) {
    making_.reset();
    return true;
  }
  return std::erase_if(jobs_, is_it) + std::erase_if(made_, is_it) > 0;
}

void ConstraintThread::drop_all() {
  std::lock_guard lock(mutex_);
  jobs_.clear();
  made_.clear();
  making_.reset();
}

void ConstraintThread::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
    if (stopping_) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    making_ = job.request.id;
    lock.unlock();
    Status status = constrain(job);
    lock.lock();
    if (!std::exchange(making_, std::nullopt)) continue;
    made_.push_back({std::move(job.request), std::move(status)});
    on_made_();
  }
}

Status ConstraintThread::constrain(Job& job) const {
  if (!factory_) return {ErrorCode::kUnsupported, "this worker makes no answers within a grammar"};
  try {
    const std::shared_ptr<TokenConstraint> constraint = factory_(job.recipe);
    for (const std::int32_t token : job.request.answer)
      if (Status status = constraint->commit(token); !status) return status;
    if (!job.request.answer.empty() && constraint->complete())
      return {ErrorCode::kInvalidData, "the answer to be gone on with is at its end"};
    job.request.constraint = constraint;
    return Status::ok();
  } catch (const Error& error) {
    // Not as unavailable: to the front that is a link that failed, which the workers would have to meet again for.
    return {error.code() == ErrorCode::kUnavailable ? ErrorCode::kOutOfResources : error.code(), error.message()};
  } catch (const std::exception& error) {  // no memory, for one
    return {ErrorCode::kOutOfResources, error.what()};
  }
}

}  // namespace tandem
