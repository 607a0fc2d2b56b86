// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/progress_bar.h"

#include <unistd.h>

#include <cstdio>
#include <utility>

#include "base/format.h"

namespace tandem {

ProgressBar::ProgressBar(std::string what, bool quiet) : what_(std::move(what)), on_(!quiet && isatty(STDERR_FILENO)) {}

ProgressBar::~ProgressBar() {
  if (on_) std::fputs("\r\033[K", stderr);
}

void ProgressBar::show(std::int64_t bytes_done, std::int64_t bytes_total) {
  if (!on_ || bytes_total == 0) return;
  constexpr int kCells = 32;
  const int cells = static_cast<int>(bytes_done * kCells / bytes_total);
  if (cells == cells_) return;
  cells_ = cells;
  std::fputs(format("\r\033[K{} [{:<{}}] {} of {} MiB", what_, std::string(cells, '#'), kCells, bytes_done >> 20,
                    bytes_total >> 20)
                 .c_str(),
             stderr);
}

}  // namespace tandem
