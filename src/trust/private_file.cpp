// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "trust/private_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/errno_text.h"
#include "base/error.h"
#include "base/format.h"
#include "base/read_file.h"

namespace tandem {

void write_private_file(const std::string& path, std::string_view text) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (fd < 0 && errno == EEXIST)
    throw Error(ErrorCode::kInvalidArgument, format("{} exists, and secrets are not overwritten", path));
  const bool written = fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const int failure = errno;
  if (fd >= 0) close(fd);
  if (!written) throw Error(ErrorCode::kPermissionDenied, format("cannot write {}: {}", path, errno_text(failure)));
}

std::string read_private_file(const std::string& path, std::size_t bytes_max) {
  struct stat about = {};
  if (stat(path.c_str(), &about) == 0 && (about.st_mode & (S_IROTH | S_IWOTH)) != 0)
    throw Error(ErrorCode::kPermissionDenied,
                format("{} has a secret in it and mode {:04o}: other users can read or write it (chmod 600)", path,
                       about.st_mode & 07777u));
  std::string text = read_file_start(path, bytes_max);
  if (text.size() > bytes_max)
    throw Error(ErrorCode::kInvalidData, format("{} has more than {} bytes", path, bytes_max));
  return text;
}

}  // namespace tandem
