// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Bytes put together field by field, for tests of file parsers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace tandem {

class Bytes {
 public:
  template <class T>
  Bytes& number(T value) {
    const std::size_t at = data_.size();
    data_.resize(at + sizeof value);
    std::memcpy(data_.data() + at, &value, sizeof value);
    return *this;
  }
  Bytes& u8(std::uint8_t value) { return number(value); }
  Bytes& u32(std::uint32_t value) { return number(value); }
  Bytes& u64(std::uint64_t value) { return number(value); }
  Bytes& text(std::string_view value) {
    for (const char c : value) data_.push_back(static_cast<std::byte>(c));
    return *this;
  }
  // A GGUF string: its length, then its bytes.
  Bytes& string(std::string_view value) { return u64(value.size()).text(value); }
  Bytes& zeros(std::size_t count) {
    data_.resize(data_.size() + count);
    return *this;
  }
  Bytes& align(std::size_t alignment) { return zeros((alignment - data_.size() % alignment) % alignment); }

  std::vector<std::byte>& data() { return data_; }
  std::span<const std::byte> span() const { return data_; }

 private:
  std::vector<std::byte> data_;
};

}  // namespace tandem
