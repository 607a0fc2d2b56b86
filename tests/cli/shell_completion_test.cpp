// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "cli/shell_completion.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/format.h"
#include "cli/command.h"
#include "tests/cli/program.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

const std::vector<CompletionCommand> kCommands = {
    {"", "the program", {"bench", "say"}, {{{"-h", "--help"}, "it's help", false}}},
    {"bench", "measures", {"model"}, {}},
    {"bench model", "of a model", {}, {{{"--batch"}, "how many", true}, {{"--json"}, "as JSON", false}}},
    {"say", "says", {}, {}},
};

// What bash offers for the last of words, in order.
std::string offered(const std::string& script, const std::vector<std::string>& words) {
  const std::string path = ::testing::TempDir() + format("completion-{}.bash", getpid());
  std::ofstream(path) << script
                      << format("\nCOMP_WORDS=({})\nCOMP_CWORD={}\n_tandem\necho \"${{COMPREPLY[*]}}\"\n",
                                join(words, " "), words.size() - 1);
  FILE* pipe = ::popen(format("bash {} 2>&1", path).c_str(), "r");
  std::string text;
  for (int c; (c = std::fgetc(pipe)) != EOF;) text += static_cast<char>(c);
  EXPECT_EQ(::pclose(pipe), 0) << text;
  std::remove(path.c_str());
  return text.substr(0, text.find('\n'));
}

TEST(ShellCompletion, bash_offers_what_may_follow) {
  const std::string script = bash_completion(kCommands);
  EXPECT_EQ(offered(script, {"tandem", "b"}), "bench");
  EXPECT_EQ(offered(script, {"tandem", "--h"}), "--help");
  EXPECT_EQ(offered(script, {"tandem", "bench", "m"}), "model");
  EXPECT_EQ(offered(script, {"tandem", "bench", "model", "--"}), "--batch --json");
  EXPECT_EQ(offered(script, {"tandem", "bench", "model", "--json", "--b"}), "--batch");
  EXPECT_EQ(offered(script, {"tandem", "say", "--"}), "");
  EXPECT_EQ(offered(script, {"tandem", "say", "tests/goldens/smol"}), "tests/goldens/smollm2") << "a file";
}

TEST(ShellCompletion, zsh_and_fish_have_every_word_with_its_meaning) {
  const std::string zsh = zsh_completion(kCommands), fish = fish_completion(kCommands);
  EXPECT_THAT(zsh, HasSubstr("'model:of a model'"));
  EXPECT_THAT(zsh, HasSubstr("'--help:it'\\''s help'"));
  EXPECT_THAT(fish, HasSubstr("complete -c tandem -f -n '__tandem_at bench' -a 'model' -d 'of a model'\n"));
  EXPECT_THAT(fish, HasSubstr("complete -c tandem -n '__tandem_at bench model' -l batch -r -d 'how many'\n"));
  EXPECT_THAT(fish, HasSubstr("complete -c tandem -n '__tandem_at ' -s h -l help -d 'it'\\''s help'\n"));
}

TEST(ShellCompletion, the_programs_own_script_knows_every_command) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const ProgramResult result = run_program({"completion", shell});
    EXPECT_EQ(result.status, 0) << result.err;
    for (const Subcommand& command : commands()) {
      std::istringstream words(command.name);
      for (std::string word; words >> word;) EXPECT_THAT(result.out, HasSubstr(word)) << shell;
    }
    EXPECT_THAT(result.out, HasSubstr("rows-per-step-max"));
  }
  EXPECT_EQ(run_program({"completion", "tcsh"}).status, 2);
  EXPECT_EQ(offered(run_program({"completion", "bash"}).out, {"tandem", "bench", "serve", "--conc"}), "--concurrency");
}

}  // namespace
}  // namespace tandem
