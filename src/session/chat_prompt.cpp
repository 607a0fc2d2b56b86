// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "session/chat_prompt.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <ctime>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

// Noncharacters: Unicode reserves them for a program's inner use. A message that brings one has it taken out as well.
constexpr std::string_view kMarkBegin = "\xEF\xB7\x90", kMarkEnd = "\xEF\xB7\x91";

class Quoting {
 public:
  explicit Quoting(const Tokenizer& tokenizer) {
    for (std::size_t id = 0; id < tokenizer.vocab_size(); ++id)
      if (tokenizer.is_control(static_cast<std::int32_t>(id)) &&
          !tokenizer.token(static_cast<std::int32_t>(id)).empty())
        spellings_.push_back(tokenizer.token(static_cast<std::int32_t>(id)));
    spellings_.push_back(kMarkBegin);
    spellings_.push_back(kMarkEnd);
    // Of two that begin at the same place the longer one is what the tokenizer would find.
    std::ranges::stable_sort(spellings_, std::ranges::greater(), &std::string_view::size);
    for (const std::string_view spelling : spellings_) begins_[static_cast<unsigned char>(spelling.front())] = true;
  }

  // Replaces spellings in every string of value, and in the names of its members.
  void apply(OrderedJson& value) {
    if (value.is_string()) {
      value = quoted(value.get_ref<const std::string&>());
    } else if (value.is_array()) {
      for (OrderedJson& item : value) apply(item);
    } else if (value.is_object()) {
      OrderedJson object = OrderedJson::object();
      for (auto& [key, item] : value.items()) {
        apply(item);
        object[quoted(key)] = std::move(item);
      }
      value = std::move(object);
    }
  }

  // The same, but for roles, which only the template's author names.
  void apply_to_messages(OrderedJson& messages) {
    for (OrderedJson& message : messages)
      for (auto item = message.begin(); item != message.end(); ++item)
        if (item.key() != "role") apply(*item);
  }

  // Tokens of a rendered text.
  std::vector<std::int32_t> encode(const Tokenizer& tokenizer, std::string_view text) const {
    std::vector<std::int32_t> ids;
    const auto add = [&](std::string_view part, bool parse_special) {
      if (part.empty()) return;
      const std::vector<std::int32_t> more = tokenizer.encode(part, {.parse_special = parse_special});
      ids.insert(ids.end(), more.begin(), more.end());
    };
    for (std::size_t mark; (mark = text.find(kMarkBegin)) != std::string_view::npos;) {
      add(text.substr(0, mark), true);
      text.remove_prefix(mark + kMarkBegin.size());
      std::size_t index = 0;
      const auto [after, failure] = std::from_chars(text.data(), text.data() + text.size(), index);
      text.remove_prefix(static_cast<std::size_t>(after - text.data()));
      if (failure != std::errc() || index >= spellings_.size() || !text.starts_with(kMarkEnd))
        throw Error(ErrorCode::kInvalidData,
                    "the chat template cuts messages in a way that their text cannot be told from its own");
      text.remove_prefix(kMarkEnd.size());
      add(spellings_[index], false);
    }
    add(text, true);
    return ids;
  }

 private:
  std::string quoted(std::string_view text) const {
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
      const bool possible = begins_[static_cast<unsigned char>(text[at])];
      const auto found = possible ? std::ranges::find_if(
                                        spellings_, [&](std::string_view s) { return text.substr(at).starts_with(s); })
                                  : spellings_.end();
      if (found == spellings_.end()) {
        out += text[at++];
        continue;
      }
      out += format("{}{}{}", kMarkBegin, found - spellings_.begin(), kMarkEnd);
      at += found->size();
    }
    return out;
  }

  std::vector<std::string_view> spellings_;
  std::array<bool, 256> begins_{};  // the first bytes that spellings have
};

void check_messages(const OrderedJson& messages) {
  if (!messages.is_array() || messages.empty())
    throw Error(ErrorCode::kInvalidArgument, "messages must be an array of at least one message");
  if (messages.size() > kMessagesMax)
    throw Error(ErrorCode::kInvalidArgument, format("{} messages, limit is {}", messages.size(), kMessagesMax));
  for (std::size_t i = 0; i < messages.size(); ++i)
    if (!messages[i].is_object() || !messages[i].contains("role") || !messages[i]["role"].is_string())
      throw Error(ErrorCode::kInvalidArgument, format("message {} has no \"role\" that is text", i));
}

}  // namespace

std::vector<std::int32_t> encode_chat(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                      const OrderedJson& messages, const OrderedJson& variables,
                                      const OrderedJson& tools) {
  check_messages(messages);
  Quoting quoting(tokenizer);
  OrderedJson quoted = messages;
  quoting.apply_to_messages(quoted);
  const std::string json = to_line(quoted);
  OrderedJson quoted_variables = variables;
  for (OrderedJson& value : quoted_variables) quoting.apply(value);
  const std::string variables_json = to_line(quoted_variables);
  OrderedJson quoted_tools = tools;
  quoting.apply(quoted_tools);
  const std::string tools_json = to_line(quoted_tools);
  Conversation conversation;
  conversation.messages_json = json;
  conversation.tools_json = tools_json;
  conversation.variables_json = variables_json;
  conversation.bos_token = tokenizer.bos_token();
  conversation.eos_token = tokenizer.eos_token();
  conversation.unix_seconds = std::time(nullptr);
  return quoting.encode(tokenizer, chat_template.render(conversation));
}

}  // namespace tandem
