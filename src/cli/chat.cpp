// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem chat: a conversation at a terminal, or one question and one answer without one.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/format.h"
#include "cli/chat_session.h"
#include "cli/command.h"
#include "cli/engine_options.h"
#include "cli/interrupt.h"
#include "cli/line_editor.h"
#include "cli/line_source.h"
#include "cli/sampling_options.h"
#include "engine/settings/machine.h"

namespace tandem {

namespace {

struct Options {
  EngineOptions engine;
  TextRequest request;
  std::string system;
  std::vector<std::string> images;
};

constexpr const char* kHelp =
    "/help        this list\n"
    "/clear       forget the conversation\n"
    "/image PATH  show a picture with what is said next\n"
    "/stats       what the last answer took, and what the workers did\n"
    "/quit        leave (or Ctrl-D)\n"
    "Ctrl-C       stops an answer, or clears the line; pressed again at an empty prompt it leaves\n"
    "All else is said to the model.\n";

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void note(const std::string& text) {
  std::fputs(format("({})\n", text).c_str(), stderr);
}

std::string worker_line(const std::string& name, const WorkerStats& stats) {
  const double busy = static_cast<double>(stats.busy_ns) * 1e-9, wait = static_cast<double>(stats.wait_ns) * 1e-9;
  return format("{:<9} {} steps, {} rows, busy {:.2f} s, waiting for a peer {:.2f} s, sent again {}, refused {}\n",
                name, stats.steps.load(), stats.rows.load(), busy, wait, stats.resends.load(),
                stats.frames_refused.load());
}

std::string stats_text(Engine& engine, const AnswerStats& answer) {
  std::string text;
  if (answer.answer_tokens > 0)
    text += format(
        "answer    {} tokens, first after {:.3f} s, then {:.1f} tokens/s\n"
        "prompt    {} tokens, {} of them from the prefix cache\n",
        answer.answer_tokens, answer.first_token_seconds, answer.tokens_per_second(), answer.prompt_tokens,
        answer.cached_tokens);
  const bool local = engine.config().layout.local();
  int index = 0;
  for (const RequestTaker* worker : engine.workers().takers())
    text += worker_line(local ? "A and F" : format("A{}", index++), worker->stats());
  index = 0;
  for (const WorkerStats* stats : engine.workers().ffn_stats()) text += worker_line(format("F{}", index++), *stats);
  return text + format("memory    {} MiB resident\n", resident_memory_bytes() >> 20);
}

// The conversation at a terminal.
class Terminal {
 public:
  Terminal(Engine& engine, ChatSession& session)
      : engine_(engine), session_(session), editor_("> ", state_file("chat_history"), interrupts_) {}

  void run() {
    std::fputs("Say something; /help lists the commands.\n", stderr);
    for (std::string line;;) {
      switch (editor_.read(line)) {
        case LineEditor::Outcome::kEnd:
          print("\n");
          return;
        case LineEditor::Outcome::kInterrupted:
          print("\n");
          if (!line.empty()) break;
          if (interrupted_) return;
          interrupted_ = true;
          note("Ctrl-C again leaves; so do Ctrl-D and /quit");
          break;
        case LineEditor::Outcome::kLine:
          interrupted_ = false;
          if (!take(line)) return;
      }
    }
  }

 private:
  // False when the user wants to leave.
  bool take(const std::string& line) {
    const std::size_t begin = line.find_first_not_of(" \t");
    if (begin == std::string::npos) return true;
    if (line[begin] != '/') {
      answer(line);
      return true;
    }
    const std::string word = line.substr(begin, line.find_last_not_of(" \t") + 1 - begin);
    if (word == "/quit" || word == "/exit") return false;
    if (word == "/help")
      print(kHelp);
    else if (word == "/clear")
      session_.clear();
    else if (word.starts_with("/image"))
      show_picture(word);
    else if (word == "/stats")
      print(stats_text(engine_, last_));
    else
      note(format("no command {}; /help lists them", word));
    return true;
  }

  // "/image PATH"; the path may have spaces.
  void show_picture(const std::string& command) {
    const std::size_t path = command.find_first_not_of(" \t", 6);
    try {
      if (path == std::string::npos || path == 6) throw Error(ErrorCode::kInvalidArgument, "usage: /image PATH");
      session_.show_picture(command.substr(path));
      note("it is shown with what you say next");
    } catch (const Error& error) {
      note(error.message());
    }
  }

  void answer(const std::string& text) {
    (void)interrupts_.take();  // one that came between answers is not meant for this one
    try {
      const ChatSession::Answer answer = session_.ask(text, print, [this] { return interrupts_.take(); });
      print("\n");
      last_ = answer.stats;
      if (answer.turns_dropped > 0)
        note(format("the context is full: the oldest {} messages were left out", answer.turns_dropped));
      if (answer.finish == FinishReason::kCancelled) note("stopped");
      if (answer.finish == FinishReason::kLength)
        note("the answer reached its limit: --max-tokens or --context-tokens-max");
    } catch (const Error& error) {
      print("\n");
      note(error.message());
    }
  }

  Engine& engine_;
  ChatSession& session_;
  InterruptWatch interrupts_;
  LineEditor editor_;
  AnswerStats last_;
  bool interrupted_ = false;
};

// What standard input says, without the line end that a shell adds.
std::string piped_prompt() {
  std::string text = LineSource("-").rest();
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  if (text.empty()) throw Error(ErrorCode::kInvalidArgument, "standard input has no prompt");
  return text;
}

int run(const Options& options) {
  const bool terminal = isatty(STDIN_FILENO);
  const OpenModel model = open_model(model_path(options.engine));
  if (!model.chat_template)
    throw Error(ErrorCode::kUnsupported,
                format("{} has no chat template; tandem generate completes text with it", options.engine.model));
  const std::string prompt = terminal ? std::string() : piped_prompt();
  RunningEngine engine(*model.checkpoint, options.engine);
  {
    ChatSession session(*engine, model, options.request, options.system);
    for (const std::string& path : options.images) session.show_picture(path);
    if (terminal) {
      Terminal(*engine, session).run();
    } else {
      session.ask(prompt, print, [] { return false; });
      print("\n");
    }
  }
  engine.finish();
  return 0;
}

}  // namespace

Action declare_chat(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  // One conversation; what is likely is said, with a little variety.
  options->engine.config.sequences_max = 1;
  options->request.new_tokens_max = 1024;
  options->request.sampling.temperature = 0.2f;
  options->request.sampling.top_p = 0.9f;
  app.add_option("--system", options->system, "what the system says first");
  app.add_option("--image", options->images, "a picture that comes with what is said first; may be repeated")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  declare_sampling_options(app, options->request);
  declare_engine_options(app, options->engine);
  return [options] { return run(*options); };
}

}  // namespace tandem
