// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Small random models of every family whose sizes are as odd as the family allows: heads and vocabularies that are no
// power of two, widths beside the blocks of kernels and of quantisation, experts that everyone or nobody chooses,
// layers without experts. A seed is a model.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "tests/checkpoint/temporary_folder.h"

namespace tandem {

enum class OddFamily {
  kLlama,
  kLlamaGguf,
  kQwen3,
  kQwen3Moe,
  kStep3,
  kStep3Fp8,
  kStep3Vl,
  kDeepseekV3,
  kDeepseekV3Fp8,
  kStep3p5,
  kStep3p5Fp8,
};
std::string name(OddFamily family);

struct OddModel {
  TemporaryFolder folder;
  std::unique_ptr<Checkpoint> checkpoint;
  std::string sizes;          // for messages
  std::int32_t crowded = -1;  // the expert that every row chooses
  std::int32_t lonely = -1;   // the one that no row chooses
};

// The same model for the same seed. Vocabularies have at least 131 tokens.
std::unique_ptr<OddModel> make_odd_model(OddFamily family, std::uint64_t seed);

}  // namespace tandem
