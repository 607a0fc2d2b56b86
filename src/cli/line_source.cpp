// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/line_source.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>

#include "base/errno_text.h"
#include "base/error.h"
#include "base/format.h"

namespace tandem {

LineSource::LineSource(const std::string& path)
    : path_(path == "-" ? "standard input" : path),
      fd_(path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (fd_ >= 0) return;
  const ErrorCode code = errno == ENOENT   ? ErrorCode::kNotFound
                         : errno == EACCES ? ErrorCode::kPermissionDenied
                                           : ErrorCode::kInvalidArgument;
  throw Error(code, format("cannot read {}: {}", path_, errno_text(errno)));
}

LineSource::~LineSource() {
  if (fd_ != STDIN_FILENO) close(fd_);
}

bool LineSource::fill(int timeout_ms) {
  pollfd waited{.fd = fd_, .events = POLLIN, .revents = 0};
  if (const int ready = poll(&waited, 1, timeout_ms); ready == 0 || (ready < 0 && errno == EINTR)) return false;
  std::array<char, 1 << 16> bytes;
  const ssize_t count = read(fd_, bytes.data(), bytes.size());
  if (count < 0 && (errno == EINTR || errno == EAGAIN)) return false;
  if (count < 0) throw Error(ErrorCode::kInvalidArgument, format("cannot read {}: {}", path_, errno_text(errno)));
  buffer_.append(bytes.data(), static_cast<std::size_t>(count));
  ended_ = count == 0;
  return true;
}

std::optional<std::string> LineSource::next(int timeout_ms) {
  while (true) {
    const std::size_t end = buffer_.find('\n', searched_);
    if (end != std::string::npos || (ended_ && !buffer_.empty())) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end == std::string::npos ? end : end + 1);
      searched_ = 0;
      return line;
    }
    searched_ = buffer_.size();
    if (searched_ > kLineBytesMax)
      throw Error(ErrorCode::kInvalidData, format("{}: a line has over {} bytes", path_, kLineBytesMax));
    if (ended_ || !fill(timeout_ms)) return std::nullopt;
  }
}

std::string LineSource::rest() {
  while (!ended_) {
    fill(-1);
    if (buffer_.size() > kLineBytesMax)
      throw Error(ErrorCode::kInvalidData, format("{} has over {} bytes", path_, kLineBytesMax));
  }
  searched_ = 0;
  return std::exchange(buffer_, {});
}

}  // namespace tandem
