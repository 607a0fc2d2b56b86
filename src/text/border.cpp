// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "text/border.h"

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

ErrorCode code_of(TandemStatus status) {
  switch (status) {
    case TandemInvalidArgument:
      return ErrorCode::kInvalidArgument;
    case TandemInvalidData:
    case TandemPanicked:  // bytes from outside that a library did not expect: they end the request, not the process
      return ErrorCode::kInvalidData;
    case TandemOutOfResources:
      return ErrorCode::kOutOfResources;
    case TandemUnavailable:
      return ErrorCode::kUnavailable;
    case TandemOk:
      break;
  }
  return ErrorCode::kInternal;
}

}  // namespace

void require_ok(TandemStatus status, const BorderBuffer& buffer, std::string_view what) {
  if (status != TandemOk) throw Error(code_of(status), format("{}: {}", what, buffer.view()));
}

}  // namespace tandem
