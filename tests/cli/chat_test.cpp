// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A conversation with a model of random weights: what it says makes no sense, how it is said does.
#include "cli/chat_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/error.h"
#include "cli/line_editor.h"
#include "tests/cli/program.h"

namespace tandem {
namespace {

using testing::HasSubstr;
using testing::Not;

class Chat : public testing::Test {
 protected:
  void SetUp() override {
    ask_ = [this](ChatSession& session, const std::string& text) {
      return session.ask(text, [this](const std::string& part) { shown_ += part; }, [] { return false; });
    };
  }
  static EngineConfig config() {
    EngineConfig c;
    c.layout = {1, 1};
    c.context_tokens_max = 256;
    c.sequences_max = 1;
    return c;
  }
  static TextRequest request() {
    TextRequest r;
    r.new_tokens_max = 12;
    r.ignore_stop_ids = true;
    return r;
  }

  const OpenModel model_ = open_model("tests/goldens/llama");
  const std::unique_ptr<Engine> engine_ = Engine::start(*model_.checkpoint, config());
  std::function<ChatSession::Answer(ChatSession&, const std::string&)> ask_;
  std::string shown_;
};

TEST_F(Chat, TheConversationIsKeptAndItsBeginningIsCached) {
  ChatSession session(*engine_, model_, request(),
                      "Be kind to everybody, and say what you mean in as few words as you can.");
  const ChatSession::Answer first = ask_(session, "Hello");
  EXPECT_EQ(first.finish, FinishReason::kLength);
  EXPECT_EQ(first.stats.answer_tokens, 12);
  EXPECT_FALSE(shown_.empty());
  const ChatSession::Answer second = ask_(session, "And now?");
  EXPECT_EQ(session.turns(), 4u);
  EXPECT_GT(second.stats.prompt_tokens, first.stats.prompt_tokens);
  EXPECT_GE(second.stats.cached_tokens, 64);
  session.clear();
  EXPECT_EQ(ask_(session, "Hello").stats.prompt_tokens, first.stats.prompt_tokens);
}

TEST_F(Chat, TheOldestTurnsMakeRoom) {
  ChatSession session(*engine_, model_, request(), "");
  std::int64_t dropped = 0;
  for (int i = 0; i < 8; ++i) dropped += ask_(session, "What does the licence say about this and that?").turns_dropped;
  EXPECT_GT(dropped, 0);
  EXPECT_EQ(dropped % 2, 0);
  EXPECT_EQ(static_cast<std::int64_t>(session.turns()), 16 - dropped);
}

TEST_F(Chat, AQuestionThatDoesNotFitLeavesTheConversationAsItWas) {
  ChatSession session(*engine_, model_, request(), "");
  ask_(session, "Hello");
  EXPECT_THROW(ask_(session, std::string(5000, 'x')), Error);
  EXPECT_EQ(session.turns(), 2u);
  ask_(session, "Hello again");
  EXPECT_EQ(session.turns(), 4u);
}

TEST_F(Chat, AnAnswerCanBeStopped) {
  TextRequest endless = request();
  endless.new_tokens_max = 0;
  ChatSession session(*engine_, model_, endless, "");
  int asked = 0;
  const ChatSession::Answer answer = session.ask("Hello", [](const std::string&) {}, [&] { return ++asked == 2; });
  EXPECT_EQ(answer.finish, FinishReason::kCancelled);
  EXPECT_EQ(session.turns(), 2u);
}

TEST(ChatWithPictures, ShowsThemWithWhatIsSaidNext) {
  const OpenModel model = open_model("tests/goldens/step3_vl");
  EngineConfig config;
  config.context_tokens_max = 1024;
  config.sequences_max = 1;
  const std::unique_ptr<Engine> engine = Engine::start(*model.checkpoint, config);
  TextRequest request;
  request.new_tokens_max = 4;
  request.ignore_stop_ids = true;
  ChatSession session(*engine, model, request, "");
  const auto ask = [&](const std::string& text) {
    return session.ask(text, [](const std::string&) {}, [] { return false; });
  };
  const std::int64_t bare = ask("What is it?").stats.prompt_tokens;
  session.clear();
  session.show_picture("tests/goldens/pictures/rgb.png");
  EXPECT_EQ(ask("What is it?").stats.prompt_tokens, bare + 171 + 1);  // the space before the text is a token now
  EXPECT_THROW(session.show_picture("tests/goldens/pictures/one.gif"), Error);
  EXPECT_THROW(session.show_picture("tests/goldens/pictures/none.png"), Error);
  const ChatSession::Answer second = ask("And now?");  // the picture stays in the conversation
  EXPECT_GE(second.stats.cached_tokens, 128);
  session.show_picture("tests/goldens/pictures/smooth.jpg");
  session.show_picture("tests/goldens/pictures/rgb.png");
  EXPECT_GT(ask("These two?").stats.prompt_tokens, bare + 3 * 171);
  session.show_picture("tests/goldens/pictures/rgb.png");
  EXPECT_EQ(ask("And this?").turns_dropped, 2);  // the first question with its picture makes room
}

TEST(ChatProgram, APictureComesWithAPipedPrompt) {
  const auto chat = [](const std::string& model, const std::string& picture) {
    return run_program({"chat", "--model", "tests/goldens/" + model, "--image", "tests/goldens/pictures/" + picture,
                        "--quiet", "-n", "4", "--context-tokens-max", "512"},
                       "What is it?");
  };
  const ProgramResult result = chat("step3_vl", "rgb.png");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_GT(result.out.size(), 1u);
  EXPECT_THAT(chat("step3_vl", "animated.png").err, HasSubstr("animated.png: picture: it is animated"));
  EXPECT_THAT(chat("llama", "rgb.png").err, HasSubstr("sees no pictures"));
}

TEST(ChatProgram, APipedPromptGivesOneAnswer) {
  const std::vector<std::string> arguments{"chat", "--model", "tests/goldens/llama", "--quiet", "-n", "8"};
  const ProgramResult result = run_program(arguments, "Hello\n");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_GT(result.out.size(), 1u);
  EXPECT_EQ(result.out.back(), '\n');
  EXPECT_EQ(result.err, "");
  EXPECT_EQ(run_program(arguments, "Hello").out, result.out);

  const ProgramResult nothing = run_program(arguments, "\n");
  EXPECT_EQ(nothing.status, 1);
  EXPECT_THAT(nothing.err, HasSubstr("no prompt"));
}

class ChatTerminal : public testing::Test {
 protected:
  void SetUp() override {
    state_ = std::filesystem::path(testing::TempDir()) / "tandem_chat_state";
    std::filesystem::remove_all(state_);
    setenv("XDG_STATE_HOME", state_.c_str(), 1);
  }
  void TearDown() override {
    unsetenv("XDG_STATE_HOME");
    std::filesystem::remove_all(state_);
  }
  static ProgramResult chat(const std::vector<Exchange>& exchanges) {
    return run_at_terminal({"chat", "--model", "tests/goldens/llama", "-n", "100"}, exchanges);
  }

