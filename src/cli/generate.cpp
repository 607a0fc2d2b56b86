// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem generate: every prompt of the command line, a file or a stream of JSON lines through one engine, as many at
// once as it runs. Memory is bounded: no line is read while so many before it are unanswered or unwritten.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <deque>
#include <fstream>
#include <iterator>

#include "base/format.h"
#include "chat_format/chat_format.h"
#include "cli/command.h"
#include "cli/completion.h"
#include "cli/engine_options.h"
#include "cli/line_source.h"
#include "cli/sampling_options.h"
#include "session/grammar_constraint.h"
#include "session/request_json.h"
#include "verify/self_check.h"

namespace tandem {

namespace {

struct Options {
  EngineOptions engine;
  TextRequest request;
  std::vector<std::string> prompts;
  std::string file;   // one prompt
  std::string jsonl;  // a request per line
  std::string system;
  std::vector<std::string> images;
  bool chat = false;
  bool unordered = false;
  bool self_check = false;
  std::int32_t logprobs = -1;
  CompletionFormat format;
  std::string schema_file, grammar_file, regex;
  std::vector<std::string> choices;
  std::optional<AnswerForm> form;  // of the four above
};

std::string content_of(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw Error(ErrorCode::kNotFound, format("{} cannot be read", path));
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::optional<AnswerForm> form_of(const Options& o) {
  if (!o.schema_file.empty() + !o.grammar_file.empty() + !o.regex.empty() + !o.choices.empty() > 1)
    throw UsageError("an answer has one form at most: give one of --json-schema, --regex, --choice and --grammar");
  if (!o.schema_file.empty())
    return read_form("json_schema", parse_ordered_json(content_of(o.schema_file), o.schema_file));
  if (!o.grammar_file.empty()) return read_form("grammar", content_of(o.grammar_file));
  if (!o.regex.empty()) return read_form("regex", o.regex);
  if (!o.choices.empty()) return read_form("choice", o.choices);
  return std::nullopt;
}

// Reads requests, keeps the engine busy, writes answers.
class Generation {
 public:
  Generation(Engine& engine, const OpenModel& model, const Options& options)
      : model_(model),
        options_(options),
        format_(find_chat_format(model.tokenizer, model.template_source)),
        session_(engine, model) {
    const EngineConfig& c = engine.config();
    open_max_ = static_cast<std::size_t>(std::min(c.queue_max, 2 * c.sequences_max * c.layout.attention_workers));
    for (const std::string& prompt : options.prompts) given_.push_back(request_of(prompt));
    if (!options.file.empty()) given_.push_back(request_of(LineSource(options.file).rest()));
    if (!options.jsonl.empty()) lines_.emplace(options.jsonl);
  }

  // How many requests failed.
  std::int64_t run() {
    while (true) {
      take_input();
      write_finished();
      if (open_.empty() && input_ended()) return failures_;
      if (session_.running() == 0) continue;
      // With room for more requests the input is looked at often; otherwise only news can change anything.
      const bool may_take = !input_ended() && open_.size() < open_max_;
      if (const auto news = session_.next(may_take ? 5 * kMillisecond : kSecond))
        open_.at(place_.at(news->id)).add(*news);
    }
  }
  std::int64_t count() const { return taken_; }

 private:
  OrderedJson request_of(const std::string& prompt) const {
    if (options_.system.empty() && options_.images.empty()) return {{"prompt", prompt}};
    OrderedJson content = prompt;
    if (!options_.images.empty()) {
      content = OrderedJson::array();
      for (const std::string& path : options_.images) content.push_back({{"type", "image"}, {"path", path}});
      content.push_back({{"type", "text"}, {"text", prompt}});
    }
    OrderedJson messages = OrderedJson::array();
    if (!options_.system.empty()) messages.push_back({{"role", "system"}, {"content", options_.system}});
    messages.push_back({{"role", "user"}, {"content", content}});
    return {{"messages", messages}};
  }

  bool input_ended() const { return given_.empty() && (!lines_ || lines_->ended()); }

  void take_input() {
    while (open_.size() < open_max_) {
      if (!given_.empty()) {
        submit(given_.front());
        given_.pop_front();
        continue;
      }
      if (!lines_ || lines_->ended()) return;
      const std::optional<std::string> line = lines_->next(open_.empty() ? -1 : 0);
      if (!line) return;
      ++line_number_;
      if (line->find_first_not_of(" \t\r") != std::string::npos) submit_line(*line);
    }
  }

  void submit_line(const std::string& line) {
    OrderedJson object;
    try {
      parse_json(line, format("line {}", line_number_));
      object = OrderedJson::parse(line);  // again for the order of keys, which shows in prompts
    } catch (const Error& error) {
      open_.emplace(taken_++, PromptCompletion(nullptr)).first->second.fail(error);
      return;
    }
    submit(object);
  }

  void submit(const OrderedJson& object) {
    PromptCompletion completion(request_id(object),
                                options_.request.sampling.logprobs >= 0 || asks_for_logprobs(object));
    const std::int64_t place = taken_++;
    try {
      JsonRequest read = read_request(object, model_, options_.request, options_.chat);
      if (const auto& form = read.form ? read.form : options_.form) read.request.constraint = constrain(*form, read);
      Result<RequestId> id = session_.submit(std::move(read.request));
      if (id)
        place_[id.value()] = place;
      else
        completion.fail(id.error());
    } catch (const Error& error) {
      completion.fail(error);
    }
    open_.emplace(place, std::move(completion));
  }

  std::shared_ptr<TokenConstraint> constrain(const AnswerForm& form, const JsonRequest& read) {
    if (!vocabulary_) vocabulary_.emplace(model_.tokenizer, model_.stop_ids);
    const auto& ids = read.request.prompt;
    const auto end = std::span(ids).last(std::min(ids.size(), kPromptEndTokens));
    const auto start =
        read.conversation ? format_.start_after(model_.tokenizer.decode(end)) : ReasoningParser::Start::kContent;
    return std::make_shared<GrammarConstraint>(vocabulary_->compile(form.kind, form.source), model_, start);
  }

  static bool asks_for_logprobs(const OrderedJson& object) { return object.is_object() && object.contains("logprobs"); }

  void write_finished() {
    for (auto at = open_.begin(); at != open_.end();) {
      if (!at->second.done()) {
        if (!options_.unordered) break;
        ++at;
        continue;
      }
      write(at->second);
      at = open_.erase(at);
    }
    std::erase_if(place_, [&](const auto& entry) { return !open_.contains(entry.second); });
    std::fflush(stdout);
  }

  void write(const PromptCompletion& completion) {
    if (completion.failed()) ++failures_;
    if (completion.failed() && options_.format.text_only) throw completion.status().error();
    const std::string line = completion.line(model_.tokenizer, options_.format);
    if (std::fwrite(line.data(), 1, line.size(), stdout) != line.size())
      throw Error(ErrorCode::kUnavailable, "cannot write to standard output");
  }

  const OpenModel& model_;
  const Options& options_;
  const ChatFormat format_;
  std::optional<GrammarVocabulary> vocabulary_;  // made when the first answer has a form
  TextSession session_;
  std::size_t open_max_;
  std::deque<OrderedJson> given_;
  std::optional<LineSource> lines_;
  std::int64_t line_number_ = 0, taken_ = 0, failures_ = 0;
  std::map<std::int64_t, PromptCompletion> open_;  // by place in the input: read and not yet written
  std::map<RequestId, std::int64_t> place_;
};

// Whether it passed. The report is the command's output when nothing else is asked for.
bool report_self_check(const SelfCheckReport& report, const Engine& engine, std::FILE* to) {
  std::string text = format("{:<20} {:>9} {:>19} {:>10}\n", "operator", "compared", "largest difference", "limit");
  for (const ComparedOperator& op : report.operators)
    text += format("{:<20} {:>9} {:>19.1e} {:>10.0e} {}\n", op.name, op.compared, op.largest, op.limit,
                   op.passed() ? "ok" : "FAILED");
  text += format("self-check {}: {} against the reference, {} tokens; differences are relative to the largest value\n",
                 report.passed() ? "passed" : "FAILED", engine.describe_backend(), report.tokens);
  std::fputs(text.c_str(), to);
  return report.passed();
}

int run(Options& options) {
  const int sources = !options.prompts.empty() + !options.file.empty() + !options.jsonl.empty();
  if (sources > 1 || (sources == 0 && !options.self_check))
    throw UsageError("prompts come from arguments, from --file or from --jsonl: give one of these");
  if (options.format.text_only && (!options.jsonl.empty() || options.prompts.size() > 1))
    throw UsageError("--text prints the answer to one prompt; without it every answer is a line of JSON");
  if (options.self_check && !options.engine.deployment.file.empty())
    throw UsageError("--selfcheck looks into workers of this process, not of a --deployment");
  options.request.sampling.logprobs = options.logprobs;
  options.form = form_of(options);
  const OpenModel model = open_model(model_path(options.engine));
  std::optional<SelfCheck> check;  // outlives the engine
  if (options.self_check) check.emplace(*model.checkpoint).connect(options.engine.config);
  RunningEngine engine(*model.checkpoint, options.engine);
  if (check) {
    const SelfCheckReport report = check->run(*engine, options.request.sampling.seed);
    const bool passed = report_self_check(report, *engine, sources == 0 ? stdout : stderr);
    if (!passed || sources == 0) {
      engine.finish();
      return passed ? 0 : 1;
    }
  }
  std::int64_t failures = 0, count = 0;
  {
    Generation generation(*engine, model, options);
    failures = generation.run();
    count = generation.count();
  }
  engine.finish();
  if (failures > 0 && !options.engine.quiet)
    std::fputs(format("tandem: {} of {} requests failed\n", failures, count).c_str(), stderr);
  return failures > 0 ? 1 : 0;
}

}  // namespace

Action declare_generate(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  options->request.new_tokens_max = 256;
  app.add_option("prompt", options->prompts, "texts to complete");
  app.add_option("--file", options->file, "a file that is one prompt; - for standard input");
  app.add_option("--jsonl", options->jsonl, "a file of requests, one JSON object a line; - for standard input");
  app.add_flag("--chat", options->chat, "a prompt is what a user says in a conversation, not a text to complete");
  app.add_option("--system", options->system, "what the system says before each prompt; implies --chat");
  app.add_option("--image", options->images, "a picture that comes before each prompt; may be repeated; implies --chat")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_flag("--text", options->format.text_only, "of one prompt: the text alone");
  app.add_flag("--token-ids", options->format.token_ids, "list the ids of each answer");
  app.add_option("--logprobs", options->logprobs,
                 "list each token's log-probability and those of so many likeliest, 0 to 32");
  app.add_option("--json-schema", options->schema_file, "a file with a JSON schema that each answer follows");
  app.add_option("--regex", options->regex, "an expression that each whole answer matches");
  app.add_option("--choice", options->choices, "a text that an answer may be; repeated for each of them")
      ->allow_extra_args(false);
  app.add_option("--grammar", options->grammar_file, "a file with a Lark grammar that each answer follows");
  app.add_flag("--unordered", options->unordered, "write answers as they finish, not in the order of prompts");
  app.add_flag("--selfcheck", options->self_check,
               "first compare operators of the loaded model with the reference backend; without prompts nothing else");
  declare_sampling_options(app, options->request);
  declare_engine_options(app, options->engine);
  return [options] { return run(*options); };
}

}  // namespace tandem
