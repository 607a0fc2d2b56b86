// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Every field of a completion request that has a meaning, in one table: what it may be, and what it sets. A field that
// is not in the table is passed over and counted. The page of docs and the tests of bad values walk the same rows.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "serve/openai/request.h"

namespace tandem {

enum class FieldKind { kNumber, kInteger, kBoolean, kText, kOther };
enum class FieldUse {
  kSupported,
  kUnsupported,  // what it means is known and not done here: an error, unless it asks for nothing
  kNoEffect,     // taken and without consequences for the answer
};

// A request while its fields are read: some can only be understood when all are known.
struct RequestDraft {
  CompletionRequest request;
  const RequestScope* scope = nullptr;
  const OrderedJson* prompt = nullptr;  // or the messages
  OrderedJson variables = OrderedJson::object();
  const OrderedJson* tools = nullptr;
  const OrderedJson* tool_choice = nullptr;
  bool parallel_calls = true;
  std::vector<std::pair<std::string, const OrderedJson*>> forms;  // fields that ask for a form of the answer
  bool chat_logprobs = false;
  std::int64_t top_logprobs = -1;  // -1: not said
};

struct FieldRow {
  using Setter = void (*)(RequestDraft&, const FieldRow&, const OrderedJson&);
  std::string_view name;
  unsigned endpoints;  // of Endpoint, or'ed
  FieldUse use;
  FieldKind kind;
  std::string_view doc;
  Setter set = nullptr;  // of supported fields; the value has the row's kind and range
  double min = 0, max = 0;
  std::int64_t RequestLimits::* limit = nullptr;  // lowers max
  std::string_view neutral = "[]";                // of unsupported fields: a JSON array of values that ask for nothing
};

std::span<const FieldRow> field_rows();
// null when the field has no row for the endpoint.
const FieldRow* find_field(std::string_view name, Endpoint endpoint);
// Checks value against row and sets what it says. A null is as good as no field. Throws ApiError.
void set_field(RequestDraft& draft, const FieldRow& row, const OrderedJson& value);

[[noreturn]] void bad_field(std::string_view field, std::string_view problem);

}  // namespace tandem
