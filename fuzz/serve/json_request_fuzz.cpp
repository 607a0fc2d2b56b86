// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes as the body of a request, for the route that the first byte chooses: an ApiError of OpenAI's form, or a
// request whose every number is within its range. The models are tiny ones of the tests, of which one sees pictures:
// run from the source root.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "sched/admission.h"
#include "serve/openai/request.h"
#include "serve/openai/tokens.h"

namespace {

using namespace tandem;

const RequestLimits kLimits = {.json_values_max = 4096,
                               .messages_max = 16,
                               .prompts_max = 4,
                               .choices_max = 8,
                               .pictures_max = 4,
                               .picture_pixels_max = 1'000'000};

const RequestScope& scope_of(bool sees) {
  static const OpenModel text = open_model("tests/goldens/llama"), vision = open_model("tests/goldens/step3_vl");
  static const GrammarVocabulary of_text(text.tokenizer, text.stop_ids), of_vision(vision.tokenizer, vision.stop_ids);
  const auto scope = [](const OpenModel& model, const GrammarVocabulary& grammars) {
    return RequestScope{.model = model,
                        .limits = kLimits,
                        .grammars = grammars,
                        .model_name = "llama",
                        .vocab = 512,
                        .context_tokens_max = 4096,
                        .kv_tokens = 4096};
  };
  static const RequestScope for_text = scope(text, of_text), for_vision = scope(vision, of_vision);
  return sees ? for_vision : for_text;
}

bool within(double value, double min, double max) {
  return value >= min && value <= max;  // false for NaN
}

void check_options(const TextRequest& options) {
  const SamplingParams& s = options.sampling;
  TANDEM_CHECK(within(s.temperature, 0, 2) && within(s.top_p, 0, 1) && within(s.min_p, 0, 1), "a number out of range");
  TANDEM_CHECK(within(s.presence_penalty, -2, 2) && within(s.frequency_penalty, -2, 2), "a penalty out of range");
  TANDEM_CHECK(within(s.repetition_penalty, 0.009, 100) && s.top_k >= 0, "a number out of range");
  TANDEM_CHECK(s.logprobs <= kLimits.top_logprobs_max, "too many alternatives");
  TANDEM_CHECK(options.stop.size() <= static_cast<std::size_t>(kLimits.stop_max), "too many stop strings");
  for (const auto& [id, bias] : s.logit_bias)
    TANDEM_CHECK(within(id, 0, 511) && within(bias, -100, 100), "a bias out of range");
  TANDEM_CHECK(check_sampling(s, 512).is_ok(), "the engine would refuse what was let in");
}

void check_pictures(const CompletionRequest::Prompt& prompt, const RequestScope& scope) {
  TANDEM_CHECK(prompt.pictures.size() <= static_cast<std::size_t>(kLimits.pictures_max), "too many pictures");
  TANDEM_CHECK(prompt.pictures.empty() || scope.model.picture_tokens, "pictures for a model that sees none");
  std::int64_t rows = 0, end = 0;
  for (const PlacedPicture& picture : prompt.pictures)
    for (const PlacedPicture::Place& place : picture.places) {
      TANDEM_CHECK(place.position >= end && place.count > 0, "places out of order");
      end = place.position + place.count;
      rows += place.count;
    }
  TANDEM_CHECK(end <= std::ssize(prompt.ids), "a picture outside its prompt");
  if (scope.model.picture_tokens)
    TANDEM_CHECK(std::ranges::count(prompt.ids, scope.model.picture_tokens->row) == rows,
                 "a placeholder without a row");
}

void check_request(const CompletionRequest& request, const RequestScope& scope) {
  check_options(request.options);
  TANDEM_CHECK(!request.prompts.empty() && request.choices() <= kLimits.choices_max, "too many answers, or none");
  for (const CompletionRequest::Prompt& prompt : request.prompts) {
    TANDEM_CHECK(!prompt.ids.empty() && prompt.new_tokens_max >= 1, "a prompt or an answer without tokens");
    TANDEM_CHECK(static_cast<std::int64_t>(prompt.ids.size()) + prompt.new_tokens_max <= scope.context_tokens_max,
                 "longer than the context");
    if (request.endpoint == Endpoint::kChat) check_pictures(prompt, scope);
    for (const std::int32_t id : prompt.ids) TANDEM_CHECK(id >= 0 && id < 512, "an id outside the vocabulary");
  }
}

void read(std::uint8_t route, std::string_view body) {
  const RequestScope& scope = scope_of(route / 4 % 2 != 0);
  switch (route % 4) {
    case 0:
      return check_request(read_completion_request(body, Endpoint::kChat, scope), scope);
    case 1:
      return check_request(read_completion_request(body, Endpoint::kCompletions, scope), scope);
    case 2:
      answer_tokenize(body, scope);
      return;
    default:
      answer_detokenize(body, scope);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  try {
    read(data[0], {reinterpret_cast<const char*>(data) + 1, size - 1});
  } catch (const Error& error) {
    const ApiError known = api_error(error);
    TANDEM_CHECK(known.status >= 400 && known.status < 500, "bad input is the client's fault, never the server's");
    const OrderedJson json = error_json(known);
    TANDEM_CHECK(json["error"]["message"].is_string() && !json["error"]["message"].empty(), "an error says why");
  }
  return 0;
}
