// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The C++ side of the border to the Rust library: a buffer that frees itself, and statuses that become Errors. Private
// to this folder and src/image, whose functions answer in the same way; nobody else includes tandem_text.h.
#pragma once

#include <tandem_text.h>

#include <string>
#include <string_view>

namespace tandem {

// Bytes that the Rust library owns, for the time of one scope.
class BorderBuffer {
 public:
  BorderBuffer() = default;
  BorderBuffer(const BorderBuffer&) = delete;
  BorderBuffer& operator=(const BorderBuffer&) = delete;
  ~BorderBuffer() { tandem_buffer_free(&buffer_); }
  TandemBuffer* out() { return &buffer_; }
  std::string_view view() const { return {reinterpret_cast<const char*>(buffer_.data), buffer_.size}; }

 private:
  TandemBuffer buffer_{};
};

inline const std::uint8_t* border_bytes(std::string_view text) {
  return reinterpret_cast<const std::uint8_t*>(text.data());
}

// Throws Error unless the status is ok; the message is "what: " and what the library said.
void require_ok(TandemStatus status, const BorderBuffer& buffer, std::string_view what);

}  // namespace tandem
