// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/settings/gpu_places.h"

#include <map>
#include <set>

#include "base/error.h"
#include "base/format.h"
#include "model/model.h"
#include "model/step3_vision.h"

namespace tandem {

namespace {

void check_list(const char* flag, const std::vector<std::int32_t>& gpus, const char* kind, std::int32_t workers,
                const EngineConfig& c) {
  if (gpus.empty()) return;
  const std::string given = format("{} {}", flag, join(gpus, ","));
  if (c.backend != "cuda")
    throw Error(ErrorCode::kInvalidArgument, format("{}: device {} runs on no GPU (--device)", given, c.backend));
  for (const std::int32_t gpu : gpus)
    if (gpu < 0) throw Error(ErrorCode::kInvalidArgument, format("{}: GPUs are numbered from 0", given));
  if (std::ssize(gpus) > workers)
    throw Error(ErrorCode::kInvalidArgument, format("{}: layout {} has {} {} workers, GPUs are given for {} (--layout)",
                                                    given, to_string(c.layout), workers, kind, gpus.size()));
}

void fit(std::vector<std::int32_t>& gpus, std::int32_t workers) {
  if (std::ssize(gpus) > workers) gpus.resize(static_cast<std::size_t>(workers));
}

}  // namespace

std::int32_t gpu_of(const EngineConfig& c, PeerRank rank) {
  const bool ffn = rank >= c.layout.attention_workers;
  const std::vector<std::int32_t>& gpus = ffn && !c.ffn_gpus.empty() ? c.ffn_gpus : c.attention_gpus;
  if (gpus.empty()) return 0;
  const std::int32_t index = ffn ? rank - c.layout.attention_workers : rank;
  return gpus[static_cast<std::size_t>(index) % gpus.size()];
}

const std::string& vision_backend(const EngineConfig& c) {
  return c.vision_backend.empty() ? c.backend : c.vision_backend;
}

std::int32_t vision_gpu(const EngineConfig& c) {
  return c.vision_gpu >= 0 ? c.vision_gpu : gpu_of(c, 0);
}

void check_gpus(const EngineConfig& c) {
  if (c.vision_gpu >= 0 && vision_backend(c) != "cuda")
    throw Error(ErrorCode::kInvalidArgument,
                format("--gpu-vision {}: device {} runs on no GPU (--device)", c.vision_gpu, vision_backend(c)));
  check_list("--gpu-a", c.attention_gpus, "attention", c.layout.attention_workers, c);
  check_list("--gpu-f", c.ffn_gpus, "FFN", c.layout.ffn_workers, c);
}

void fit_gpus(EngineConfig& c) {
  fit(c.attention_gpus, c.layout.attention_workers);
  fit(c.ffn_gpus, c.layout.ffn_workers);
}

std::int32_t attention_copies(const EngineConfig& c) {
  std::set<std::int32_t> gpus;
  for (std::int32_t a = 0; a < c.layout.attention_workers; ++a) gpus.insert(gpu_of(c, c.layout.attention_rank(a)));
  return static_cast<std::int32_t>(gpus.size());
}

std::vector<MemoryUse> memory_uses(const EngineConfig& c, const Checkpoint& checkpoint, const ModelConfig& model) {
  if (c.backend != "cuda")
    return {{.weight_bytes = static_cast<std::int64_t>(checkpoint.tensor_bytes()),
             .attention_workers = c.layout.attention_workers}};
  const std::vector<ModelShare> all = shares(c.layout, model.experts);
  const std::int64_t attention_bytes = total_bytes(measure_share(checkpoint, all[0]));
  std::map<std::int32_t, MemoryUse> uses;
  for (PeerRank rank = 0; rank < c.layout.workers(); ++rank) {
    const std::int32_t gpu = gpu_of(c, rank), f = rank - c.layout.attention_workers;
    MemoryUse& use = uses.try_emplace(gpu, MemoryUse{.gpu = gpu}).first->second;
    if (f >= 0)
      use.weight_bytes += total_bytes(measure_share(checkpoint, all[static_cast<std::size_t>(f) + 1]));
    else if (use.attention_workers++ == 0)
      use.weight_bytes += attention_bytes;
  }
  if (model.vision && c.vision)
    uses.try_emplace(vision_gpu(c), MemoryUse{.gpu = vision_gpu(c)}).first->second.weight_bytes +=
        vision_memory_bytes(checkpoint);
  std::vector<MemoryUse> list;
  list.reserve(uses.size());
  for (const auto& [gpu, use] : uses) list.push_back(use);
  return list;
}

std::string describe_gpus(const EngineConfig& c) {
  std::map<std::int32_t, std::vector<std::string>> workers;
  for (PeerRank rank = 0; rank < c.layout.workers(); ++rank) {
    const std::int32_t f = rank - c.layout.attention_workers;
    workers[gpu_of(c, rank)].push_back(c.layout.local() ? "A and F" : f < 0 ? format("A{}", rank) : format("F{}", f));
  }
  std::vector<std::string> places;
  places.reserve(workers.size());
  for (const auto& [gpu, names] : workers) places.push_back(format("{} on GPU {}", join(names, ", "), gpu));
  return join(places, "; ");
}

}  // namespace tandem
