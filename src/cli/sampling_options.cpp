// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/sampling_options.h"

#include <CLI/CLI.hpp>

namespace tandem {

void declare_sampling_options(CLI::App& app, TextRequest& r) {
  SamplingParams& s = r.sampling;
  const std::string group = "Sampling";
  const auto option = [&](const char* name, auto& value, const char* text) {
    return app.add_option(name, value, text)->capture_default_str()->group(group);
  };
  option("-n,--max-tokens", r.new_tokens_max, "of an answer; 0: what the context has room for")
      ->check(CLI::NonNegativeNumber);
  option("--temperature", s.temperature, "0: the likeliest token");
  option("--top-p", s.top_p, "draw from the fewest tokens whose probability reaches this");
  option("--top-k", s.top_k, "draw from so many tokens; 0: all");
  option("--min-p", s.min_p, "drop tokens below this fraction of the likeliest");
  option("--seed", s.seed, "the same seed and prompt give the same answer");
  option("--repetition-penalty", s.repetition_penalty, "divides the logits of tokens that were seen; 1: off");
  option("--presence-penalty", s.presence_penalty, "taken from tokens that the answer has");
  option("--frequency-penalty", s.frequency_penalty, "taken once for each time that the answer has a token");
  app.add_option("--stop", r.stop, "a text that ends the answer; may be given several times")
      ->group(group)
      ->allow_extra_args(false);
  app.add_option_function<std::vector<std::string>>(
         "--logit-bias",
         [&s](const std::vector<std::string>& entries) {
           for (const std::string& entry : entries) {
             const std::size_t colon = entry.find(':');
             std::pair<std::int32_t, float> bias;
             if (colon == std::string::npos || !CLI::detail::lexical_cast(entry.substr(0, colon), bias.first) ||
                 !CLI::detail::lexical_cast(entry.substr(colon + 1), bias.second))
               throw CLI::ValidationError("--logit-bias", entry + " is not TOKEN-ID:BIAS");
             s.logit_bias.push_back(bias);
           }
         },
         "TOKEN-ID:BIAS, added to the token's logit; may be given several times")
      ->allow_extra_args(false)
      ->group(group);
}

}  // namespace tandem
