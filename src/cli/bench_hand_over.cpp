// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem bench hand-over: the link between two processes, beside UCX's own program.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "base/format.h"
#include "cli/command.h"
#include "roles/hand_over_bench.h"

namespace tandem {

namespace {

constexpr std::int64_t kTlsRounds = 300;

struct Options {
  std::vector<std::string> transports{"posix,self", "tcp"};
  std::vector<std::int64_t> sizes{8, 32, 128, 512, 2048};
  std::int64_t rounds = 1000;
};

std::string or_none(double value) {
  return value > 0 ? format("{:.1f}", value) : "-";
}

// Of control connections, which hand-overs do not pass through.
void show_tls() {
  const SecretKey secret = parse_secret(make_secret_text(), "secret");
  const std::shared_ptr<const Credentials> shared = Credentials::of_secret(secret);
  const TlsTime time = measure_tls(*shared, *shared, "", kTlsRounds);
  std::fputs(
      format("\ncontrol connections in TLS with a secret, both sides' work: handshake {:.0f} us, a message with 64 "
             "tokens {:.1f} us\n",
             time.handshake_us, time.message_us)
          .c_str(),
      stdout);
}

int run(const Options& options) {
  std::fputs(format("{:<10} {:>9} {:>11} {:>9} {:>10} {:>15} {:>7} {:>7}\n", "transports", "KiB", "message us",
                    "frame us", "sealed us", "ucx_perftest us", "ratio", "GB/s")
                 .c_str(),
             stdout);
  for (const std::string& transports : options.transports) {
    HandOverBench bench{.transports = transports, .rounds = options.rounds, .sizes = {}};
    for (const std::int64_t size : options.sizes) bench.sizes.push_back(size << 10);
    for (const HandOverTime& time : measure_hand_overs(bench)) {
      const double yardstick = ucx_perftest_us(transports, time.bytes, options.rounds);
      const std::string ratio = yardstick > 0 ? format("{:.2f}", time.message_us / yardstick) : "-";
      std::fputs(format("{:<10} {:>9} {:>11.1f} {:>9.1f} {:>10.1f} {:>15} {:>7} {:>7.2f}\n", transports,
                        time.bytes >> 10, time.message_us, time.frame_us, time.sealed_us, or_none(yardstick), ratio,
                        static_cast<double>(time.bytes) / time.message_us * 1e-3)
                     .c_str(),
                 stdout);
      std::fflush(stdout);
    }
  }
  show_tls();
  return 0;
}

}  // namespace

Action declare_bench_hand_over(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  app.add_option("--transports", options->transports, "as UCX names them (UCX_TLS); may be repeated")
      ->allow_extra_args(false)
      ->capture_default_str();
  app.add_option("--kib", options->sizes, "sizes of a message, 1 KiB to 1 GiB")
      ->delimiter(',')
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--rounds", options->rounds, "there and back, for each size")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{10'000'000}))
      ->capture_default_str();
  return [options] { return run(*options); };
}

}  // namespace tandem
