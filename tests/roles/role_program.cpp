// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A worker as tests run it: what `tandem attention` and `tandem ffn` do, with every row of logits written to a file.
//
//   role_program attention|ffn DEPLOYMENT RANK LOGITS
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <span>
#include <string>
#include <thread>

#include "roles/role.h"
#include "session/constraint_maker.h"
#include "tests/roles/logit_file.h"

namespace {

using namespace tandem;

class LogitWriter final : public Observer {
 public:
  explicit LogitWriter(const char* path) : file_(std::fopen(path, "ab")) {}
  ~LogitWriter() override { std::fclose(file_); }
  LogitWriter(const LogitWriter&) = delete;
  LogitWriter& operator=(const LogitWriter&) = delete;

  void on_route(RequestId, std::int64_t, std::int32_t, std::span<const std::int32_t>, std::span<const float>) override {
  }
  // One write for a row, so that one who is killed leaves whole rows.
  void on_logits(RequestId request, std::int64_t position, std::span<const float> logits) override {
    std::fwrite(logit_record(request, position, logits).data(), 1, logit_record_bytes(logits.size()), file_);
    std::fflush(file_);
  }

 private:
  std::FILE* file_;
};

// As UCX makes them; none is made while there is a file LOGITS.stuck. LOGITS.limit: milliseconds that making may take.
EndpointOptions endpoints(const std::string& logits) {
  EndpointOptions options;
  const std::string file = logits + ".stuck";
  std::int64_t limit_ms = 0;
  if (std::ifstream(logits + ".limit") >> limit_ms) options.time_max = limit_ms * 1'000'000;
  options.make = [file](PeerRank rank, std::int32_t peers, const UcxConfig& config) {
    while (std::filesystem::exists(file)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return UcxTransport::make(rank, peers, config);
  };
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  try {
    const Deployment deployment = read_deployment(argv[2]);
    LogitWriter writer(argv[4]);
    ConstraintMaker constraints(deployment.model);
    run_role(std::string(argv[1]) == "ffn" ? RoleKind::kFfn : RoleKind::kAttention, deployment,
             {.rank = std::atoi(argv[3]),
              .say = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); },
              .endpoints = endpoints(argv[4]),
              .make_constraint = [&](const ConstraintRecipe& recipe) { return constraints.make(recipe); },
              .observer = &writer});
    return 0;
  } catch (const StuckWorker& stuck) {
    std::fprintf(stderr, "%s\n", stuck.message().c_str());
    std::_Exit(75);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.message().c_str());
    return 1;
  }
}
