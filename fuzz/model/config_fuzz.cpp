// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any JSON as config.json of every architecture: an Error, or sizes that the rest of the engine can count with.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "base/json.h"
#include "model/config_reader.h"

namespace {

using namespace tandem;

void check_config(const ModelConfig& c) {
  TANDEM_CHECK(c.layers > 0 && c.layers <= kLayersMax, "layers outside their limits");
  TANDEM_CHECK(c.routed.size() == static_cast<std::size_t>(c.layers), "not every layer is routed or dense");
  TANDEM_CHECK(c.hidden > 0 && c.vocab > 0 && c.ffn_width > 0 && c.context_tokens_max > 0, "a size is not positive");
  TANDEM_CHECK(c.heads > 0 && c.kv_heads > 0 && c.heads % c.kv_heads == 0, "heads do not share kv heads evenly");
  TANDEM_CHECK(c.head_dim > 0 && c.head_dim % 2 == 0, "a head has no rotary pairs");
  TANDEM_CHECK(static_cast<std::int64_t>(c.heads) * c.head_dim <= kWidthMax, "the heads are wider than a width");
  TANDEM_CHECK(c.kv_token_elements() > 0, "a token takes no room in the cache");
  TANDEM_CHECK(c.experts_per_token <= c.experts, "a token takes more experts than there are");
  TANDEM_CHECK(c.norm_eps >= 0 && c.norm_eps <= 1, "epsilon outside its limits");
  for (const std::int32_t id : c.eos_ids) TANDEM_CHECK(id >= 0 && id < c.vocab, "a token outside the vocabulary");
  if (c.rope.dim > 4096) return;  // as many powers as there are pairs: known to work, and slow
  for (const float frequency : rope_inv_freq(c.rope))
    TANDEM_CHECK(std::isfinite(frequency), "a frequency is not finite");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (ModelConfig (*read)(const ConfigReader&) :
       {read_deepseek_v3_config, read_llama_config, read_qwen3_config, read_qwen3_moe_config, read_step3_text_config,
        read_step3p5_config}) {
    try {
      const Json object = parse_json(text, "input");
      check_config(read(ConfigReader(object, "input")));
    } catch (const Error&) {
    }
  }
  return 0;
}
