// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A checkpoint written again as GGUF, with the names and metadata that llama.cpp gives its architecture: no file of
// that form with recordings is at hand for most of them.
#pragma once

#include <string>

#include "checkpoint/checkpoint.h"
#include "tests/checkpoint/temporary_folder.h"

namespace tandem {

// deepseek2 has had two: the up-projection of keys and values in one matrix, and in one for each head and kind.
enum class GgufForm { kOld, kNew };

// deepseek_v3, qwen3 and qwen3_moe folders; weights widened to f32, or matrices but for the router's rounded to Q8_0.
// Returns the path of the file.
enum class GgufWeights { kF32, kQ8 };
std::string write_gguf_copy(const TemporaryFolder& folder, const Checkpoint& source, GgufForm form = GgufForm::kNew,
                            GgufWeights weights = GgufWeights::kF32);

}  // namespace tandem
