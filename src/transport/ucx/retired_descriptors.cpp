// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/ucx/retired_descriptors.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <string>
#include <system_error>

namespace tandem {

RetiredDescriptors::~RetiredDescriptors() {
  for (const int fd : kept_) close(fd);
}

void RetiredDescriptors::retire(std::span<const int> numbers) {
  if (numbers.empty()) return;
  std::lock_guard lock(mutex_);
  const int made = eventfd(0, EFD_CLOEXEC);  // which cannot be opened by its name
  const int nothing = fcntl(made, F_DUPFD_CLOEXEC, *std::ranges::max_element(numbers) + 1);  // out of their way
  close(made);
  for (const int number : numbers) {
    // Not dup2: somebody else may have it by now.
    const int got = fcntl(nothing, F_DUPFD_CLOEXEC, number);
    if (got == number)
      kept_.push_back(got);
    else if (got >= 0)
      close(got);
  }
  close(nothing);
  while (kept_.size() > kept_max_) {
    close(kept_.front());
    kept_.pop_front();
  }
}

std::vector<int> ucx_memory_descriptors() {
  std::vector<int> found;
  std::error_code error;
  for (std::filesystem::directory_iterator at("/proc/self/fd", error), end; !error && at != end; at.increment(error)) {
    std::error_code gone;
    const std::string number = at->path().filename(), file = std::filesystem::read_symlink(at->path(), gone).filename();
    int fd = -1;
    std::from_chars(number.data(), number.data() + number.size(), fd);
    if (!gone && fd >= 0 && file.starts_with("ucx_shm_posix_")) found.push_back(fd);
  }
  return found;
}

}  // namespace tandem
