// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sched/embedding_rows.h"

#include <gtest/gtest.h>

#include <set>

#include "sched/scheduler.h"

namespace tandem {
namespace {

std::shared_ptr<const EmbeddingRows> rows_named(std::uint8_t name, std::int64_t rows = 200) {
  auto made = std::make_shared<EmbeddingRows>();
  made->hidden = 2;
  made->values.assign(static_cast<std::size_t>(rows * 2), 0.5f);
  made->digest[31] = name;
  return made;
}

TEST(ContentIds, EqualContentHasEqualKeysAndNothingElseHas) {
  ContentIds ids;
  std::set<std::int32_t> seen;
  for (const std::uint8_t name : {1, 2}) {
    for (const std::int64_t first_row : {0, 5}) {
      const auto keys = ids.keys({0, 3, first_row, rows_named(name)});
      ASSERT_TRUE(keys);
      EXPECT_LT(keys->first, 0);
      EXPECT_LT(keys->others, 0);
      EXPECT_TRUE(seen.insert(keys->first).second);
      EXPECT_TRUE(seen.insert(keys->others).second);
      const auto again = ids.keys({9, 1, first_row, rows_named(name)});
      EXPECT_EQ(again->first, keys->first);
    }
  }
}

TEST(ContentIds, ForgettingNeverGivesANumberTwice) {
  ContentIds ids(2);
  std::set<std::int32_t> seen;
  for (std::uint8_t name = 0; name < 9; ++name)
    EXPECT_TRUE(seen.insert(ids.keys({0, 1, 0, rows_named(name)})->first).second);
  EXPECT_TRUE(seen.insert(ids.keys({0, 1, 0, rows_named(0)})->first).second);  // it was forgotten
}

// ---- in the scheduler

Request request_with(RequestId id, std::vector<EmbeddedSpan> spans, std::size_t tokens = 150) {
  Request request{.id = id, .prompt = std::vector<std::int32_t>(tokens, 7), .new_tokens_max = 2};
  request.embedded = std::move(spans);
  return request;
}

class EmbeddedPrefix : public testing::Test {
 protected:
  static SchedulerConfig config() {
    SchedulerConfig c;
    c.vocab = 100;
    c.embedded_hidden = 2;
    return c;
  }
  // Tokens of the prompt that an earlier request had computed.
  std::int64_t cached(Request request) {
    EXPECT_TRUE(scheduler_.submit(std::move(request)));
    std::int64_t cached_tokens = -1;
    while (!scheduler_.idle()) {
      const Batch batch = scheduler_.plan();
      std::vector<SequenceResult> results;
      for (const MicroBatch& micro_batch : batch.micro_batches)
        for (const SequenceRows& rows : micro_batch.sequences) {
          SequenceResult result{.request = rows.request, .rows_kept = rows.rows()};
          if (rows.samples) result.tokens.push_back({.id = 1});
          results.push_back(result);
        }
      scheduler_.commit(results, {});
      scheduler_.check_integrity();
      for (const RequestEvent& event : scheduler_.take_events()) cached_tokens = event.cached_tokens;
    }
    return cached_tokens;
  }

  Scheduler scheduler_{config(), {.blocks = 64}};
};

TEST_F(EmbeddedPrefix, IsSharedByEqualContentOnly) {
  const auto cat = rows_named(1), dog = rows_named(2);
  EXPECT_EQ(cached(request_with(1, {{10, 130, 0, cat}})), 0);
  EXPECT_EQ(cached(request_with(2, {{10, 130, 0, rows_named(1)}})), 128);  // named alike, from elsewhere
  EXPECT_EQ(cached(request_with(3, {{10, 130, 0, dog}})), 0);
  EXPECT_EQ(cached(request_with(4, {})), 0);                                     // placeholders alone
  EXPECT_EQ(cached(request_with(5, {{70, 70, 0, dog}})), 64);                    // like 4 up to its first row
  EXPECT_EQ(cached(request_with(6, {{10, 130, 1, cat}})), 0);                    // other rows of the same
  EXPECT_EQ(cached(request_with(7, {{10, 60, 0, cat}, {70, 70, 0, cat}})), 64);  // the second begins anew
  EXPECT_EQ(cached(request_with(8, {{11, 129, 0, cat}})), 0);                    // elsewhere
}

TEST(EmbeddedRows, AreRefusedWhereTheModelTakesNone) {
  Scheduler scheduler({.vocab = 100}, {.blocks = 64});
  const Status refused = scheduler.submit(request_with(1, {{0, 5, 0, rows_named(1)}}));
  ASSERT_FALSE(refused.is_ok());
  EXPECT_NE(refused.error().message().find("takes none"), std::string::npos);
}

TEST_F(EmbeddedPrefix, SpansMustLieInOrderInThePrompt) {
  const auto rows = rows_named(1);
  const auto refused = [&](std::vector<EmbeddedSpan> spans) {
    return !scheduler_.submit(request_with(1, std::move(spans))).is_ok();
  };
  EXPECT_TRUE(refused({{0, 1, 0, nullptr}}));
  EXPECT_TRUE(refused({{-1, 3, 0, rows}}));
  EXPECT_TRUE(refused({{0, 0, 0, rows}}));
  EXPECT_TRUE(refused({{140, 11, 0, rows}}));
  EXPECT_TRUE(refused({{0, 5, 0, rows}, {4, 5, 0, rows}}));
  EXPECT_TRUE(refused({{0, 5, 196, rows}}));
  EXPECT_TRUE(refused({{0, 5, -1, rows}}));
  EXPECT_TRUE(refused({{0, INT64_MAX, 0, rows}}));
  EXPECT_FALSE(refused({{0, 5, 195, rows}, {5, 145, 0, rows}}));
}

}  // namespace
}  // namespace tandem
