// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "plan/sparsity.h"

#include <algorithm>
#include <cmath>

#include "base/format.h"
#include "base/json.h"
#include "plan/decode_model.h"

namespace tandem {

namespace {

// The routed layer with the least share of active experts; a dense model's first layer.
const FfnShape& sparsest(const ModelShape& shape) {
  const FfnShape* found = nullptr;
  const auto share = [](const FfnShape& f) { return static_cast<double>(f.experts_per_token) / f.experts; };
  for (const LayerRun& run : shape.runs)
    if (const FfnShape& f = run.layer.ffn; f.routed() && (!found || share(f) < share(*found))) found = &f;
  return found ? *found : shape.runs.front().layer.ffn;
}

std::string advice(const SparsityAnswer& a) {
  if (a.holds()) return "keeps up";
  return format("link {:.2f}x too slow: {:.0f} active of {:.0f}, or {:.0f} in all", a.slower(),
                std::ceil(a.active_needed - 1e-9), a.all, std::floor(a.experts_max));
}

}  // namespace

double dense_batch(const Hardware& hardware) {
  return hardware.roofline() / 2;
}

double sparsity_min(const Hardware& hardware, double hidden, double layers, const SparsityQuestion& question) {
  check_time_per_token(question.tpot);
  check_fraction("efficiency of the network", question.network_efficiency);
  const double network = hardware.server_network() * question.network_efficiency;
  return hidden * hardware.roofline() * layers / (network * question.tpot * 2 / 9);
}

SparsityAnswer check_sparsity(const ModelShape& shape, const Hardware& hardware, const SparsityQuestion& question) {
  SparsityAnswer a;
  a.sparsity_min = sparsity_min(hardware, shape.hidden, shape.layers(), question);
  const FfnShape& f = sparsest(shape);
  const double shared = f.routed() ? static_cast<double>(f.width) / f.expert_width : 1;
  a.active = f.experts_per_token + shared;
  a.all = f.experts + shared;
  a.sparsity = a.active / a.all;
  a.batch = dense_batch(hardware) / a.sparsity;
  a.active_needed = a.sparsity_min * a.all;
  a.experts_max = a.active / a.sparsity_min;
  return a;
}

std::string sparsity_text(const std::vector<ModelShape>& models, const std::vector<Hardware>& hardware,
                          const SparsityQuestion& question) {
  std::string out = format("{:<12} {:<10} {:>9} {:>12} {:>9} {:>9} {:>9}  {}\n", "model", "hardware", "B_dense",
                           "experts", "S", "least S", "B_moe", "");
  for (const ModelShape& model : models) {
    for (const Hardware& h : hardware) {
      const SparsityAnswer a = check_sparsity(model, h, question);
      out +=
          format("{:<12} {:<10} {:>9.0f} {:>12} {:>9.3f} {:>9.3f} {:>9.0f}  {}\n", model.name, h.name, dense_batch(h),
                 format("{:g} of {:g}", a.active, a.all), a.sparsity, a.sparsity_min, a.batch, advice(a));
    }
  }
  return out;
}

std::string sparsity_json(const std::vector<ModelShape>& models, const std::vector<Hardware>& hardware,
                          const SparsityQuestion& question) {
  std::string out;
  for (const ModelShape& model : models) {
    for (const Hardware& h : hardware) {
      const SparsityAnswer a = check_sparsity(model, h, question);
      const OrderedJson line{{"model", model.name},
                             {"hardware", h.name},
                             {"dense_batch", dense_batch(h)},
                             {"moe_batch", a.batch},
                             {"active_experts", a.active},
                             {"all_experts", a.all},
                             {"sparsity", a.sparsity},
                             {"sparsity_min", a.sparsity_min},
                             {"holds", a.holds()},
                             {"active_experts_needed", a.active_needed},
                             {"all_experts_max", a.experts_max}};
      out += to_line(line) + "\n";
    }
  }
  return out;
}

}  // namespace tandem
