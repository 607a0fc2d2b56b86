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

void check_before(std::string_view text, const std::string& what, const JsonLimits& limits) {
  if (text.size() > limits.bytes_max)
    throw Error(ErrorCode::kInvalidData,
                format("{}: {} bytes of JSON, limit is {}", what, text.size(), limits.bytes_max));
  if (const int depth = depth_of(text); depth > limits.depth_max)
    throw Error(ErrorCode::kInvalidData, format("{}: JSON nested {} deep, limit is {}", what, depth, limits.depth_max));
}

// Watches a parse for a key that an object names twice, and for sizes.
template <class AnyJson>
class Watch {
 public:
  using Event = typename AnyJson::parse_event_t;
  Watch(const std::string& what, const JsonLimits& limits, bool bounded)
      : what_(what), limits_(limits), bounded_(bounded) {}

  // Called by the parser for every event; true keeps the value. What it throws ends the parse.
  bool on(Event event, const AnyJson& parsed) {
    if (event == Event::object_start) {
      open_.emplace_back();
    } else if (event == Event::object_end) {
      open_.pop_back();
    } else if (event == Event::key) {
      const bool fresh = open_.back().insert(parsed.template get<std::string>()).second;
      if (!fresh && limits_.unique_keys && repeated_.empty())
        repeated_ = parsed.dump(-1, ' ', false, AnyJson::error_handler_t::replace);
      if (bounded_ && open_.back().size() > limits_.keys_max) fail("keys in one object", limits_.keys_max);
    }
    if (bounded_ && (event == Event::value || event == Event::object_start || event == Event::array_start) &&
        ++values_ > limits_.values_max)
      fail("values", limits_.values_max);
    return true;
  }
  const std::string& repeated() const { return repeated_; }  // quoted; empty if none

 private:
  [[noreturn]] void fail(const char* of, std::size_t limit) const {
    throw Error(ErrorCode::kInvalidData, format("{}: more than {} {} in JSON", what_, limit, of));
  }

  const std::string& what_;
  const JsonLimits& limits_;
  const bool bounded_;
  std::size_t values_ = 0;
  std::vector<std::set<std::string>> open_;
  std::string repeated_;
};

template <class AnyJson>
AnyJson parse(std::string_view text, const std::string& what, const JsonLimits& limits, bool bounded) {
  check_before(text, what, limits);
  Watch<AnyJson> watch(what, limits, bounded);
  typename AnyJson::parser_callback_t callback;
  if (limits.unique_keys || bounded)
    callback = [&watch](int, typename AnyJson::parse_event_t event, AnyJson& parsed) {
      return watch.on(event, parsed);
    };
  AnyJson value = AnyJson::parse(text, callback, /*allow_exceptions=*/false);
  if (!watch.repeated().empty())
    throw Error(ErrorCode::kInvalidData, format("{}: key {} appears twice", what, watch.repeated()));
  if (value.is_discarded()) throw Error(ErrorCode::kInvalidData, format("{}: not valid JSON", what));
  return value;
}

}  // namespace

Json parse_json(std::string_view text, const std::string& what, const JsonLimits& limits) {
  return parse<Json>(text, what, limits, false);
}

OrderedJson parse_ordered_json(std::string_view text, const std::string& what, const JsonLimits& limits) {
  return parse<OrderedJson>(text, what, limits, true);
}

std::string to_line(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string to_line(const OrderedJson& value) {
  return value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace tandem