  std::filesystem::path state_;
};

TEST_F(ChatTerminal, CommandsAndHistory) {
  const ProgramResult result = chat({{"> ", "/help\r"},
                                     {"All else", "Zürich?\r"},
                                     {"> ", "/stats\r"},
                                     {"MiB resident", "/nonsense\r"},
                                     {"no command /nonsense", "/image\r"},
                                     {"usage: /image PATH", "/image  tests/goldens/pictures/rgb.png\r"},
                                     {"tests/goldens/llama sees no pictures", "/clear\r"},
                                     {"> ", "/quit\r"}});
  EXPECT_EQ(result.status, 0) << result.out;
  EXPECT_THAT(result.out, HasSubstr("layout    1A1F, 3 micro-batches"));
  EXPECT_THAT(result.out, HasSubstr("A0 "));
  EXPECT_THAT(result.out, HasSubstr("F0 "));
  std::ifstream file(state_ / "tandem" / "chat_history");
  const std::string history(std::istreambuf_iterator<char>(file), {});
  EXPECT_THAT(history, HasSubstr("rich?"));
  EXPECT_EQ(std::filesystem::status(state_ / "tandem" / "chat_history").permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);

  EXPECT_THAT(
      chat({{"> ", "\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\r"}, {"/clear       forget", "\x04"}}).status, 0);
}

TEST_F(ChatTerminal, TheEndOfInputLeaves) {
  EXPECT_EQ(chat({{"> ", "\x04"}}).status, 0);
}

TEST_F(ChatTerminal, InterruptsClearTheLineThenHintThenLeave) {
  const ProgramResult result =
      chat({{"> ", "abc"}, {"abc", "\x03"}, {"> ", "\x03"}, {"Ctrl-C again leaves", ""}, {"> ", "\x03"}});
  EXPECT_EQ(result.status, 0) << result.out;
}

TEST(StateFile, IsUnderTheStateFolder) {
  const std::string folder = testing::TempDir() + "tandem_state";
  setenv("XDG_STATE_HOME", folder.c_str(), 1);
  EXPECT_EQ(state_file("x"), folder + "/tandem/x");
  EXPECT_TRUE(std::filesystem::is_directory(folder + "/tandem"));
  unsetenv("XDG_STATE_HOME");
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace tandem
