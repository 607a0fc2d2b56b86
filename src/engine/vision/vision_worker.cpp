// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/vision/vision_worker.h"

#include <algorithm>
#include <new>

#include "base/error.h"
#include "base/format.h"
#include "image/pixels.h"

namespace tandem {

namespace {

// Ends the work on a request that nobody waits for.
struct Cancelled {};

void end(const Request& request, EventStream& events, FinishReason finish, Status why = {}) {
  RequestEvent event;
  event.id = request.id;
  event.finish = finish;
  event.status = std::move(why);
  event.prompt_tokens = std::ssize(request.prompt);
  events.push(std::move(event));
}

std::int64_t bytes_of(const EmbeddingRows& rows) {
  return static_cast<std::int64_t>(rows.values.size() * sizeof(float));
}

}  // namespace

std::int64_t visual_rows(const CropPlan& plan, const VisionConfig& vision) {
  return std::int64_t{plan.crops()} * vision.crop_tokens + vision.whole_tokens;
}

VisionWorker::VisionWorker(std::unique_ptr<Backend> backend, std::unique_ptr<Step3Vision> vision, const Limits& limits,
                           Forward forward)
    : backend_(std::move(backend)),
      vision_(std::move(vision)),
      limits_(limits),
      forward_(std::move(forward)),
      arena_(std::make_unique<Arena>(*backend_, vision_->scratch_bytes())) {}

Status VisionWorker::submit(Request request, std::vector<PlacedPicture> pictures, std::shared_ptr<EventStream> events) {
  for (const PlacedPicture& placed : pictures) {
    std::int64_t rows = 0;
    for (const PlacedPicture::Place& place : placed.places) rows += place.count;
    TANDEM_CHECK(rows == visual_rows(placed.picture->plan, config()), "a picture is not placed as a whole");
  }
  const auto job = std::make_shared<Job>();
  job->request = std::move(request);
  job->pictures = std::move(pictures);
  job->events = std::move(events);
  std::lock_guard lock(mutex_);
  if (stopping_) {
    end(job->request, *job->events, FinishReason::kCancelled);
    return Status::ok();
  }
  if (std::ssize(jobs_) >= limits_.requests)
    return {ErrorCode::kOutOfResources,
            format("{} requests wait for their pictures to be seen, limit is {} (--queue-max)", jobs_.size(),
                   limits_.requests)};
  const std::int64_t before = pending_bytes_;
  count_pending(*job, 1);
  if (!jobs_.empty() && pending_bytes_ > std::max(before, limits_.pending_bytes)) {
    count_pending(*job, -1);
    return {ErrorCode::kOutOfResources,
            format("{} MiB of pictures wait to be seen, limit is {} MiB (--pictures-pending-mib)", pending_bytes_ >> 20,
                   limits_.pending_bytes >> 20)};
  }
  jobs_.push_back(job);
  changed_.notify_all();
  return Status::ok();
}

// Adds a job's pictures to what waits, or takes them away. A picture that several requests share counts once.
void VisionWorker::count_pending(const Job& job, int sign) {
  for (const PlacedPicture& placed : job.pictures) {
    std::int64_t& uses = pending_[placed.picture.get()];
    const bool waited = uses > 0;
    uses += sign;
    if (waited != (uses > 0)) pending_bytes_ += sign * std::ssize(placed.picture->picture.rgb);
    if (uses == 0) pending_.erase(placed.picture.get());
  }
}

void VisionWorker::cancel(RequestId id) {
  std::lock_guard lock(mutex_);
  for (const std::shared_ptr<Job>& job : jobs_)
    if (job->request.id == id) job->cancelled = true;
}

void VisionWorker::stop() {
  std::lock_guard lock(mutex_);
  stopping_ = true;
  for (const std::shared_ptr<Job>& job : jobs_) job->cancelled = true;
  changed_.notify_all();
}

// Null at the end.
std::shared_ptr<VisionWorker::Job> VisionWorker::next_job() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
  return jobs_.empty() ? nullptr : jobs_.front();
}

void VisionWorker::run() {
  while (const std::shared_ptr<Job> job = next_job()) {
    Status seen;
    bool cancelled = false;
    try {
      see(*job);
    } catch (const Cancelled&) {
      cancelled = true;
    } catch (const Error& error) {
      seen = {error.code(), error.message()};
    } catch (const std::bad_alloc&) {
      seen = {ErrorCode::kOutOfResources, "no memory to see the pictures in"};
    }
    {
      // From here on a cancellation is the attention worker's, or comes before the request is handed to it.
      std::lock_guard lock(mutex_);
      cancelled |= job->cancelled;
      if (!cancelled && seen) forward_(std::move(job->request), job->events);
      jobs_.pop_front();
      count_pending(*job, -1);
    }
    if (cancelled)
      end(job->request, *job->events, FinishReason::kCancelled);
    else if (!seen)
      end(job->request, *job->events, FinishReason::kError, seen);
  }
}

void VisionWorker::see(Job& job) {
  for (const PlacedPicture& placed : job.pictures) {
    const Rows rows = rows_of(job, *placed.picture);
    for (const PlacedPicture::Place& place : placed.places)
      job.request.embedded.push_back({place.position, place.count, place.first_row, rows});
  }
}

VisionWorker::Rows VisionWorker::rows_of(const Job& job, const PictureToSee& picture) {
  ++stats_.pictures;
  const Name name{job.request.cache_salt, picture.digest};
  if (Rows known = remembered(name)) {
    ++stats_.cache_hits;
    return known;
  }
  Rows rows = encode(job, picture);
  remember(name, rows);
  return rows;
}

VisionWorker::Rows VisionWorker::encode(const Job& job, const PictureToSee& picture) {
  const PictureViews views(picture.picture);
  const auto rows = std::make_shared<EmbeddingRows>();
  rows->hidden = vision_->hidden();
  rows->digest = picture.digest;
  rows->values.resize(static_cast<std::size_t>(visual_rows(views.plan(), config()) * rows->hidden));
  float* at = rows->values.data();
  for (std::int32_t i = 0; i <= views.plan().crops(); ++i) {
    if (job.cancelled) throw Cancelled();
    ++stats_.views;
    const View view = i < views.plan().crops() ? views.crop(i) : views.whole();
    Arena::Scope scope(*arena_);
    const Tensor pixels = arena_->f32(std::int64_t{view.side} * view.side, 3);
    const Tensor out = arena_->f32(vision_->rows_of(view.side), rows->hidden);
    backend_->copy(pixels.data, view.rgb.data(), view.rgb.size() * sizeof(float));
    vision_->encode({*backend_, *arena_}, pixels, out);
    backend_->copy(at, out.data, static_cast<std::size_t>(out.shape.elements()) * sizeof(float));
    backend_->synchronise();
    at += out.shape.elements();
  }
  return rows;
}

VisionWorker::Rows VisionWorker::remembered(const Name& name) {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return nullptr;
  cache_.splice(cache_.begin(), cache_, found->second);
  return cache_.front().rows;
}

void VisionWorker::remember(const Name& name, Rows rows) {
  if (bytes_of(*rows) > limits_.cache_bytes) return;
  cache_bytes_ += bytes_of(*rows);
  cache_.push_front({name, std::move(rows)});
  by_name_[name] = cache_.begin();
  while (cache_bytes_ > limits_.cache_bytes) {
    cache_bytes_ -= bytes_of(*cache_.back().rows);
    by_name_.erase(cache_.back().name);
    cache_.pop_back();
  }
}

}  // namespace tandem
