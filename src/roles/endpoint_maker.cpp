// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/endpoint_maker.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/format.h"

namespace tandem {

struct ThreadedEndpointMaker::Job {
  Nanoseconds begun = 0;
  std::mutex mutex;  // guards what follows
  std::condition_variable changed;
  bool done = false;
  std::unique_ptr<MeetingTransport> endpoint;
  std::exception_ptr failure;
  std::function<void()> made;

  template <class Make>
  void run(const Make& make) {
    std::unique_ptr<MeetingTransport> endpoint;
    std::exception_ptr failure;
    try {
      endpoint = make();
    } catch (...) {
      failure = std::current_exception();
    }
    std::lock_guard lock(mutex);
    this->endpoint = std::move(endpoint);
    this->failure = failure;
    done = true;
    changed.notify_all();
    if (made) made();
  }
};

ThreadedEndpointMaker::ThreadedEndpointMaker(EndpointOptions options, std::function<void()> made)
    : options_(std::move(options)), made_(std::move(made)) {}

ThreadedEndpointMaker::~ThreadedEndpointMaker() {
  if (!job_) return;
  std::unique_lock lock(job_->mutex);
  job_->made = {};
  const Nanoseconds left = std::max<Nanoseconds>(0, job_->begun + options_.time_max - clock_.now());
  job_->changed.wait_for(lock, std::chrono::nanoseconds(left), [this] { return job_->done; });
}

void ThreadedEndpointMaker::begin(PeerRank rank, std::int32_t peers, const UcxConfig& config) {
  TANDEM_CHECK(!busy(), "an endpoint is being made");
  job_ = std::make_shared<Job>();
  job_->begun = clock_.now();
  job_->made = made_;
  std::thread([job = job_, make = options_.make, rank, peers, config] {
    job->run([&] { return make(rank, peers, config); });
  }).detach();
}

std::unique_ptr<MeetingTransport> ThreadedEndpointMaker::take() {
  if (!job_) return nullptr;
  std::unique_lock lock(job_->mutex);
  if (!job_->done) return nullptr;
  std::unique_ptr<MeetingTransport> endpoint = std::move(job_->endpoint);
  const std::exception_ptr failure = job_->failure;
  lock.unlock();
  job_.reset();
  if (failure) std::rethrow_exception(failure);
  return endpoint;
}

Status ThreadedEndpointMaker::overdue() const {
  if (!job_ || clock_.now() - job_->begun < options_.time_max) return Status::ok();
  std::lock_guard lock(job_->mutex);
  if (job_->done) return Status::ok();
  return {ErrorCode::kUnavailable,
          format("the endpoint is not made after {} ms (UCX does not come back)", options_.time_max / kMillisecond)};
}

}  // namespace tandem
