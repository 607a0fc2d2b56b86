// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/call_parser.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "chat_format/pattern.h"

namespace tandem {

namespace {

using Kind = AnswerEvent::Kind;
constexpr std::size_t kWholeCallBytesMax = 1 << 20;  // of a call that cannot be streamed

// {"name": …, "arguments": {…}}: the name and the arguments as they were written.
std::optional<std::pair<std::string, std::string>> read_call(std::string_view text) {
  OrderedJson call;
  try {
    call = parse_ordered_json(text, "call");
  } catch (const Error&) {
    return std::nullopt;
  }
  const auto name = call.find("name");
  if (name == call.end() || !name->is_string() || !is_tool_name(name->get_ref<const std::string&>()))
    return std::nullopt;
  const auto arguments = call.find(call.contains("arguments") ? "arguments" : "parameters");
  if (arguments != call.end() && !arguments->is_object()) return std::nullopt;
  return std::pair(name->get<std::string>(), arguments == call.end() ? "{}" : arguments->dump());
}

}  // namespace

void CallParser::push(std::string_view text, AnswerEvents& events) {
  rest_ += text;
  while (step(events)) {
  }
}

void CallParser::finish(AnswerEvents& events) {
  switch (state_) {
    case State::kContent:
    case State::kBlock:
    case State::kHead:
    case State::kWholeJson:
      add_event(events, Kind::kContent, kept_ + rest_);
      break;
    case State::kValue:
      if (types_ == kTypeString) text_value(rest_, events);
      break;
    case State::kJson:
    case State::kParameters:
      break;  // the arguments are cut, as the answer is
    case State::kTail:
      end_call(events);
      break;
  }
  rest_.clear();
  kept_.clear();
}

// One step ahead; false when more text is needed.
bool CallParser::step(AnswerEvents& events) {
  if (rest_.empty()) return false;
  switch (state_) {
    case State::kContent:
      return content(events);
    case State::kBlock:
      return block(events);
    case State::kHead:
      return head(events);
    case State::kJson:
      return json(events);
    case State::kWholeJson:
      return whole_json(events);
    case State::kParameters:
      return parameters(events);
    case State::kValue:
      return value(events);
    case State::kTail:
      return tail(events);
  }
  return false;
}

// Moves the first bytes of rest_ to kept_.
void CallParser::keep(std::size_t bytes) {
  kept_ += std::string_view(rest_).substr(0, bytes);
  rest_.erase(0, bytes);
}

// No call comes of what was kept: it is content, and what follows is looked at anew.
bool CallParser::give_up(AnswerEvents& events) {
  add_event(events, Kind::kContent, kept_);
  kept_.clear();
  state_ = State::kContent;
  return true;
}

bool CallParser::content(AnswerEvents& events) {
  if (skips_space_) rest_.erase(rest_.begin(), std::ranges::find_if_not(rest_, is_space));
  if (rest_.empty()) return false;
  const bool blocks = !syntax_.block_begin.empty();
  const std::string_view mark = blocks ? syntax_.block_begin : syntax_.call_begin;
  const std::string_view text = rest_;
  const std::size_t at = text.find(mark);
  const bool found = at != std::string_view::npos;
  const std::string_view before = text.substr(0, at);
  const std::size_t hold = found ? trailing_space(before) : bytes_to_hold(before, mark);
  add_event(events, Kind::kContent, before.substr(0, before.size() - hold));
  if (before.size() > hold || found) skips_space_ = false;
  rest_.erase(0, before.size() - hold);
  if (!found) return false;
  keep(hold + mark.size());
  state_ = blocks ? State::kBlock : State::kHead;
  return true;
}

bool CallParser::block(AnswerEvents& events) {
  const PatternMatch call = match_mark(syntax_.call_begin, rest_), over = match_mark(syntax_.block_end, rest_);
  if (call.kind == PatternMatch::Kind::kYes) {
    keep(call.end);
    state_ = State::kHead;
    return true;
  }
  const bool more = call.kind == PatternMatch::Kind::kMore || over.kind == PatternMatch::Kind::kMore;
  if (over.kind == PatternMatch::Kind::kNo) return more ? false : give_up(events);
  if (over.kind == PatternMatch::Kind::kMore) return false;
  if (!kept_.empty()) {  // a block without a call
    keep(over.end);
    return give_up(events);
  }
  rest_.erase(0, over.end);
  state_ = State::kContent;
  skips_space_ = true;
  return true;
}

bool CallParser::head(AnswerEvents& events) {
  for (const CallForm& form : syntax_.forms) {
    const PatternMatch match = match_pattern(form.head, rest_);
    if (match.kind == PatternMatch::Kind::kMore) return false;
    if (match.kind == PatternMatch::Kind::kNo) continue;
    form_ = &form;
    scanner_ = {};
    scanned_ = 0;
    if (form.body == CallBody::kWholeJson) {
      keep(match.end);
      state_ = State::kWholeJson;
      return true;
    }
    begin_call(match.name, events);
    rest_.erase(0, match.end);
    state_ = form.body == CallBody::kJson ? State::kJson : State::kParameters;
    first_parameter_ = true;
    if (form.body == CallBody::kParameters) arguments("{", events);
    return true;
  }
  return give_up(events);
}

void CallParser::begin_call(std::string_view name, AnswerEvents& events) {
  kept_.clear();
  tool_ = name;
  add_event(events, Kind::kCallBegin, name, calls_++);
}

void CallParser::end_call(AnswerEvents& events) {
  add_event(events, Kind::kCallEnd, {}, calls_ - 1);
}

void CallParser::arguments(std::string_view text, AnswerEvents& events) {
  add_event(events, Kind::kArguments, text, calls_ - 1);
}

bool CallParser::json(AnswerEvents& events) {
  const std::size_t bytes = scanner_.push(rest_);
  arguments(std::string_view(rest_).substr(0, bytes), events);
  rest_.erase(0, bytes);
  if (!scanner_.done()) return false;
  state_ = State::kTail;
  return true;
}

bool CallParser::whole_json(AnswerEvents& events) {
  scanned_ += scanner_.push(std::string_view(rest_).substr(scanned_));
  if (!scanner_.done() && rest_.size() <= kWholeCallBytesMax) return false;
  const auto call = scanner_.done() ? read_call(std::string_view(rest_).substr(0, scanned_)) : std::nullopt;
  if (!call) {
    keep(scanned_);
    return give_up(events);
  }
  begin_call(call->first, events);
  arguments(call->second, events);
  rest_.erase(0, scanned_);
  state_ = State::kTail;
  return true;
}

bool CallParser::tail(AnswerEvents& events) {
  const PatternMatch match = match_pattern(form_->tail, rest_);
  if (match.kind == PatternMatch::Kind::kMore) return false;
  end_call(events);
  rest_.erase(0, match.end);
  const bool whole = match.kind == PatternMatch::Kind::kYes;
  state_ = whole && !syntax_.block_begin.empty() ? State::kBlock : State::kContent;
  skips_space_ = whole;
  return true;
}

// ---- values between tags

bool CallParser::parameters(AnswerEvents& events) {
  const PatternMatch next = match_pattern(kParameterBegin, rest_);
  if (next.kind == PatternMatch::Kind::kYes) {
    begin_value(next.name, events);
    rest_.erase(0, next.end);
    state_ = State::kValue;
    return true;
  }
  if (next.kind == PatternMatch::Kind::kMore) return false;
  const PatternMatch end = match_pattern(form_->tail, rest_);
  if (end.kind == PatternMatch::Kind::kMore) return false;
  arguments("}", events);  // also where neither comes: the call is over
  state_ = State::kTail;
  return true;
}

void CallParser::begin_value(std::string_view name, AnswerEvents& events) {
  types_ = schemas_->types(tool_, name);
  arguments((first_parameter_ ? "\"" : ", \"") + json_escaped(name) + "\": ", events);
  if (types_ == kTypeString) arguments("\"", events);
  first_parameter_ = value_begun_ = false;
  value_.clear();
}

bool CallParser::value(AnswerEvents& events) {
  const std::size_t at = rest_.find(kParameterEnd);
  const bool found = at != std::string::npos;
  const std::size_t take = found ? at : rest_.size() - bytes_to_hold(rest_, kParameterEnd);
  const std::string_view text = std::string_view(rest_).substr(0, take);
  if (types_ == kTypeString)
    text_value(text, events);
  else
    value_ += text;
  rest_.erase(0, found ? at + kParameterEnd.size() : take);
  if (!found) return false;
  if (types_ == kTypeString)
    arguments("\"", events);
  else
    arguments(cast_value(value_, types_), events);
  state_ = State::kParameters;
  return true;
}

// Text goes on as it comes, but for the whitespace at both ends of the value.
void CallParser::text_value(std::string_view text, AnswerEvents& events) {
  if (!value_begun_) text.remove_prefix(std::ranges::find_if_not(text, is_space) - text.begin());
  if (text.empty()) return;
  value_begun_ = true;
  const std::size_t end = text.find_last_not_of(" \t\r\n");
  const std::size_t solid = end == std::string_view::npos ? 0 : end + 1;
  if (solid > 0) {
    arguments(json_escaped(value_) + json_escaped(text.substr(0, solid)), events);
    value_.clear();
  }
  value_ += text.substr(solid);
}

}  // namespace tandem
