// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes as a deployment file: an Error, or a deployment whose shares cover a model once and that comes back from
// what is written of it.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "deploy/deployment.h"

namespace {

using namespace tandem;

void check_shares(const Deployment& deployment) {
  constexpr std::int32_t kExperts = 48;
  std::int64_t cells = 0, slices = 0;
  for (const WorkerPlace& worker : deployment.ffn) {
    if (worker.replica_of >= 0) continue;
    const FfnShare share = share_of(deployment, worker, kExperts);
    cells += std::int64_t{share.expert_end - share.expert_begin} * share.width_count;
    slices += share.slice_count;
  }
  TANDEM_CHECK(cells == kExperts * 8, "experts are held more or less than once");
  TANDEM_CHECK(slices == 8, "the shared width is held more or less than once");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const Deployment deployment =
        parse_deployment(std::string_view(reinterpret_cast<const char*>(data), size), "input");
    check_shares(deployment);
    TANDEM_CHECK(parse_deployment(to_toml(deployment), "written") == deployment,
                 "what is written is another deployment");
  } catch (const Error&) {
  }
  return 0;
}
