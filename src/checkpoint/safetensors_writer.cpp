// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/safetensors_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <set>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/error.h"
#include "base/format.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"

namespace tandem {

namespace {

constexpr std::size_t kHeaderAlignment = 8;

void validate(const std::string& path, std::span<const SafetensorsTensor> tensors) {
  std::set<std::string_view> names;
  for (const SafetensorsTensor& t : tensors) {
    if (t.name.empty() || t.name == "__metadata__" || t.name.size() > kTensorNameBytesMax)
      throw Error(ErrorCode::kInvalidArgument, format("{}: '{}' cannot name a tensor", path, printable(t.name)));
    if (!names.insert(t.name).second)
      throw Error(ErrorCode::kInvalidArgument, format("{}: tensor '{}' is given twice", path, t.name));
    if (safetensors_name(t.dtype).empty())
      throw Error(ErrorCode::kUnsupported,
                  format("{}: tensor '{}': safetensors has no type {}", path, t.name, name(t.dtype)));
    const std::size_t expected = row_bytes(t.dtype, static_cast<std::size_t>(t.shape.elements()));
    if (t.data.size() != expected)
      throw Error(ErrorCode::kInvalidArgument,
                  format("{}: tensor '{}' of {} {} takes {} bytes, {} were given", path, t.name, name(t.dtype),
                         to_string(t.shape), expected, t.data.size()));
  }
}

std::string header_text(std::span<const SafetensorsTensor* const> ordered,
                        const std::map<std::string, std::string>& metadata) {
  OrderedJson header = OrderedJson::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (const SafetensorsTensor* t : ordered) {
    std::vector<std::int64_t> dims(t->shape.dims.begin(), t->shape.dims.begin() + t->shape.rank);
    header[t->name] = {{"dtype", safetensors_name(t->dtype)},
                       {"shape", dims},
                       {"data_offsets", std::vector<std::uint64_t>{offset, offset + t->data.size()}}};
    offset += t->data.size();
  }
  std::string text = header.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  text.resize((text.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');
  return text;
}

// A file that is removed unless it was finished.
class PartialFile {
 public:
  explicit PartialFile(const std::string& path)
      : path_(path), partial_(path + ".partial"), file_(std::fopen(partial_.c_str(), "wb")) {
    if (!file_) fail();
  }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;
  ~PartialFile() {
    if (!file_) return;
    std::fclose(file_);
    std::remove(partial_.c_str());
  }
  void write(const void* data, std::size_t bytes) {
    if (bytes > 0 && std::fwrite(data, 1, bytes, file_) != bytes) fail();
  }
  void finish() {
    if (std::fflush(file_) != 0) fail();
    if (std::rename(partial_.c_str(), path_.c_str()) != 0) fail();
    std::fclose(file_);
    file_ = nullptr;
  }

 private:
  [[noreturn]] void fail() const {
    const int error = errno;
    const ErrorCode code = error == EACCES || error == EPERM    ? ErrorCode::kPermissionDenied
                           : error == ENOENT                    ? ErrorCode::kNotFound
                           : error == ENOSPC || error == EDQUOT ? ErrorCode::kOutOfResources
                                                                : ErrorCode::kInternal;
    throw Error(code, format("{}: {}", path_, std::generic_category().message(error)));
  }

  std::string path_;
  std::string partial_;
  std::FILE* file_;
};

}  // namespace

void write_safetensors(const std::string& path, std::span<const SafetensorsTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  validate(path, tensors);
  std::vector<const SafetensorsTensor*> ordered;
  for (const SafetensorsTensor& t : tensors) ordered.push_back(&t);
  std::ranges::sort(ordered, [](const SafetensorsTensor* a, const SafetensorsTensor* b) {
    const std::size_t a_bytes = traits(a->dtype).block_bytes, b_bytes = traits(b->dtype).block_bytes;
    return a_bytes != b_bytes ? a_bytes > b_bytes : a < b;  // else the order they were given in
  });

  const std::string header = header_text(ordered, metadata);
  const std::uint64_t length = header.size();
  PartialFile file(path);
  file.write(&length, sizeof length);
  file.write(header.data(), header.size());
  for (const SafetensorsTensor* t : ordered) file.write(t->data.data(), t->data.size());
  file.finish();
}

}  // namespace tandem
