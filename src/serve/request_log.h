// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// One line per exchange, as text or JSON: who, what, how long, how it ended. What clients wrote and what they were told
// is never in it. A full disk costs lines, which are counted, and nothing else.
#pragma once

#include <mutex>
#include <string>

#include "base/json.h"
#include "serve/metrics.h"

namespace tandem {

class RequestLog {
 public:
  // file empty: standard error. Throws Error when the file cannot be opened.
  RequestLog(const std::string& file, const std::string& format, Metrics& metrics);
  ~RequestLog();
  RequestLog(const RequestLog&) = delete;
  RequestLog& operator=(const RequestLog&) = delete;

  // Adds the time. Any thread.
  void write(const OrderedJson& line);

 private:
  std::mutex mutex_;  // lines are written whole, one after the other
  int fd_;
  bool json_, off_;
  Metrics& metrics_;
};

}  // namespace tandem
