// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/json.h"

#include <set>
#include <vector>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

// nlohmann's parser recurses only in the destructor, yet a bounded depth keeps every later walk bounded too.
int depth_of(std::string_view text) {
  int depth = 0, deepest = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = ++depth > deepest ? depth : deepest;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

// Watches a parse for a key that an object names twice.
class KeyWatch {
 public:
  // Called by the parser for every event; true keeps the value.
  bool on(Json::parse_event_t event, const Json& parsed) {
    if (event == Json::parse_event_t::object_start) {
      open_.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      open_.pop_back();
    } else if (event == Json::parse_event_t::key && !open_.back().insert(parsed.get<std::string>()).second &&
               repeated_.empty()) {
      repeated_ = to_line(parsed);
    }
    return true;
  }
  const std::string& repeated() const { return repeated_; }  // quoted; empty if none

 private:
  std::vector<std::set<std::string>> open_;
  std::string repeated_;
};

}  // namespace

Json parse_json(std::string_view text, const std::string& what, const JsonLimits& limits) {
  if (text.size() > limits.bytes_max)
    throw Error(ErrorCode::kInvalidData,
                format("{}: {} bytes of JSON, limit is {}", what, text.size(), limits.bytes_max));
  if (const int depth = depth_of(text); depth > limits.depth_max)
    throw Error(ErrorCode::kInvalidData, format("{}: JSON nested {} deep, limit is {}", what, depth, limits.depth_max));
  KeyWatch keys;
  Json::parser_callback_t watch;
  if (limits.unique_keys)
    watch = [&keys](int, Json::parse_event_t event, Json& parsed) { return keys.on(event, parsed); };
  Json value = Json::parse(text, watch, /*allow_exceptions=*/false);
  if (!keys.repeated().empty())
    throw Error(ErrorCode::kInvalidData, format("{}: key {} appears twice", what, keys.repeated()));
  if (value.is_discarded()) throw Error(ErrorCode::kInvalidData, format("{}: not valid JSON", what));
  return value;
}

std::string to_line(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace tandem
