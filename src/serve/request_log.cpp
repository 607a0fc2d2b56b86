// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/request_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

#include "base/errno_text.h"
#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

std::string utc_now() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  std::tm parts{};
  gmtime_r(&now.tv_sec, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  return format("{}.{:03}Z", text, now.tv_nsec / 1'000'000);
}

// Values that are text stand without quotes, unless they hold what could be mistaken for another field or line.
std::string plain(const OrderedJson& value) {
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    bool safe = !text.empty();
    for (const char c : text) safe = safe && c > ' ' && c < 0x7f && c != '"' && c != '=' && c != '\\';
    if (safe) return text;
  }
  return value.dump(-1, ' ', true, OrderedJson::error_handler_t::replace);
}

}  // namespace

RequestLog::RequestLog(const std::string& file, const std::string& format_name, Metrics& metrics)
    : fd_(STDERR_FILENO), json_(format_name == "json"), off_(format_name == "off"), metrics_(metrics) {
  if (file.empty()) return;
  fd_ = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (fd_ < 0) throw Error(ErrorCode::kNotFound, format("--log-file {} cannot be opened: {}", file, errno_text(errno)));
}

RequestLog::~RequestLog() {
  if (fd_ != STDERR_FILENO) ::close(fd_);
}

void RequestLog::write(const OrderedJson& line) {
  if (off_) return;
  std::string text;
  if (json_) {
    OrderedJson timed{{"time", utc_now()}};
    timed.update(line);
    text = timed.dump(-1, ' ', true, OrderedJson::error_handler_t::replace);
  } else {
    text = utc_now();
    for (const auto& [key, value] : line.items()) text += format(" {}={}", key, plain(value));
  }
  text += '\n';
  std::lock_guard lock(mutex_);
  ssize_t written = 0;
  do {
    written = ::write(fd_, text.data(), text.size());
  } while (written < 0 && errno == EINTR);
  if (written != static_cast<ssize_t>(text.size())) ++metrics_.log_lines_lost;
}

}  // namespace tandem
