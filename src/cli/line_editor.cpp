// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/line_editor.h"

#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cwchar>
#include <filesystem>

#include "base/error.h"

namespace tandem {

namespace {

constexpr int kHistoryLines = 1000;

}  // namespace

struct LineEditor::State {
  std::string prompt, history_file;
  InterruptWatch* interrupts;
  EditLine* edit = nullptr;
  History* history = nullptr;
  bool interrupted = false;
  std::string typed;  // when it was interrupted; libedit forgets it

  // One character; libedit's own reader would sit in read() through a Ctrl-C. 1: a character, 0: the end.
  int read_character(wchar_t* out) {
    mbstate_t state{};
    while (true) {
      pollfd waited[] = {{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0},
                         {.fd = interrupts->fd(), .events = POLLIN, .revents = 0}};
      if (poll(waited, 2, -1) < 0 && errno != EINTR) return 0;
      if (interrupts->take()) {
        interrupted = true;
        const LineInfo* line = el_line(edit);
        typed.assign(line->buffer, line->lastchar);
        return 0;
      }
      if (waited[0].revents == 0) continue;
      char byte;
      if (::read(STDIN_FILENO, &byte, 1) != 1) return 0;
      const std::size_t used = mbrtowc(out, &byte, 1, &state);
      if (used == static_cast<std::size_t>(-2)) continue;  // the character has more bytes
      if (used <= 1) return 1;
      state = {};  // no character of this locale: passed over
    }
  }
};

LineEditor::LineEditor(std::string prompt, std::string history_file, InterruptWatch& interrupts)
    : state_(std::make_unique<State>()) {
  if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
  State& s = *state_;
  s.prompt = std::move(prompt);
  s.history_file = std::move(history_file);
  s.interrupts = &interrupts;
  s.edit = el_init("tandem", stdin, stdout, stderr);
  if (!s.edit) throw Error(ErrorCode::kUnavailable, "the terminal cannot be used for line editing");
  el_set(s.edit, EL_CLIENTDATA, &s);
  const auto state_of = [](EditLine* edit) {
    void* state = nullptr;
    el_get(edit, EL_CLIENTDATA, &state);
    return static_cast<State*>(state);
  };
  static const auto find_state = state_of;
  el_set(s.edit, EL_PROMPT, +[](EditLine* edit) { return find_state(edit)->prompt.data(); });
  el_set(s.edit, EL_GETCFN, +[](EditLine* edit, wchar_t* out) { return find_state(edit)->read_character(out); });
  el_set(s.edit, EL_EDITOR, "emacs");
  el_set(s.edit, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  s.history = history_init();
  HistEvent event;
  history(s.history, &event, H_SETSIZE, kHistoryLines);
  history(s.history, &event, H_SETUNIQUE, 1);
  if (!s.history_file.empty()) history(s.history, &event, H_LOAD, s.history_file.c_str());
  el_set(s.edit, EL_HIST, ::history, s.history);
}

LineEditor::~LineEditor() {
  HistEvent event;
  if (!state_->history_file.empty()) {
    const mode_t previous = umask(077);  // what one says is one's own
    history(state_->history, &event, H_SAVE, state_->history_file.c_str());
    umask(previous);
  }
  history_end(state_->history);
  el_end(state_->edit);
}

LineEditor::Outcome LineEditor::read(std::string& line) {
  State& s = *state_;
  s.interrupted = false;
  int count = 0;
  const char* text = el_gets(s.edit, &count);
  if (s.interrupted) {
    line = s.typed;
    return Outcome::kInterrupted;
  }
  if (!text || count <= 0) return Outcome::kEnd;
  line.assign(text, static_cast<std::size_t>(count));
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  HistEvent event;
  if (!line.empty()) history(s.history, &event, H_ENTER, line.c_str());
  return Outcome::kLine;
}

std::string state_file(const std::string& name) {
  std::filesystem::path folder;
  if (const char* state = getenv("XDG_STATE_HOME"); state && *state == '/')
    folder = state;
  else if (const char* home = getenv("HOME"); home && *home == '/')
    folder = std::filesystem::path(home) / ".local" / "state";
  else
    return {};
  std::error_code failure;
  std::filesystem::create_directories(folder / "tandem", failure);
  return failure ? std::string() : (folder / "tandem" / name).string();
}

}  // namespace tandem
