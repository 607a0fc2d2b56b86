// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How fast files can be read at all, from the page cache or from the disk: what loading is measured against.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tandem {

class Checkpoint;

// The files of a checkpoint's weights, each once.
std::vector<std::string> weight_files(const Checkpoint& checkpoint);

struct ReadResult {
  std::int64_t bytes = 0;
  double seconds = 0;
};

// What becomes of the bytes: each thread reads all of its pieces into the same megabyte, which stays in the processor's
// cache; or into memory for all of them, which is new to the process, as that of loaded weights is.
enum class ReadTo { kOneBuffer, kNewMemory };

// Reads all of each file with so many threads, which take pieces of a megabyte in turn. Throws Error for a file that
// cannot be read.
ReadResult read_files(const std::vector<std::string>& paths, int threads, ReadTo to = ReadTo::kOneBuffer);

// The part of the files that is in the page cache, 0 … 1. Throws Error.
double cached_fraction(const std::vector<std::string>& paths);

// Asks the kernel to forget the files, written out first; it may not be able to (memory file systems, pages that are
// mapped elsewhere): cached_fraction tells. Throws Error.
void drop_from_cache(const std::vector<std::string>& paths);

}  // namespace tandem
