// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A file mapped read-only into memory.
//
// It is not a reader: parsers take the bytes as a span and never see a path. Weights are packed from the mapping into
// memory of our own, and pages already packed are given back with release, so that a model never lies in memory twice.
// The mapping assumes that nobody shortens the file while it is open; the kernel answers that with SIGBUS.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace tandem {

// Move-only. All const members may be called from any thread.
class MappedFile {
 public:
  // Throws Error: kNotFound, kPermissionDenied, kInvalidArgument for what is not a regular file, kInvalidData for an
  // empty one, kOutOfResources.
  static MappedFile open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::string& path() const { return path_; }
  std::uint64_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // The part [offset, offset + count), which must lie inside the file.
  std::span<const std::byte> bytes(std::uint64_t offset, std::uint64_t count) const;

  // Tells the kernel that a part is not needed for now. Only pages that lie wholly inside it leave memory; whoever
  // reads them again gets them from the file.
  void release(std::uint64_t offset, std::uint64_t count) const;
  // Asks the kernel to start reading a part.
  void prefetch(std::uint64_t offset, std::uint64_t count) const;

 private:
  MappedFile(std::string path, const std::byte* data, std::uint64_t size);
  void swap(MappedFile& other) noexcept;

  std::string path_;
  const std::byte* data_ = nullptr;
  std::uint64_t size_ = 0;
};

}  // namespace tandem
