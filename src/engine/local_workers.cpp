// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/local_workers.h"

#include <map>
#include <optional>
#include <utility>

#include "engine/settings/gpu_places.h"
#include "engine/worker_parts.h"
#include "transport/inproc/inproc.h"
#include "transport/nvlink/nvlink.h"

namespace tandem {

LocalWorkers::LocalWorkers(const Checkpoint& checkpoint, const EngineConfig& config, const ModelConfig& model,
                           const LoadListener& count)
    : config_(config), clock_(std::make_unique<RealClock>()) {
  for (PeerRank rank = 0; rank < config.layout.workers(); ++rank)
    backends_.push_back(make_worker_backend(config, rank));
  backend_description_ = backends_.front()->describe();
  const std::vector<ModelShare> all = shares(config.layout, model.experts);
  // The attention workers of one memory share one copy of their half.
  std::map<std::int32_t, std::shared_ptr<const Model>> halves;
  for (std::int32_t a = 0; a < config.layout.attention_workers; ++a) {
    const PeerRank rank = config.layout.attention_rank(a);
    std::shared_ptr<const Model>& half = halves[gpu_of(config, rank)];
    if (!half) {
      half = load_model(checkpoint, all[0], *backends_[rank], count);
      weight_bytes_ += half->weight_bytes();
    }
    attention_models_.push_back(half);
  }
  for (std::int32_t f = 0; f < config.layout.ffn_workers; ++f) {
    ffn_models_.push_back(load_model(checkpoint, all[f + 1], *backends_[config.layout.ffn_rank(f)], count));
    weight_bytes_ += ffn_models_.back()->weight_bytes();
  }
  make_workers(model);
}

LocalWorkers::~LocalWorkers() {
  stop();
}

void LocalWorkers::make_workers(const ModelConfig& model) {
  const Layout& layout = config_.layout;
  // Rows go from device to device where all workers' backends can do that.
  std::vector<std::shared_ptr<CopyLane>> lanes;
  for (PeerRank rank = 0; rank < layout.workers() && !layout.local(); ++rank)
    if (std::shared_ptr<CopyLane> lane = backends_[rank]->make_copy_lane()) lanes.push_back(std::move(lane));
  std::optional<NvlinkNetwork> between_devices;
  InprocNetwork between_threads(layout.workers());
  if (!layout.local() && std::ssize(lanes) == layout.workers())
    between_devices.emplace(std::move(lanes), InprocConfig{}, layout.attention_workers);
  // And without hosts where there are two of them.
  std::shared_ptr<DeviceSeam> seam;
  const bool two = layout.workers() == 2, looked_into = config_.trace || config_.observer;
  if (between_devices && two && !looked_into)
    seam = DeviceSeam::make(*backends_[layout.attention_rank(0)], *backends_[layout.ffn_rank(0)], model.layers,
                            config_.micro_batches, worker_config(config_, model).resend_after);
  if (between_devices)
    hand_overs_ = seam           ? "decoding steps by flags, one launch for each side; others in frames"
                  : !two         ? "in frames: there are several workers of a kind"
                  : !looked_into ? "in frames: the two workers' devices have no flags for each other"
                                 : "in frames: somebody looks into steps";
  const auto parts = [&](std::int32_t index, PeerRank rank, const std::shared_ptr<const Model>& half) {
    std::unique_ptr<Transport> transport =
        between_devices ? between_devices->endpoint(rank) : between_threads.endpoint(rank);
    if (config_.wrap_transport && !layout.local()) transport = config_.wrap_transport(std::move(transport), rank);
    return WorkerParts{.worker = worker_config(config_, model),
                       .index = index,
                       .model = half,
                       .backend = std::move(backends_[rank]),
                       .transport = std::move(transport),
                       .clock = clock_.get(),
                       .seam = seam};
  };
  for (std::int32_t a = 0; a < layout.attention_workers; ++a)
    attention_.push_back(make_attention_worker(config_, parts(a, layout.attention_rank(a), attention_models_[a])));
  for (std::int32_t f = 0; f < layout.ffn_workers; ++f)
    ffn_.push_back(make_ffn_worker(config_, parts(f, layout.ffn_rank(f), ffn_models_[f])));
}

void LocalWorkers::start() {
  for (const auto& worker : ffn_) threads_.emplace_back([w = worker.get()] { w->run(); });
  for (const auto& worker : attention_) threads_.emplace_back([w = worker.get()] { w->run(); });
}

// Attention workers end first, so that none waits for an FFN worker that is gone. Their threads were started last.
void LocalWorkers::stop() {
  if (threads_.empty()) return;
  const auto attention_threads = threads_.begin() + static_cast<std::ptrdiff_t>(ffn_.size());
  for (const auto& worker : attention_) worker->stop();
  for (auto thread = attention_threads; thread != threads_.end(); ++thread) thread->join();
  for (const auto& worker : ffn_) worker->stop();
  for (auto thread = threads_.begin(); thread != attention_threads; ++thread) thread->join();
  threads_.clear();
}

std::vector<RequestTaker*> LocalWorkers::takers() const {
  std::vector<RequestTaker*> takers;
  takers.reserve(attention_.size());
  for (const auto& worker : attention_) takers.push_back(worker.get());
  return takers;
}

std::vector<const WorkerStats*> LocalWorkers::ffn_stats() const {
  std::vector<const WorkerStats*> stats;
  stats.reserve(ffn_.size());
  for (const auto& worker : ffn_) stats.push_back(&worker->stats());
  return stats;
}

}  // namespace tandem
