// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/file_rate.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <set>
#include <thread>

#include "base/clock.h"
#include "base/errno_text.h"
#include "base/error.h"
#include "base/format.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/mapped_file.h"
#include "tensor/tensor.h"

namespace tandem {

namespace {

constexpr std::int64_t kPieceBytes = 1 << 20;

class OpenFile {
 public:
  explicit OpenFile(const std::string& path) : path_(path), fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    struct stat info{};
    if (fd_ < 0 || ::fstat(fd_, &info) != 0) {
      const int error = errno;
      if (fd_ >= 0) ::close(fd_);
      fail(error);
    }
    size_ = info.st_size;
  }
  OpenFile(OpenFile&& other) noexcept : path_(std::move(other.path_)), fd_(other.fd_), size_(other.size_) {
    other.fd_ = -1;
  }
  OpenFile& operator=(OpenFile&&) = delete;
  ~OpenFile() {
    if (fd_ >= 0) ::close(fd_);
  }

  int fd() const { return fd_; }
  std::int64_t size() const { return size_; }
  // Errors come as numbers, so that threads need not throw.
  int read(std::int64_t offset, std::int64_t bytes, std::byte* out) const {
    while (bytes > 0) {
      const ssize_t count = ::pread(fd_, out, static_cast<std::size_t>(bytes), offset);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return count < 0 ? errno : EIO;
      offset += count;
      bytes -= count;
      out += count;
    }
    return 0;
  }
  [[noreturn]] void fail(int error) const {
    throw Error(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kInternal,
                format("{}: {}", path_, errno_text(error)));
  }

 private:
  std::string path_;
  int fd_;
  std::int64_t size_ = 0;
};

}  // namespace

std::vector<std::string> weight_files(const Checkpoint& checkpoint) {
  std::set<std::string> paths;
  for (const TensorInfo& info : checkpoint.tensors()) paths.insert(checkpoint.file(info).path());
  return {paths.begin(), paths.end()};
}

ReadResult read_files(const std::vector<std::string>& paths, int threads, ReadTo to) {
  std::vector<OpenFile> files;
  std::vector<std::pair<std::size_t, std::int64_t>> pieces;  // file, offset
  ReadResult result;
  for (const std::string& path : paths) {
    const OpenFile& file = files.emplace_back(path);
    for (std::int64_t offset = 0; offset < file.size(); offset += kPieceBytes)
      pieces.emplace_back(files.size() - 1, offset);
    result.bytes += file.size();
  }
  const Buffer all = allocate_host(to == ReadTo::kNewMemory ? pieces.size() * kPieceBytes : 0);
  std::atomic<std::size_t> next{0};
  std::atomic<int> error{0};
  std::atomic<std::size_t> failed{0};
  const auto work = [&] {
    std::vector<std::byte> one(kPieceBytes);
    for (std::size_t i = next++; i < pieces.size() && error == 0; i = next++) {
      const OpenFile& file = files[pieces[i].first];
      const std::int64_t offset = pieces[i].second;
      std::byte* out = to == ReadTo::kNewMemory ? all.bytes_data() + i * kPieceBytes : one.data();
      if (const int e = file.read(offset, std::min(kPieceBytes, file.size() - offset), out); e != 0) {
        failed = pieces[i].first;
        error = e;
      }
    }
  };
  const RealClock clock;
  const Nanoseconds begin = clock.now();
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
  result.seconds = static_cast<double>(clock.now() - begin) * 1e-9;
  if (error != 0) files[failed].fail(error);
  return result;
}

double cached_fraction(const std::vector<std::string>& paths) {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  std::uint64_t pages = 0, cached = 0;
  for (const std::string& path : paths) {
    const MappedFile file = MappedFile::open(path);
    std::vector<unsigned char> there((file.size() + page - 1) / page);
    if (::mincore(const_cast<std::byte*>(file.bytes().data()), file.size(), there.data()) != 0)
      OpenFile(path).fail(errno);
    pages += there.size();
    cached += static_cast<std::uint64_t>(std::ranges::count_if(there, [](unsigned char c) { return (c & 1) != 0; }));
  }
  return pages > 0 ? static_cast<double>(cached) / static_cast<double>(pages) : 0;
}

void drop_from_cache(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    const OpenFile file(path);
    ::fdatasync(file.fd());  // pages not yet written would stay; a file system that cannot write has none
    if (const int error = ::posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED); error != 0) file.fail(error);
  }
}

}  // namespace tandem
