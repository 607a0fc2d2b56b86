// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Prompts with rows made elsewhere: pictures whose recorded visual rows stand in for placeholders. The bits do not
// depend on how the work was arranged, and two pictures under the same placeholders never see each other's cache. Right
// numbers: tests/verify.
#include <gtest/gtest.h>

#include "base/format.h"
#include "tests/engine/recording_engine.h"
#include "tests/image/recording.h"

namespace tandem {
namespace {

constexpr std::int32_t kPlaceholder = 498;

class EmbeddedRows : public testing::Test {
 protected:
  // The rows of a recorded picture, under a name of their own.
  std::shared_ptr<const EmbeddingRows> rows_of(std::int32_t picture) {
    auto rows = std::make_shared<EmbeddingRows>();
    const std::string name = format("image{}.visual_rows", picture);
    rows->hidden = recording_.shape(name)[1];
    rows->values = recording_.values<float>(name);
    rows->digest[0] = static_cast<std::uint8_t>(1 + picture);
    return rows;
  }

  // Rows of pictures, in order, at the placeholders of a prompt.
  static void place(Request& request, const std::vector<std::shared_ptr<const EmbeddingRows>>& pictures) {
    std::size_t picture = 0;
    std::int64_t used = 0;
    for (std::int64_t i = 0; i < std::ssize(request.prompt); ++i) {
      if (request.prompt[i] != kPlaceholder) continue;
      if (used == pictures.at(picture)->rows()) ++picture, used = 0;
      const bool goes_on = used > 0 && i > 0 && request.prompt[i - 1] == kPlaceholder;
      if (!goes_on) request.embedded.push_back({i, 0, used, pictures.at(picture)});
      ++request.embedded.back().count;
      ++used;
    }
    EXPECT_EQ(picture + 1, pictures.size());
    EXPECT_EQ(used, pictures.back()->rows());
  }

  Request recorded_request(std::int32_t index) {
    Request request;
    request.prompt = recording_.values<std::int32_t>(format("case{}.prompt0.input_ids", index));
    request.new_tokens_max = 24;
    std::vector<std::shared_ptr<const EmbeddingRows>> pictures;
    for (const Json& picture : recording_.json()["cases"][index]["images"]) pictures.push_back(rows_of(picture));
    place(request, pictures);
    return request;
  }

  static EngineConfig config(const std::string& layout = "local", std::int32_t micro_batches = 1) {
    EngineConfig c = small_engine(layout, micro_batches);
    c.context_tokens_max = 768;
    c.kv_tokens = 4096;
    return c;
  }

  std::unique_ptr<Checkpoint> checkpoint_ = Checkpoint::open("tests/goldens/step3_vl");
  VisionRecording recording_;
};

TEST_F(EmbeddedRows, HaveTheSameBitsInEveryLayoutAndChunk) {
  Request observed = recorded_request(0);
  observed.new_tokens_max = 4;
  observed.prompt_logits = true;
  const std::vector<Request> requests(2, observed);
  const Recorded expected = RecordingEngine(*checkpoint_, config()).run({observed}).front();
  for (const char* layout : {"local", "1A1F", "2A2F", "1A3F"}) {
    for (const std::int64_t chunk : {7, 64}) {
      SCOPED_TRACE(format("{}, chunks of {}", layout, chunk));
      EngineConfig c = config(layout, 2);
      c.prefill_chunk = chunk;
      for (const Recorded& found : RecordingEngine(*checkpoint_, c).run(requests)) expect_same_bits(expected, found);
    }
  }
}

TEST_F(EmbeddedRows, AreThereAgainAfterAPreemption) {
  Request observed = recorded_request(0);
  observed.new_tokens_max = 12;
  observed.prompt_logits = true;
  const Recorded expected = RecordingEngine(*checkpoint_, config()).run({observed}).front();
  RecordingEngine engine(*checkpoint_, config());
  Request request = recorded_request(0);
  request.new_tokens_max = 12;
  const RequestId id = engine.submit(request);
  engine.wait_for_tokens(id, 3);
  AttentionWorker& worker = *engine.engine().attention_workers().front();
  (void)worker.between_steps([&] { (void)worker.scheduler().preempt_youngest(); });
  engine.wait();
  expect_same_bits(expected, engine.result(id));
}

TEST_F(EmbeddedRows, ArePartOfThePrefixThatIsShared) {
  RecordingEngine engine(*checkpoint_, config());
  Request first = recorded_request(0);
  first.new_tokens_max = 4;
  const Recorded expected = engine.run({first}).front();
  EXPECT_EQ(expected.end.cached_tokens, 0);
  const Recorded again = engine.run({first}).front();
  EXPECT_EQ(again.end.cached_tokens, 192);  // three blocks of the 212 tokens
  EXPECT_EQ(again.tokens, expected.tokens);
  // The same placeholders, another picture.
  Request other = first;
  auto brighter = std::make_shared<EmbeddingRows>(*first.embedded.front().rows);
  for (float& value : brighter->values) value += 0.5f;
  brighter->digest[0] = 99;
  for (EmbeddedSpan& span : other.embedded) span.rows = brighter;
  const Recorded different = engine.run({other}).front();
  EXPECT_LE(different.end.cached_tokens, first.embedded.front().position);
  RecordingEngine fresh(*checkpoint_, config());
  EXPECT_EQ(different.tokens, fresh.run({other}).front().tokens);
  // And the placeholders without one.
  Request bare = first;
  bare.embedded.clear();
  EXPECT_LE(engine.run({bare}).front().end.cached_tokens, first.embedded.front().position);
}

TEST_F(EmbeddedRows, ThatDoNotFitTheModelEndTheRequestWithAReason) {
  RecordingEngine engine(*checkpoint_, config());
  Request request = recorded_request(0);
  auto narrow = std::make_shared<EmbeddingRows>(*request.embedded.front().rows);
  narrow->hidden = 64;
  request.embedded.front().rows = narrow;
  const Recorded refused = engine.run({request}).front();
  EXPECT_EQ(refused.end.finish, FinishReason::kError);
  EXPECT_NE(refused.end.status.error().message().find("64 values, must have 128"), std::string::npos);
}

}  // namespace
}  // namespace tandem
