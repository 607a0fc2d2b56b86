// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Answers within a grammar, and prompts with pictures, in a deployment of real processes: the tokens of one process,
// also where an attention worker is killed in the middle of an answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "session/constraint_maker.h"
#include "tests/engine/recording_engine.h"
#include "tests/image/recording.h"
#include "tests/roles/deployment_run.h"

namespace tandem {
namespace {

using testing::HasSubstr;

// ---- grammars

constexpr const char* kGrammarModel = "step3_text_bf16";

// Fresh constraints each time: they have a state. Every other request is free.
std::vector<Request> constrained_requests(ConstraintMaker& maker, std::int32_t new_tokens) {
  const ConstraintRecipe recipes[] = {{.kind = 1, .start = 0, .source = "[a-m ]{400}"},
                                      {.kind = 1, .start = 2, .source = "[0-9]{400}"},
                                      {.kind = 2, .start = 0, .source = "start: (\"ab\" | \"cde\" | \"\\n\")*"}};
  std::vector<Request> requests;
  for (std::uint64_t i = 0; i < 6; ++i) {
    Request request;
    request.prompt = random_prompt(static_cast<std::int64_t>(5 + 11 * i), i + 1);
    request.new_tokens_max = new_tokens;
    request.sampling.temperature = i % 4 < 2 ? 0.f : 0.9f;
    request.sampling.seed = 100 + i;
    if (i % 2 == 0) request.constraint = maker.make(recipes[i / 2]);
    requests.push_back(std::move(request));
  }
  return requests;
}

EngineConfig local_config() {
  EngineConfig config = small_engine();
  config.kv_dtype = DType::kF32;
  return config;
}

void expect_answers(DeploymentRun& run, const std::vector<RequestId>& ids, const std::vector<Recorded>& expected) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_TRUE(run.answer(ids[i]).end.status) << run.answer(ids[i]).end.status.error().message();
    EXPECT_EQ(run.answer(ids[i]).tokens, expected[i].tokens) << i;
    EXPECT_EQ(run.answer(ids[i]).end.finish, expected[i].end.finish) << i;
  }
}

class GrammarProcesses : public testing::Test {
 protected:
  std::vector<Recorded> expected(std::int32_t new_tokens) {
    const auto checkpoint = Checkpoint::open(maker_model_);
    std::vector<Recorded> recorded =
        RecordingEngine(*checkpoint, local_config()).run(constrained_requests(maker_, new_tokens));
    // Else nothing would be shown.
    const std::string said = open_model(maker_model_).tokenizer.decode(recorded[0].tokens);
    EXPECT_EQ(said.find_first_not_of("abcdefghijklm "), std::string::npos) << said;
    return recorded;
  }

  const std::string maker_model_ = std::string("tests/goldens/") + kGrammarModel;
  ConstraintMaker maker_{maker_model_};
};

TEST_F(GrammarProcesses, HaveTheAnswersOfOneProcess) {
  const std::vector<Recorded> local = expected(24);
  DeploymentRun run(small_deployment(kGrammarModel, 2, 2));
  run.connect();
  const std::vector<RequestId> ids = run.submit_all(constrained_requests(maker_, 24));
  run.wait();
  expect_answers(run, ids, local);
}

TEST_F(GrammarProcesses, GoOnWithinTheGrammarWhenAnAttentionWorkerIsKilled) {
  const std::vector<Recorded> local = expected(60);
  DeploymentRun run(small_deployment(kGrammarModel, 2, 1));
  run.connect();
  const std::vector<RequestId> ids = run.submit_all(constrained_requests(maker_, 60));
  run.wait_for_tokens(ids.front(), 5);
  run.kill_and_reap(0);
  run.wait();
  expect_answers(run, ids, local);
  run.wait_for_epoch(2);  // on a busy machine all may have been said before the loss was seen
}

// What only the worker can find out ends the request with its reason, and nobody else's.
TEST_F(GrammarProcesses, AGrammarThatTheWorkerCannotCompileEndsItsRequest) {
  class Broken final : public TokenConstraint {
    Status allowed(std::span<const std::int32_t>, std::span<std::uint32_t>) override { return Status::ok(); }
    Status commit(std::int32_t) override { return Status::ok(); }
    bool complete() const override { return false; }
    std::optional<ConstraintRecipe> recipe() const override {
      return ConstraintRecipe{.kind = 1, .start = 0, .source = "("};
    }
  };
  DeploymentRun run(small_deployment(kGrammarModel, 1, 1));
  run.connect();
  std::vector<Request> requests = constrained_requests(maker_, 8);
  requests[0].constraint = std::make_shared<Broken>();
  const std::vector<RequestId> ids = run.submit_all(requests);
  run.wait();
  EXPECT_THAT(run.answer(ids[0]).end.status.error().message(), HasSubstr("grammar"));
  for (std::size_t i = 1; i < ids.size(); ++i) EXPECT_TRUE(run.answer(ids[i]).end.status) << i;
  EXPECT_EQ(run.front().epoch(), 1u);
}

