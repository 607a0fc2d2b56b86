// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <set>
#include <string_view>
#include <thread>
#include <vector>

#include "base/errno_text.h"
#include "base/error.h"
#include "base/format.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"

namespace tandem {

namespace {

constexpr std::size_t kHeaderAlignment = 8;

void validate(const std::string& path, std::span<const SafetensorsEntry> tensors) {
  std::set<std::string_view> names;
  for (const SafetensorsEntry& t : tensors) {
    if (t.name.empty() || t.name == "__metadata__" || t.name.size() > kTensorNameBytesMax)
      throw Error(ErrorCode::kInvalidArgument, format("{}: '{}' cannot name a tensor", path, printable(t.name)));
    if (!names.insert(t.name).second)
      throw Error(ErrorCode::kInvalidArgument, format("{}: tensor '{}' is given twice", path, t.name));
    if (safetensors_name(t.dtype).empty())
      throw Error(ErrorCode::kUnsupported,
                  format("{}: tensor '{}': safetensors has no type {}", path, t.name, name(t.dtype)));
  }
}

void validate_data(const std::string& path, std::span<const SafetensorsTensor> tensors,
                   std::span<const SafetensorsEntry> entries) {
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (const SafetensorsTensor& t = tensors[i]; t.data.size() != entries[i].bytes())
      throw Error(ErrorCode::kInvalidArgument,
                  format("{}: tensor '{}' of {} {} takes {} bytes, {} were given", path, t.name, name(t.dtype),
                         to_string(t.shape), entries[i].bytes(), t.data.size()));
}

// Indices of the tensors in the order of the file.
std::vector<std::size_t> file_order(std::span<const SafetensorsEntry> tensors) {
  std::vector<std::size_t> order(tensors.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::sort(order, [&](std::size_t a, std::size_t b) {
    const std::size_t a_bytes = traits(tensors[a].dtype).block_bytes, b_bytes = traits(tensors[b].dtype).block_bytes;
    return a_bytes != b_bytes ? a_bytes > b_bytes : a < b;  // else the order they were given in
  });
  return order;
}

std::string header_text(std::span<const SafetensorsEntry> tensors, const std::vector<std::size_t>& order,
                        const SafetensorsMetadata& metadata) {
  // Objects that keep an order find each key by walking all of them; the tensors of a large model are too many for it.
  std::string text = "{";
  if (!metadata.empty()) text += "\"__metadata__\":" + to_line(Json(metadata));
  std::uint64_t offset = 0;
  for (const std::size_t i : order) {
    const SafetensorsEntry& t = tensors[i];
    const std::vector<std::int64_t> dims(t.shape.dims.begin(), t.shape.dims.begin() + t.shape.rank);
    text += text.size() > 1 ? "," : "";
    text += format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", to_line(Json(t.name)),
                   safetensors_name(t.dtype), join(dims, ","), offset, offset + t.bytes());
    offset += t.bytes();
  }
  text += "}";
  text.resize((text.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');
  return text;
}

// A file that is removed unless it was finished. write may be called from several threads.
class PartialFile {
 public:
  PartialFile(const std::string& path, std::uint64_t size)
      : path_(path),
        partial_(path + ".partial"),
        fd_(::open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
    if (fd_ < 0) fail(errno);
    // A full disk is found out now. A file system that cannot promise space says so when it is written to.
    if (::fallocate(fd_, 0, 0, static_cast<off_t>(size)) != 0 && (errno == ENOSPC || errno == EDQUOT)) {
      const int error = errno;
      discard();
      fail(error);
    }
  }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;
  ~PartialFile() { discard(); }

  void write(std::uint64_t offset, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail(errno);
      offset += static_cast<std::uint64_t>(count);
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
  }
  void finish() {
    if (std::rename(partial_.c_str(), path_.c_str()) != 0) fail(errno);
    const int fd = fd_;
    fd_ = -1;
    if (::close(fd) != 0) fail(errno);
  }

 private:
  void discard() {
    if (fd_ < 0) return;
    ::close(fd_);
    fd_ = -1;
    std::remove(partial_.c_str());
  }
  [[noreturn]] void fail(int error) const {
    const ErrorCode code = error == EACCES || error == EPERM    ? ErrorCode::kPermissionDenied
                           : error == ENOENT                    ? ErrorCode::kNotFound
                           : error == ENOSPC || error == EDQUOT ? ErrorCode::kOutOfResources
                                                                : ErrorCode::kInternal;
    throw Error(code, format("{}: {}", path_, errno_text(error)));
  }

  std::string path_;
  std::string partial_;
  int fd_;
};

// Hands out the pieces of all tensors, in the order of the file, to threads that make and write them.
class PieceWriter {
 public:
  PieceWriter(PartialFile& file, std::uint64_t data_begin, std::span<const SafetensorsEntry> tensors,
              const std::vector<std::size_t>& order, const SafetensorsSource& source)
      : file_(file), tensors_(tensors), order_(order), source_(source), file_offset_(data_begin) {}

  void run() {
    std::vector<std::thread> threads;
    for (int i = 1; i < source_.threads; ++i) threads.emplace_back([this] { work(); });
    work();
    for (std::thread& thread : threads) thread.join();
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  struct Piece {
    std::size_t tensor;
    std::uint64_t offset, file_offset;
    std::size_t bytes;
  };

  void work() {
    try {
      std::vector<std::byte> bytes(kSafetensorsPieceBytes);
      while (const std::optional<Piece> piece = next()) {
        const std::span<std::byte> out(bytes.data(), piece->bytes);
        source_.fill(piece->tensor, piece->offset, out);
        file_.write(piece->file_offset, out);
        tell(out.size());
      }
    } catch (...) {
      std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
  }

  std::optional<Piece> next() {
    std::lock_guard lock(mutex_);
    if (failure_) return std::nullopt;
    while (at_ < order_.size() && offset_ == tensors_[order_[at_]].bytes()) {
      ++at_;
      offset_ = 0;
    }
    if (at_ == order_.size()) return std::nullopt;
    const std::uint64_t left = tensors_[order_[at_]].bytes() - offset_;
    const Piece piece{order_[at_], offset_, file_offset_, std::min<std::uint64_t>(left, kSafetensorsPieceBytes)};
    offset_ += piece.bytes;
    file_offset_ += piece.bytes;
    return piece;
  }

  void tell(std::size_t bytes) {
    if (!source_.listener) return;
    std::lock_guard lock(mutex_);
    source_.listener(static_cast<std::int64_t>(bytes));
  }

  PartialFile& file_;
  std::span<const SafetensorsEntry> tensors_;
  const std::vector<std::size_t>& order_;
  const SafetensorsSource& source_;
  std::mutex mutex_;  // guards all below
  std::size_t at_ = 0;
  std::uint64_t offset_ = 0, file_offset_;
  std::exception_ptr failure_;
};

}  // namespace

void write_safetensors(const std::string& path, std::span<const SafetensorsEntry> tensors,
                       const SafetensorsSource& source, const SafetensorsMetadata& metadata) {
  validate(path, tensors);
  const std::vector<std::size_t> order = file_order(tensors);
  const std::string header = header_text(tensors, order, metadata);
  const std::uint64_t length = header.size(), data_begin = sizeof length + length;
  std::uint64_t size = data_begin;
  for (const SafetensorsEntry& t : tensors) size += t.bytes();
  PartialFile file(path, size);
  file.write(0, std::as_bytes(std::span(&length, 1)));
  file.write(sizeof length, std::as_bytes(std::span(header)));
  PieceWriter(file, data_begin, tensors, order, source).run();
  file.finish();
}

void write_safetensors(const std::string& path, std::span<const SafetensorsTensor> tensors,
                       const SafetensorsMetadata& metadata) {
  std::vector<SafetensorsEntry> entries;
  for (const SafetensorsTensor& t : tensors) entries.push_back({t.name, t.dtype, t.shape});
  validate(path, entries);
  validate_data(path, tensors, entries);
  const auto fill = [&](std::size_t index, std::uint64_t offset, std::span<std::byte> out) {
    std::memcpy(out.data(), tensors[index].data.data() + offset, out.size());
  };
  write_safetensors(path, entries, {fill, 1, {}}, metadata);
}

}  // namespace tandem
