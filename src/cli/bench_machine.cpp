// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem bench machine: what plans need to know of this machine, measured.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "base/format.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/plan_options.h"

namespace tandem {

namespace {

struct Options {
  double usd_per_hour = 0, network_gbps = 0;  // 0: as assumed
  std::int32_t gpus_per_server = 1;
  bool toml = false, json = false;
};

std::string as_text(const Hardware& h) {
  std::string text =
      format("{}: {:.1f} GB of memory, read at {:.1f} GB/s; {:.3g} FLOP/s in {}", h.name, h.memory_bytes * 1e-9,
             h.memory_bandwidth * 1e-9, h.bf16_flops, h.fp8_flops > 0 ? "BF16" : "f32");
  if (h.fp8_flops > 0) text += format(", {:.3g} in FP8", h.fp8_flops);
  return text + format("\nnot measured: {:g} USD/h, {:g} Gb/s of network, {} in a server\n", h.usd_per_hour,
                       h.network_bandwidth * 8e-9, h.gpus_per_server);
}

std::string as_json(const Hardware& h) {
  const OrderedJson line{{"name", h.name},
                         {"usd_per_hour", h.usd_per_hour},
                         {"bf16_flops", h.bf16_flops},
                         {"fp8_flops", h.fp8_flops},
                         {"memory_bandwidth", h.memory_bandwidth},
                         {"memory_bytes", h.memory_bytes},
                         {"network_bandwidth", h.network_bandwidth},
                         {"gpus_per_server", h.gpus_per_server}};
  return to_line(line) + "\n";
}

int run(const Options& options) {
  Hardware h = measure_this_machine();
  if (options.usd_per_hour > 0) h.usd_per_hour = options.usd_per_hour;
  if (options.network_gbps > 0) h.network_bandwidth = options.network_gbps * 1.25e8;
  h.gpus_per_server = options.gpus_per_server;
  std::fputs((options.toml ? write_hardware(h) : options.json ? as_json(h) : as_text(h)).c_str(), stdout);
  return 0;
}

}  // namespace

Action declare_bench_machine(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  auto* toml = app.add_flag("--toml", options->toml, "a hardware file for tandem plan");
  app.add_flag("--json", options->json, "one JSON object")->excludes(toml);
  app.add_option("--usd-per-hour", options->usd_per_hour, "price of one accelerator (1)")->check(CLI::Range(1e-6, 1e6));
  app.add_option("--network-gbps", options->network_gbps, "of one accelerator, each way (25)")
      ->check(CLI::Range(1e-5, 1e6));
  app.add_option("--gpus-per-server", options->gpus_per_server, "that share a server")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  return [options] { return run(*options); };
}

}  // namespace tandem