// What the model cannot have said reaches no grammar.
TEST_F(GrammarProcesses, AnAnswerOfTokensThatAreNoneIsRefused) {
  DeploymentRun run(small_deployment(kGrammarModel, 1, 1));
  run.connect();
  Request request = constrained_requests(maker_, 8).front();
  request.answer = {1, -1};
  const RequestId id = run.submit(std::move(request));
  run.wait();
  EXPECT_THAT(run.answer(id).end.status.error().message(), HasSubstr("answer token 1 is -1, vocabulary has"));
}

// ---- pictures

constexpr std::int32_t kPlaceholder = 498;

Deployment picture_deployment(std::int32_t attention, std::int32_t ffn) {
  Deployment d = small_deployment("step3_vl", attention, ffn);
  d.engine.context_tokens_max = 768;
  d.engine.kv_tokens = 4096;
  return d;
}

EngineConfig picture_config() {
  EngineConfig config = local_config();
  config.context_tokens_max = 768;
  config.kv_tokens = 4096;
  return config;
}

// A prompt with a small picture, which is its whole and no crops; what is there differs with name.
struct Seen {
  Request request;
  std::vector<PlacedPicture> pictures;
};
Seen seen(std::uint8_t name, std::int32_t new_tokens) {
  auto picture = std::make_shared<PictureToSee>();
  picture->picture = formula_picture({64, 64});
  for (std::uint8_t& value : picture->picture.rgb) value ^= static_cast<std::uint8_t>(37 * name);
  picture->digest[0] = name;
  picture->plan = plan_crops({64, 64});
  const std::int64_t rows =
      visual_rows(picture->plan, *read_config(*Checkpoint::open("tests/goldens/step3_vl")).vision);
  Seen made;
  made.request.prompt = {1, 2, 3};
  made.request.prompt.insert(made.request.prompt.end(), static_cast<std::size_t>(rows), kPlaceholder);
  made.request.prompt.push_back(4);
  made.request.new_tokens_max = new_tokens;
  made.request.sampling.temperature = name % 2 == 0 ? 0.f : 0.9f;
  made.request.sampling.seed = name;
  made.request.prompt_logits = true;
  made.pictures = {{picture, {{3, rows, 0}}}};
  return made;
}

// In one process, whose vision worker sees the pictures: tokens by name.
std::vector<Recorded> local_answers(std::uint8_t count, std::int32_t new_tokens) {
  LogitRecorder recorder;
  EngineConfig config = picture_config();
  config.observer = &recorder;
  const auto engine = Engine::start(*Checkpoint::open("tests/goldens/step3_vl"), config);
  std::vector<Recorded> answers(count);
  for (std::uint8_t name = 0; name < count; ++name) {
    const auto events = std::make_shared<EventStream>();
    Seen one = seen(name, new_tokens);
    const RequestId id = one.request.id = engine->next_id();
    EXPECT_TRUE(engine->submit(std::move(one.request), std::move(one.pictures), events));
    while (answers[name].end.finish == FinishReason::kNone) {
      const std::optional<RequestEvent> event = events->pop(60'000'000'000);
      if (!event) {
        ADD_FAILURE() << "no news";
        return answers;
      }
      for (const SampledToken& token : event->tokens) answers[name].tokens.push_back(token.id);
      answers[name].end = *event;
    }
    recorder.copy_to(id, answers[name]);
  }
  return answers;
}

TEST(PictureProcesses, HaveTheTokensAndLogitsOfOneProcess) {
  const std::vector<Recorded> local = local_answers(3, 12);
  EXPECT_NE(local[0].logits.rbegin()->second, local[2].logits.rbegin()->second);  // the model does look
  DeploymentRun run(picture_deployment(2, 2));
  run.connect();
  ASSERT_NE(run.engine().vision_worker(), nullptr);
  std::vector<RequestId> ids;
  for (std::uint8_t name = 0; name < 3; ++name) {
    Seen one = seen(name, 12);
    ids.push_back(run.submit(std::move(one.request), std::move(one.pictures)));
  }
  run.wait();
  expect_answers(run, ids, local);
  const LogitRows rows = run.logits();
  for (std::size_t i = 0; i < ids.size(); ++i) expect_same_rows(local[i], rows, ids[i]);
}

TEST(PictureProcesses, RequestsAreSentAgainWithTheSameRows) {
  const std::vector<Recorded> local = local_answers(4, 80);
  DeploymentRun run(picture_deployment(2, 1));
  run.connect();
  std::vector<RequestId> ids;
  for (std::uint8_t name = 0; name < 4; ++name) {
    Seen one = seen(name, 80);
    ids.push_back(run.submit(std::move(one.request), std::move(one.pictures)));
  }
  run.wait_for_tokens(ids.back(), 3);
  run.kill_and_reap(1);
  run.wait();
  expect_answers(run, ids, local);
  run.wait_for_epoch(2);  // on a busy machine all may have been said before the loss was seen
  EXPECT_EQ(run.engine().vision_worker()->stats().pictures, 4);  // none was seen twice
}

}  // namespace
}  // namespace tandem
