// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The table of commands. main builds the command line and all help from it; a command is one function that declares its
// options and returns what to do once they have been read.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

namespace CLI {
class App;
}

namespace tandem {

// A command line whose parts do not go together; main ends with status 2.
class UsageError : public Error {
 public:
  explicit UsageError(std::string message) : Error(ErrorCode::kInvalidArgument, std::move(message)) {}
};

// Runs the command; the result is the exit status. Throws Error.
using Action = std::function<int()>;

struct Subcommand {
  const char* name;     // "chat", or "bench model" for a command below another
  const char* summary;  // one line
  const char* details;  // below the options in --help: what it prints, an example
  Action (*declare)(CLI::App& app);
};

const std::vector<Subcommand>& commands();

// What the words of a parent such as "bench" mean together.
const char* parent_summary(const char* name);

Action declare_chat(CLI::App& app);
Action declare_generate(CLI::App& app);
Action declare_serve(CLI::App& app);
Action declare_attention(CLI::App& app);
Action declare_ffn(CLI::App& app);
Action declare_up(CLI::App& app);
Action declare_ctl_status(CLI::App& app);
Action declare_ctl_drain(CLI::App& app);
Action declare_ctl_add(CLI::App& app);
Action declare_keys_secret(CLI::App& app);
Action declare_keys_certificates(CLI::App& app);
Action declare_simulate(CLI::App& app);
Action declare_inspect(CLI::App& app);
Action declare_verify(CLI::App& app);
Action declare_make_checkpoint(CLI::App& app);
Action declare_bench_model(CLI::App& app);
Action declare_bench_grammar(CLI::App& app);
Action declare_bench_hand_over(CLI::App& app);
Action declare_bench_kernels(CLI::App& app);
Action declare_bench_layout(CLI::App& app);
Action declare_bench_load(CLI::App& app);
Action declare_bench_machine(CLI::App& app);
Action declare_bench_serve(CLI::App& app);
Action declare_bench_slice(CLI::App& app);
Action declare_bench_vision(CLI::App& app);
Action declare_plan_cost(CLI::App& app);
Action declare_plan_deploy(CLI::App& app);
Action declare_plan_check(CLI::App& app);
Action declare_plan_sparsity(CLI::App& app);
Action declare_completion(CLI::App& app);

}  // namespace tandem
