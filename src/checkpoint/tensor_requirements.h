// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What a model needs of a checkpoint, compared with what is there.
//
// A checkpoint that does not fit is reported once, with everything that is wrong about it: whoever has the wrong file
// sees which it is, and whoever ports a model sees all names at once.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/tensor_info.h"

namespace tandem {

struct RequiredTensor {
  std::string name;
  Shape shape;
  std::vector<DType> dtypes;  // any of these
};

struct TensorRequirements {
  std::vector<RequiredTensor> required;
  // Tensors that may be there and are not read. '*' stands for any run of characters: "*.rotary_emb.inv_freq".
  std::vector<std::string> ignored;
};

// Throws one Error that lists all missing, unexpected, misshapen and mistyped tensors, the first 20 of each kind and
// the count of the rest: kUnsupported if types that this build does not read are all there is, kInvalidData otherwise.
// what names the checkpoint.
void check_tensors(const TensorRequirements& requirements, std::span<const TensorInfo> tensors, std::string_view what);

// Whether text matches a pattern of literal characters and '*'.
bool matches(std::string_view pattern, std::string_view text);

}  // namespace tandem
