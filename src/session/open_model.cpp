// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "session/open_model.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/format.h"
#include "chat_format/chat_format.h"
#include "session/chat_prompt.h"
#include "text/gguf_vocabulary.h"

namespace tandem {

namespace {

std::string text_value(const Json& config, const char* key) {
  const auto found = config.find(key);
  return found != config.end() && found->is_string() ? found->get<std::string>() : std::string();
}

bool flag_value(const Json& config, const char* key) {
  const auto found = config.find(key);
  return found != config.end() && found->is_boolean() && found->get<bool>();
}

std::optional<std::int32_t> id_value(const Json& config, const std::string& key) {
  const auto found = config.find(key);
  if (found == config.end() || !found->is_number_integer()) return std::nullopt;
  const auto id = found->get<std::int64_t>();
  if (id < 0 || id > INT32_MAX) return std::nullopt;
  return static_cast<std::int32_t>(id);
}

GgufVocabulary read_vocabulary(const Checkpoint& checkpoint) {
  const Json& config = checkpoint.config();
  GgufVocabulary v;
  v.model = text_value(config, "tokenizer.ggml.model");
  v.pre = text_value(config, "tokenizer.ggml.pre");
  for (const std::string_view token : checkpoint.string_array("tokenizer.ggml.tokens")) v.tokens.emplace_back(token);
  if (checkpoint.has_array("tokenizer.ggml.merges"))
    for (const std::string_view merge : checkpoint.string_array("tokenizer.ggml.merges")) v.merges.emplace_back(merge);
  if (checkpoint.has_array("tokenizer.ggml.token_type"))
    for (const std::int64_t type : checkpoint.integer_array("tokenizer.ggml.token_type"))
      v.token_types.push_back(static_cast<std::int32_t>(type));
  if (checkpoint.has_array("tokenizer.ggml.scores"))
    for (const double score : checkpoint.number_array("tokenizer.ggml.scores"))
      v.scores.push_back(static_cast<float>(score));
  v.add_bos = flag_value(config, "tokenizer.ggml.add_bos_token");
  v.add_space_prefix = flag_value(config, "tokenizer.ggml.add_space_prefix");
  v.bos_id = id_value(config, "tokenizer.ggml.bos_token_id");
  v.eos_id = id_value(config, "tokenizer.ggml.eos_token_id");
  v.unk_id = id_value(config, "tokenizer.ggml.unknown_token_id");
  v.pad_id = id_value(config, "tokenizer.ggml.padding_token_id");
  v.chat_template = text_value(config, "tokenizer.chat_template");
  return v;
}

// A GGUF file's own vocabulary, else the files beside the weights.
Tokenizer read_tokenizer(const Checkpoint& checkpoint) {
  if (checkpoint.has_array("tokenizer.ggml.tokens")) return make_tokenizer(read_vocabulary(checkpoint));
  const std::optional<std::string> tokenizer = checkpoint.side_file("tokenizer.json");
  if (!tokenizer)
    throw Error(ErrorCode::kNotFound, format("{} has no tokenizer.json beside the weights", checkpoint.path()));
  return Tokenizer::from_json(*tokenizer, checkpoint.side_file("tokenizer_config.json").value_or(""));
}

// "eos_token_id" is a number or a list of them.
void add_eos_ids(const Json& config, std::set<std::int32_t>& ids) {
  const auto found = config.find("eos_token_id");
  if (found == config.end()) return;
  for (const Json& id : found->is_array() ? *found : Json::array({*found}))
    if (id.is_number_integer() && id.get<std::int64_t>() >= 0 && id.get<std::int64_t>() <= INT32_MAX)
      ids.insert(id.get<std::int32_t>());
}

// The files do not always name the token that ends a turn; the template shows it: what follows an assistant's words.
std::optional<std::int32_t> end_of_turn(const Tokenizer& tokenizer, const ChatTemplate& chat_template) {
  const std::string_view answer = "tandem-answer";
  Conversation conversation;
  conversation.messages_json = R"([{"role":"user","content":"a"},{"role":"assistant","content":"tandem-answer"}])";
  conversation.add_generation_prompt = false;
  conversation.bos_token = tokenizer.bos_token();
  conversation.eos_token = tokenizer.eos_token();
  std::string text;
  try {
    text = chat_template.render(conversation);
  } catch (const Error&) {
    return std::nullopt;  // a template that wants more than two turns says nothing here, and tells the user later
  }
  const std::size_t begin = text.rfind(answer);
  if (begin == std::string::npos) return std::nullopt;
  const std::vector<std::int32_t> ids =
      tokenizer.encode(std::string_view(text).substr(begin + answer.size()), {.parse_special = true});
  if (ids.empty() || !tokenizer.is_control(ids.front())) return std::nullopt;
  return ids.front();
}

std::vector<std::int32_t> find_stop_ids(const Checkpoint& checkpoint, const Tokenizer& tokenizer,
                                        const std::optional<ChatTemplate>& chat_template) {
  std::set<std::int32_t> ids;
  add_eos_ids(checkpoint.config(), ids);
  if (const std::optional<std::string> file = checkpoint.side_file("generation_config.json"))
    add_eos_ids(parse_json(*file, "generation_config.json"), ids);
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"})
    if (const std::optional<std::int32_t> id = id_value(checkpoint.config(), key)) ids.insert(*id);
  if (tokenizer.eos_id()) ids.insert(*tokenizer.eos_id());
  if (chat_template)
    if (const std::optional<std::int32_t> id = end_of_turn(tokenizer, *chat_template)) ids.insert(*id);
  return {ids.begin(), ids.end()};
}

std::optional<PictureTokens> read_picture_tokens(const Checkpoint& checkpoint, const Tokenizer& tokenizer) {
  if (!checkpoint.config().contains("vision_config")) return std::nullopt;
  const ModelConfig config = read_config(checkpoint);
  if (!config.vision) return std::nullopt;
  return find_picture_tokens(tokenizer, *config.vision);
}

}  // namespace

std::vector<std::int32_t> OpenModel::text_prompt(std::string_view text) const {
  return tokenizer.encode(text, {.add_special_tokens = true});
}

std::vector<std::int32_t> OpenModel::chat_prompt(const OrderedJson& messages, const OrderedJson& variables,
                                                 const OrderedJson& tools) const {
  if (!chat_template)
    throw Error(ErrorCode::kUnsupported, format("{} has no chat template: it completes text only", checkpoint->path()));
  const std::string_view role = tool_role(template_source);
  if (role == "tool") return encode_chat(tokenizer, *chat_template, messages, variables, tools);
  OrderedJson renamed = messages;
  for (OrderedJson& message : renamed)
    if (message.is_object() && message.value("role", OrderedJson()) == "tool") message["role"] = role;
  return encode_chat(tokenizer, *chat_template, renamed, variables, tools);
}

PicturePrompt OpenModel::picture_prompt(const OrderedJson& messages, const Pictures& pictures,
                                        const OrderedJson& variables, const OrderedJson& tools) const {
  return with_pictures(chat_prompt(messages, variables, tools), pictures);
}

PicturePrompt OpenModel::with_pictures(std::vector<std::int32_t> ids, const Pictures& pictures) const {
  if (picture_tokens) return expand_pictures(ids, pictures, *picture_tokens);
  if (!pictures.empty()) throw Error(ErrorCode::kUnsupported, "this model sees no pictures");
  return {std::move(ids), {}};
}

OpenModel open_model(const std::string& path) {
  std::unique_ptr<Checkpoint> checkpoint = Checkpoint::open(path);
  Tokenizer tokenizer = read_tokenizer(*checkpoint);
  std::string source = tokenizer.chat_template();
  if (source.empty()) source = checkpoint->side_file("chat_template.jinja").value_or("");
  std::optional<ChatTemplate> chat_template;
  if (!source.empty()) chat_template.emplace(source);
  std::vector<std::int32_t> stop_ids = find_stop_ids(*checkpoint, tokenizer, chat_template);
  std::optional<PictureTokens> picture_tokens = read_picture_tokens(*checkpoint, tokenizer);
  return {std::move(checkpoint), std::move(tokenizer), std::move(chat_template),
          std::move(source),     std::move(stop_ids),  picture_tokens};
}

}  // namespace tandem
