// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A bar on a terminal that shows how many of so many bytes are done; nothing elsewhere.
#pragma once

#include <cstdint>
#include <string>

namespace tandem {

class ProgressBar {
 public:
  // what: the word in front, "loading".
  ProgressBar(std::string what, bool quiet);
  ~ProgressBar();  // wipes it
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Redrawn when it has grown by a cell.
  void show(std::int64_t bytes_done, std::int64_t bytes_total);

 private:
  const std::string what_;
  const bool on_;
  int cells_ = -1;
};

}  // namespace tandem
