// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The encoder of pictures: a thread, a backend and the vision tower. A request with pictures comes here first and goes
// on to an attention worker when the rows of all its pictures are there, so no step ever waits for a picture. Rows are
// kept by the content of the picture they came from, up to a number of bytes; the one used longest ago goes first. As
// with prefixes of prompts, a cache salt keeps apart what must not be shared.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/worker/event_stream.h"
#include "image/crop_plan.h"
#include "model/step3_vision.h"
#include "sched/request.h"

namespace tandem {

// A decoded picture whose rows are wanted. Immutable; several requests may share one.
struct PictureToSee {
  ContentDigest digest;  // of the bytes it was decoded from
  Picture picture;
  CropPlan plan;
};

struct PlacedPicture {
  struct Place {
    std::int64_t position = 0, count = 0, first_row = 0;
  };
  std::shared_ptr<const PictureToSee> picture;
  std::vector<Place> places;  // ascending
};

// Rows that the views of a plan give: all crops, then the whole.
std::int64_t visual_rows(const CropPlan& plan, const VisionConfig& vision);

class VisionWorker {
 public:
  struct Limits {
    std::int64_t cache_bytes = 256 << 20;    // of encoded rows (--picture-cache-mib)
    std::int64_t pending_bytes = 512 << 20;  // of decoded pictures that wait (--pictures-pending-mib)
    std::int64_t requests = 1024;            // that wait (--queue-max)
  };
  // Takes a request that is complete now. Called on this worker's thread.
  using Forward = std::function<void(Request, std::shared_ptr<EventStream>)>;

  VisionWorker(std::unique_ptr<Backend> backend, std::unique_ptr<Step3Vision> vision, const Limits& limits,
               Forward forward);

  const VisionConfig& config() const { return vision_->config(); }
  std::int64_t weight_bytes() const { return vision_->weight_bytes(); }
  std::string describe_backend() const { return backend_->describe(); }

  // Any thread.
  Status submit(Request request, std::vector<PlacedPicture> pictures, std::shared_ptr<EventStream> events);
  // Ends a request that is still here.
  void cancel(RequestId id);

  void run();   // until stop; on a thread of its own
  void stop();  // what is still here ends as cancelled

  struct Stats {
    std::atomic<std::int64_t> pictures{0}, views{0}, cache_hits{0};
  };
  const Stats& stats() const { return stats_; }

 private:
  struct Job {
    Request request;
    std::vector<PlacedPicture> pictures;
    std::shared_ptr<EventStream> events;
    std::atomic<bool> cancelled{false};
  };
  using Rows = std::shared_ptr<const EmbeddingRows>;
  struct Name {
    std::uint64_t salt;
    ContentDigest digest;
    auto operator<=>(const Name&) const = default;
  };
  struct Remembered {
    Name name;
    Rows rows;
  };

  std::shared_ptr<Job> next_job();
  void count_pending(const Job& job, int sign);
  void see(Job& job);
  Rows rows_of(const Job& job, const PictureToSee& picture);
  Rows encode(const Job& job, const PictureToSee& picture);
  Rows remembered(const Name& name);
  void remember(const Name& name, Rows rows);

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Step3Vision> vision_;
  const Limits limits_;
  const Forward forward_;
  std::unique_ptr<Arena> arena_;
  std::list<Remembered> cache_;  // used last in front; of this worker's thread alone
  std::map<Name, std::list<Remembered>::iterator> by_name_;
  std::int64_t cache_bytes_ = 0;
  Stats stats_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Job>> jobs_;                // the first one is under way
  std::map<const PictureToSee*, std::int64_t> pending_;  // and how often; several requests may share one
  std::int64_t pending_bytes_ = 0;
  bool stopping_ = false;
};

}  // namespace tandem
