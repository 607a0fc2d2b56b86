// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/openai/tokens.h"

#include "base/format.h"
#include "serve/openai/fields.h"

namespace tandem {

namespace {

bool flag(const OrderedJson& object, const char* field, bool otherwise) {
  const auto value = object.find(field);
  if (value == object.end() || value->is_null()) return otherwise;
  if (!value->is_boolean()) bad_field(field, "must be true or false");
  return value->get<bool>();
}

std::vector<std::int32_t> prompt_ids(const OrderedJson& object, const RequestScope& scope) {
  if (object.contains("messages")) return read_messages(object["messages"], OrderedJson::object(), scope).ids;
  const auto prompt = object.find("prompt");
  if (prompt == object.end() || !prompt->is_string()) bad_field("prompt", "must be text, or messages a conversation");
  return scope.model.tokenizer.encode(prompt->get_ref<const std::string&>(),
                                      {.add_special_tokens = flag(object, "add_special_tokens", true)});
}

}  // namespace

OrderedJson answer_tokenize(std::string_view body, const RequestScope& scope) {
  const OrderedJson object = read_object(body, scope.limits);
  check_model_name(object, scope);
  const std::vector<std::int32_t> ids = prompt_ids(object, scope);
  OrderedJson answer{{"count", ids.size()}, {"max_model_len", scope.context_tokens_max}, {"tokens", ids}};
  if (flag(object, "return_token_strs", false)) {
    answer["token_strs"] = OrderedJson::array();
    for (const std::int32_t id : ids) answer["token_strs"].push_back(scope.model.tokenizer.token(id));
  }
  return answer;
}

OrderedJson answer_detokenize(std::string_view body, const RequestScope& scope) {
  const OrderedJson object = read_object(body, scope.limits);
  check_model_name(object, scope);
  if (!object.contains("tokens")) bad_field("tokens", "is missing");
  return {{"prompt", scope.model.tokenizer.decode(read_token_ids("tokens", object["tokens"], scope))}};
}

}  // namespace tandem
