// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Errors of set-up and of requests, and results of the data path.
//
// Three kinds, never mixed:
//   a bug                        TANDEM_CHECK (check.h): says where, and stops
//   a bad request or set-up      throw Error; caught in main, at admission, in the HTTP handler
//   normal in the data path      Status / Result<T>: queue full, peer gone. No exceptions inside a step.
// A message names the thing, the value and the limit:
//   "prompt has 140000 tokens, limit is 131072 (--context-tokens-max)"
#pragma once

#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"

namespace tandem {

enum class ErrorCode {
  kInvalidArgument,  // the caller's value is wrong
  kInvalidData,      // bytes from outside do not hold together
  kUnsupported,      // understood, and not something this build does
  kNotFound,
  kPermissionDenied,
  kOutOfResources,  // a named maximum or the machine's memory is reached
  kUnavailable,     // a peer is gone or did not answer in time
  kCancelled,
  kInternal,
};

std::string_view name(ErrorCode code);

class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }
  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  ErrorCode code_;
  std::string message_;
};

// The outcome of an operation that may fail in normal running.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(ErrorCode code, std::string message) : error_(Error(code, std::move(message))) {}
  static Status ok() { return {}; }
  bool is_ok() const { return !error_; }
  explicit operator bool() const { return is_ok(); }
  const Error& error() const {
    TANDEM_CHECK(error_, "no error in an ok status");
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

// A value or the error that took its place.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  Result(ErrorCode code, std::string message) : error_(Error(code, std::move(message))) {}
  bool is_ok() const { return value_.has_value(); }
  explicit operator bool() const { return is_ok(); }
  T& value() {
    TANDEM_CHECK(value_, "no value in a failed result");
    return *value_;
  }
  const Error& error() const {
    TANDEM_CHECK(error_, "no error in an ok result");
    return *error_;
  }

 private:
  std::optional<T> value_;
  std::optional<Error> error_;
};

}  // namespace tandem
