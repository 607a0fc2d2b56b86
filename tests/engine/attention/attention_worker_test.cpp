// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What is between steps: actions on the worker's thread, pages in and out. Steps are tested through whole engines.
#include "engine/attention/attention_worker.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/base/error_of.h"
#include "tests/engine/recording_engine.h"

namespace tandem {
namespace {

class AttentionWorkerTest : public testing::Test {
 protected:
  Pages pages_of(const std::vector<std::int32_t>& tokens, std::uint64_t salt) {
    Pages pages;
    EXPECT_TRUE(worker_.between_steps([&] { pages = worker_.export_pages(salt, tokens); }));
    return pages;
  }

  Request request(std::uint64_t salt) const {
    Request request;
    request.prompt = prompt_;
    request.new_tokens_max = 2;
    request.cache_salt = salt;
    return request;
  }

  std::unique_ptr<Checkpoint> checkpoint_ = Checkpoint::open("tests/goldens/llama");
  RecordingEngine engine_{*checkpoint_, small_engine()};
  AttentionWorker& worker_ = *engine_.engine().attention_workers().front();
  std::vector<std::int32_t> prompt_ = random_prompt(140, 1);
};

TEST_F(AttentionWorkerTest, RunsActionsOnItsOwnThreadOneAfterTheOther) {
  int count = 0;  // not atomic: only one thread touches it
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int j = 0; j < 50; ++j) EXPECT_TRUE(worker_.between_steps([&] { ++count; }));
    });
  engine_.run({request(0), request(0)});
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, 200);
}

TEST_F(AttentionWorkerTest, ExportsWholeBlocksOfKnownPrefixesOfTheSameSaltOnly) {
  EXPECT_TRUE(pages_of(prompt_, 7).empty());
  engine_.run({request(7)});
  const Pages pages = pages_of(prompt_, 7);
  ASSERT_EQ(pages.size(), 2u);
  EXPECT_TRUE(pages_of(prompt_, 8).empty());
  EXPECT_EQ(pages_of({prompt_.begin(), prompt_.begin() + 100}, 7), Pages(pages.begin(), pages.begin() + 1));
  engine_.check_integrity();
}

TEST_F(AttentionWorkerTest, ImportedPagesComeOutAsTheyWentIn) {
  engine_.run({request(7)});
  const Pages pages = pages_of(prompt_, 7);
  EXPECT_TRUE(worker_.between_steps([&] {
    EXPECT_TRUE(worker_.import_pages(9, prompt_, pages));
    EXPECT_TRUE(worker_.import_pages(9, prompt_, pages));  // known already: nothing to do
  }));
  EXPECT_EQ(pages_of(prompt_, 9), pages);
  EXPECT_EQ(engine_.run({request(9)}).front().end.cached_tokens, 128);
  engine_.check_integrity();
}

TEST_F(AttentionWorkerTest, RefusesDamagedPagesAndKeepsNothingOfThem) {
  engine_.run({request(7)});
  Pages pages = pages_of(prompt_, 7);
  pages[1].resize(pages[1].size() - 1);
  ASSERT_TRUE(worker_.between_steps([&] {
    EXPECT_EQ(error_of([&] { worker_.import_pages(9, prompt_, pages); }).code(), ErrorCode::kInvalidData);
    pages.resize(3, pages[0]);
    EXPECT_EQ(error_of([&] { worker_.import_pages(9, prompt_, pages); }).code(), ErrorCode::kInvalidArgument);
  }));
  EXPECT_TRUE(pages_of(prompt_, 9).empty());
  engine_.check_integrity();
}

TEST_F(AttentionWorkerTest, HasNoRoomForMorePagesThanItsCache) {
  engine_.run({request(7)});
  const Pages one = pages_of({prompt_.begin(), prompt_.begin() + 64}, 7);
  const std::vector<std::int32_t> tokens = random_prompt(33 * kBlockTokens, 2);
  EXPECT_TRUE(worker_.between_steps([&] { EXPECT_FALSE(worker_.import_pages(9, tokens, Pages(33, one[0]))); }));
  engine_.check_integrity();
  EXPECT_EQ(worker_.load().kv.held, 0);
}

// A window of 24 tokens lies in one block or two, however long the sequence is.
TEST(AttentionWorker, WindowedLayersKeepNoMoreThanTheirWindow) {
  const auto checkpoint = Checkpoint::open("tests/goldens/step3p5");
  EngineConfig config = small_engine();
  config.sequences_max = 2;
  RecordingEngine engine(*checkpoint, config);
  AttentionWorker& worker = *engine.engine().attention_workers().front();
  const RequestId id = engine.submit({.prompt = random_prompt(150, 1), .new_tokens_max = 100});
  std::int64_t held = 0, window_held = 0;
  for (const std::size_t tokens : {1, 30, 90}) {
    engine.wait_for_tokens(id, tokens);
    worker.between_steps([&] {
      const KvSpace::Usage usage = worker.scheduler().kv().usage();
      held = std::max(held, usage.held);
      window_held = std::max(window_held, usage.window_held);
      worker.scheduler().check_integrity();
    });
  }
  engine.wait();
  EXPECT_GE(held, 3);
  EXPECT_GE(window_held, 1);
  EXPECT_LE(window_held, 2);
  const ModelConfig& model = engine.engine().model();
  EXPECT_EQ(engine.engine().kv_bytes(),
            engine.engine().config().kv_tokens / kBlockTokens *
                    static_cast<std::int64_t>(model.kv_spec(config.kv_dtype, 0).block_bytes()) +
                window_blocks(engine.engine().config(), model) *
                    static_cast<std::int64_t>(model.window_kv_spec(config.kv_dtype, 0).block_bytes()));
  EXPECT_LE(window_blocks(engine.engine().config(), model), 3 * 3 + 2);  // the step has 64 rows
}

}  // namespace
}  // namespace tandem
