// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Finds the end of a JSON object in a text that comes in parts, by its brackets and strings alone. What is between them
// is not judged: a model may write an object that is none, and who asked is told exactly what it wrote.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tandem {

class JsonScanner {
 public:
  // The object begins with the first byte of the first text. How many bytes of text belong to it.
  std::size_t push(std::string_view text);
  bool done() const { return begun_ && depth_ == 0; }

 private:
  std::int64_t depth_ = 0;
  bool begun_ = false, in_string_ = false, escaped_ = false;
};

}  // namespace tandem
