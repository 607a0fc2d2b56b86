// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/check.h"
#include "base/errno_text.h"
#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

[[noreturn]] void throw_errno(const std::string& path, int error) {
  const std::string message = format("{}: {}", path, errno_text(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      throw Error(ErrorCode::kNotFound, message);
    case EACCES:
    case EPERM:
      throw Error(ErrorCode::kPermissionDenied, message);
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      throw Error(ErrorCode::kOutOfResources, message);
    case ENAMETOOLONG:
    case ELOOP:
      throw Error(ErrorCode::kInvalidArgument, message);
    default:
      throw Error(ErrorCode::kInternal, message);
  }
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

std::uint64_t page_bytes() {
  static const auto bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

}  // namespace

MappedFile MappedFile::open(const std::string& path) {
  // O_NONBLOCK: opening a pipe must not wait for a writer; on regular files it does nothing.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) throw_errno(path, errno);
  struct stat info{};
  if (::fstat(file.get(), &info) != 0) throw_errno(path, errno);
  if (S_ISDIR(info.st_mode)) throw Error(ErrorCode::kInvalidArgument, format("{}: is a directory, not a file", path));
  if (!S_ISREG(info.st_mode)) throw Error(ErrorCode::kInvalidArgument, format("{}: is not a regular file", path));
  if (info.st_size == 0) throw Error(ErrorCode::kInvalidData, format("{}: file is empty", path));

  const auto size = static_cast<std::uint64_t>(info.st_size);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) throw_errno(path, errno);
  return MappedFile(path, static_cast<const std::byte*>(data), size);
}

MappedFile::MappedFile(std::string path, const std::byte* data, std::uint64_t size)
    : path_(std::move(path)), data_(data), size_(size) {}

MappedFile::MappedFile(MappedFile&& other) noexcept {
  swap(other);
}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  MappedFile old(std::move(other));
  swap(old);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::swap(MappedFile& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
}

std::span<const std::byte> MappedFile::bytes(std::uint64_t offset, std::uint64_t count) const {
  TANDEM_CHECK(offset <= size_ && count <= size_ - offset, "range outside the mapped file");
  return bytes().subspan(offset, count);
}

void MappedFile::release(std::uint64_t offset, std::uint64_t count) const {
  TANDEM_CHECK(offset <= size_ && count <= size_ - offset, "range outside the mapped file");
  const std::uint64_t page = page_bytes();
  const std::uint64_t begin = (offset + page - 1) / page * page;
  const std::uint64_t end = (offset + count) / page * page;
  // Advice: a kernel that refuses it costs memory and nothing else.
  if (begin < end) ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

void MappedFile::prefetch(std::uint64_t offset, std::uint64_t count) const {
  TANDEM_CHECK(offset <= size_ && count <= size_ - offset, "range outside the mapped file");
  const std::uint64_t begin = offset / page_bytes() * page_bytes();
  if (count > 0) ::madvise(const_cast<std::byte*>(data_) + begin, offset + count - begin, MADV_WILLNEED);
}

}  // namespace tandem
