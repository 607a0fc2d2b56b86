// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Lines of a file or of standard input, without waiting longer than asked: answers to earlier lines must not be held up
// by a writer who waits for them.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

namespace tandem {

inline constexpr std::size_t kLineBytesMax = 64u << 20;

class LineSource {
 public:
  // "-" is standard input. Throws Error{kNotFound, kPermissionDenied, kInvalidArgument}.
  explicit LineSource(const std::string& path);
  ~LineSource();
  LineSource(const LineSource&) = delete;
  LineSource& operator=(const LineSource&) = delete;

  // The next line without its end; none when none came within timeout_ms (-1: wait) or at the end. Throws
  // Error{kInvalidData} for a line over kLineBytesMax.
  std::optional<std::string> next(int timeout_ms);
  bool ended() const { return ended_ && buffer_.empty(); }
  // All that is left, as one text.
  std::string rest();

 private:
  bool fill(int timeout_ms);  // whether anything came, its end included

  std::string path_;
  int fd_;
  std::string buffer_;
  std::size_t searched_ = 0;  // bytes of buffer_ that hold no line end
  bool ended_ = false;
};

}  // namespace tandem
