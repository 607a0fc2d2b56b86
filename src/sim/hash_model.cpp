// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sim/hash_model.h"

#include <algorithm>

#include "base/check.h"
#include "ops/kv_cache.h"

namespace tandem {

HashModel::HashModel(std::int64_t blocks, std::int32_t vocab)
    : vocab_(vocab), memory_(static_cast<std::size_t>(blocks * kBlockTokens)) {}

std::vector<std::int32_t> HashModel::answer_alone(const Request& request, std::int64_t context_tokens_max,
                                                  std::int32_t vocab) {
  HashedPast past;
  for (const std::int32_t token : request.prompt) past.append(token);
  const std::int64_t count_max =
      std::min<std::int64_t>(request.new_tokens_max, context_tokens_max - std::ssize(request.prompt));
  std::vector<std::int32_t> answer;
  while (std::ssize(answer) < count_max) {
    answer.push_back(past.next_token(vocab));
    past.append(answer.back());
    if (std::ranges::find(request.stop_ids, answer.back()) != request.stop_ids.end()) break;
  }
  return answer;
}

void HashModel::zero(std::span<const std::int32_t> blocks) {
  for (const std::int32_t block : blocks)
    std::fill_n(memory_.begin() + std::int64_t{block} * kBlockTokens, kBlockTokens, 0);
}

std::uint64_t& HashModel::kv_at(const SequenceRows& rows, std::int64_t position) {
  const std::int64_t block = rows.blocks.at(static_cast<std::size_t>(position / kBlockTokens));
  return memory_.at(static_cast<std::size_t>(block * kBlockTokens + position % kBlockTokens));
}

SequenceResult HashModel::run(const SequenceRows& rows) {
  HashedPast past;
  for (std::int64_t position = 0; position < rows.position; ++position) past.read(kv_at(rows, position));

  SequenceResult result{.request = rows.request, .rows_kept = rows.rows()};
  const std::int64_t first_drawn = rows.samples ? rows.rows() - rows.drafts - 1 : rows.rows();
  TANDEM_CHECK(!rows.samples || (first_drawn >= 0 && first_drawn >= rows.logits_from),
               "a row that is drawn from has no logits");
  bool drafts_agree = true;
  for (std::int64_t row = 0; row < rows.rows(); ++row) {
    const std::uint64_t kv = past.kv(rows.tokens[static_cast<std::size_t>(row)]);
    kv_at(rows, rows.position + row) = kv;  // rejected drafts are written too, and must not be seen again
    past.read(kv);
    if (row < first_drawn || !drafts_agree) continue;
    const std::int32_t token = past.next_token(vocab_);
    result.tokens.push_back({.id = token});
    result.rows_kept = row + 1;
    drafts_agree = row + 1 < rows.rows() && rows.tokens[static_cast<std::size_t>(row + 1)] == token;
  }
  return result;
}

}  // namespace tandem
