// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How the workers of a deployment are arranged: "local" runs attention and FFN in turn on one worker; "2A3F" runs two
// attention and three FFN workers apart, which share out whole experts; "2A3x4F" has three groups of four FFN workers,
// each of which holds a quarter of the width of its group's experts. Each worker has a thread, or a process, of its
// own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/share.h"

namespace tandem {

struct Layout {
  std::int32_t attention_workers = 1;
  std::int32_t ffn_workers = 0;  // 0: local
  std::int32_t ffn_width = 1;    // parts of the experts' width: 1, 2, 4 or 8; ffn_workers is a multiple

  bool local() const { return ffn_workers == 0; }
  std::int32_t workers() const { return attention_workers + ffn_workers; }
  // Transport ranks: attention workers first.
  std::int32_t attention_rank(std::int32_t a) const { return a; }
  std::int32_t ffn_rank(std::int32_t f) const { return attention_workers + f; }
  // Of the FFN workers; one of all where there are none.
  FfnSplit ffn_split() const { return local() ? FfnSplit{} : FfnSplit{ffn_workers / ffn_width, ffn_width}; }
  bool operator==(const Layout&) const = default;
};

inline constexpr std::int32_t kWorkersMax = 64;  // of each kind, in one process

// "local", "1A1F", "3a2f", "1A2x2F". Throws Error{kInvalidArgument}.
Layout parse_layout(const std::string& text);
std::string to_string(const Layout& layout);

// What the workers load: first the attention workers' share, which is one and the same for all of them (with the FFN
// half when local), then that of each FFN worker.
std::vector<ModelShare> shares(const Layout& layout, std::int32_t experts);

}  // namespace tandem
