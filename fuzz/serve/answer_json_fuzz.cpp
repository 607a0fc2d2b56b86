// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes as the text and the tokens of an answer: a server-sent event stays one line of valid JSON, and a whole
// answer stays valid JSON, whatever a model says. The model is a tiny one of the tests: run from the source root.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "serve/openai/response.h"

namespace {

using namespace tandem;

const Tokenizer& tokenizer() {
  static const OpenModel model = open_model("tests/goldens/llama");
  return model.tokenizer;
}

// Each six bytes are a token: two choose which, four are the bits of its log probability.
std::vector<SampledToken> tokens_of(std::string_view bytes) {
  std::vector<SampledToken> tokens;
  for (; bytes.size() >= 6 && tokens.size() < 64; bytes.remove_prefix(6)) {
    SampledToken token;
    token.id = static_cast<std::int32_t>(
        (static_cast<std::uint8_t>(bytes[0]) << 8 | static_cast<std::uint8_t>(bytes[1])) % tokenizer().vocab_size());
    std::memcpy(&token.logprob, bytes.data() + 2, sizeof token.logprob);
    token.top_logprobs.emplace_back(token.id, token.logprob);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

void check_event(const OrderedJson& data) {
  const std::string event = event_of(data);
  TANDEM_CHECK(event.starts_with("data: ") && event.ends_with("\n\n"), "an event has its frame");
  const std::string_view line = std::string_view(event).substr(6, event.size() - 8);
  TANDEM_CHECK(line.find_first_of("\r\n") == std::string_view::npos, "an event is one line");
  TANDEM_CHECK(!OrderedJson::parse(line, nullptr, false).is_discarded(), "an event is JSON");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Endpoint endpoint = data[0] % 2 == 0 ? Endpoint::kChat : Endpoint::kCompletions;
  const auto reason = static_cast<FinishReason>(data[0] / 2 % 5);
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const AnswerHead head{.endpoint = endpoint, .id = text.substr(0, 32), .model = text};
  const OrderedJson logprobs = logprobs_json(endpoint, tokens_of(text), tokenizer(), text.size());
  const OrderedJson finish = finish_json(reason);
  const bool chat = endpoint == Endpoint::kChat;
  const ChatMessage message{.content = text, .reasoning = text, .calls = {{"call", text, text}}};
  check_event(chunk_json(head, OrderedJson::array({chat ? chunk_choice(0, {{"content", text}}, logprobs, finish)
                                                        : text_choice(0, text, logprobs, finish)})));
  const std::string whole = json_text(answer_json(
      head,
      OrderedJson::array({chat ? chat_choice(0, message, logprobs, finish) : text_choice(0, text, logprobs, finish)}),
      {}));
  TANDEM_CHECK(!OrderedJson::parse(whole, nullptr, false).is_discarded(), "a whole answer is JSON");
  return 0;
}
