// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem bench grammar: what a grammar costs with a model's vocabulary. Once for a request, when it is compiled; and
// for each token of an answer, when its mask is made and the token taken. Answers are walked twice: as a model would
// write them, and at random among all that is allowed, which visits places that no model would.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <iterator>

#include "base/clock.h"
#include "base/format.h"
#include "base/json.h"
#include "base/rng.h"
#include "chat_format/call_grammar.h"
#include "cli/command.h"
#include "cli/engine_options.h"
#include "session/open_model.h"
#include "text/grammar.h"

namespace tandem {

namespace {

struct Options {
  EngineOptions engine;
  std::string schema;  // a file
  std::int64_t tokens = 2000;
  std::uint64_t seed = 0;
  bool json = false;
};

struct Case {
  std::string name;
  GrammarKind kind;
  std::string source;
  std::string answer;  // a text that follows it; empty: walked at random only
};

constexpr const char* kOrderSchema = R"({"type": "object", "additionalProperties": false,
  "required": ["id", "customer", "items", "state"], "properties": {
  "id": {"type": "integer", "minimum": 1},
  "customer": {"type": "object", "required": ["name", "email"], "properties": {
    "name": {"type": "string", "maxLength": 80}, "email": {"type": "string", "format": "email"}}},
  "items": {"type": "array", "minItems": 1, "maxItems": 20, "items": {"$ref": "#/$defs/item"}},
  "state": {"enum": ["new", "paid", "sent", "returned"]},
  "note": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
  "$defs": {"item": {"type": "object", "required": ["name", "count", "price"], "properties": {
    "name": {"type": "string"}, "count": {"type": "integer", "minimum": 1, "maximum": 999},
    "price": {"type": "number"}, "tags": {"type": "array", "items": {"type": "string"}}}}}})";
constexpr const char* kOrder =
    R"({"id": 4711, "customer": {"name": "Ada Lovelace", "email": "ada@example.org"}, "items": [{"name": "punched )"
    R"(cards, blank", "count": 250, "price": 0.04, "tags": ["paper", "bulk"]}, {"name": "reading lamp", "count": 1, )"
    R"("price": 39.9}], "state": "paid", "note": "deliver to the back door, please \"knock\" twice"})";
constexpr const char* kSum =
    "start: sum\nsum: product (/[-+]/ product)*\nproduct: value (/[*\\/]/ value)*\n"
    "value: /[0-9]+(\\.[0-9]+)?/ | \"(\" sum \")\"\n";

std::vector<std::string> hundred_choices() {
  std::vector<std::string> texts;
  for (int i = 0; i < 100; ++i) texts.push_back(format("class {} of {}", i * 37 % 100, i % 7));
  return texts;
}

OrderedJson order_tools() {
  return OrderedJson::array(
      {{{"type", "function"},
        {"function", {{"name", "order"}, {"strict", true}, {"parameters", OrderedJson::parse(kOrderSchema)}}}}});
}

std::vector<Case> cases_of(const Options& options, const Tokenizer& tokenizer) {
  if (!options.schema.empty()) {
    std::ifstream file(options.schema);
    if (!file) throw Error(ErrorCode::kNotFound, format("{} cannot be read (--schema)", options.schema));
    const auto text = std::string(std::istreambuf_iterator<char>(file), {});
    return {{"schema", GrammarKind::kJsonSchema, schema_source(parse_ordered_json(text, options.schema)), {}}};
  }
  const CallSyntax& hermes = *find_call_syntax("hermes");
  return {{"json object", GrammarKind::kJsonSchema, schema_source({{"type", "object"}}), kOrder},
          {"json schema", GrammarKind::kJsonSchema, schema_source(OrderedJson::parse(kOrderSchema)), kOrder},
          {"regex", GrammarKind::kRegex, R"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2}) [\w .-]{1,60})",
           "2025-06-01T08:30:00+02:00 a walk in the park"},
          {"choice", GrammarKind::kLark, lark_choice(hundred_choices()), "class 37 of 1"},
          {"grammar", GrammarKind::kLark, kSum, "(12.5+3)*4-(7/(2+0.25))*100"},
          {"tool call", GrammarKind::kLark, call_grammar(hermes, order_tools(), tokenizer),
           format("<tool_call>\n{{\"name\": \"order\", \"arguments\": {}}}\n</tool_call>", kOrder)},
          {"text, call", GrammarKind::kLark, call_grammar(hermes, order_tools(), tokenizer, {.with_text = true}),
           format("I order that <b>at once</b>, if it is in store: <tool_call>\n{{\"name\": \"order\", "
                  "\"arguments\": {}}}\n</tool_call>",
                  kOrder)}};
}

// Microseconds of each token.
class Times {
 public:
  void add(double us) { all_.push_back(us); }
  std::size_t count() const { return all_.size(); }
  double mean() const {
    double sum = 0;
    for (const double us : all_) sum += us;
    return all_.empty() ? 0 : sum / static_cast<double>(all_.size());
  }
  double quantile(double part) {
    if (all_.empty()) return 0;
    const auto at = static_cast<std::size_t>(part * static_cast<double>(all_.size() - 1));
    std::ranges::nth_element(all_, all_.begin() + static_cast<std::ptrdiff_t>(at));
    return all_[at];
  }

 private:
  std::vector<double> all_;
};

// What this thread has computed so far.
double thread_us() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

// Makes masks along an answer.
class Walk {
 public:
  Walk(const Grammar& start, const OpenModel& model)
      : start_(start), model_(model), words_((model.tokenizer.vocab_size() + 31) / 32) {}

  void along(std::string_view answer, std::int64_t tokens) {
    const std::vector<std::int32_t> ids = model_.tokenizer.encode(answer, {.parse_special = true});
    while (static_cast<std::int64_t>(answer_.count()) < tokens) {
      Grammar grammar = start_.clone();
      for (const std::int32_t id : ids) take(grammar, answer_, [&] { return id; });
    }
  }
  void at_random(std::int64_t tokens, std::uint64_t seed) {
    Rng rng(seed);
    while (static_cast<std::int64_t>(random_.count()) < tokens) {
      Grammar grammar = start_.clone();
      for (int length = 0; length < 400 && !grammar.complete(); ++length) {
        bool ended = false;
        take(grammar, random_, [&] {
          const std::int32_t id = any_allowed(rng);
          ended = std::ranges::find(model_.stop_ids, id) != model_.stop_ids.end();
          return id;
        });
        if (ended) break;
      }
    }
  }
  Times& answer() { return answer_; }
  Times& random() { return random_; }

 private:
  template <class Choose>
  void take(Grammar& grammar, Times& times, Choose choose) {
    const double begin = thread_us();
    require(grammar.allowed({}, words_));
    const double masked = thread_us();
    const std::int32_t id = choose();
    if ((words_[static_cast<std::size_t>(id) / 32] >> (id % 32) & 1) == 0)
      throw Error(ErrorCode::kInternal, format("the answer's token {} is not allowed", id));
    const double taking = thread_us();
    require(grammar.accept(id));
    times.add(masked - begin + thread_us() - taking);
  }
  static void require(const Status& status) {
    if (!status) throw status.error();
  }
  std::int32_t any_allowed(Rng& rng) const {
    std::vector<std::int32_t> ids;
    for (std::size_t i = 0; i < words_.size() * 32; ++i)
      if ((words_[i / 32] >> (i % 32) & 1) != 0) ids.push_back(static_cast<std::int32_t>(i));
    return ids.at(rng.below(ids.size()));
  }

  const Grammar& start_;
  const OpenModel& model_;
  std::vector<std::uint32_t> words_;
  Times answer_, random_;
};

OrderedJson json_of(Times& times) {
  return {{"tokens", times.count()},
          {"us_mean", times.mean()},
          {"us_p50", times.quantile(0.5)},
          {"us_p99", times.quantile(0.99)},
          {"us_max", times.quantile(1)}};
}

std::string text_of(Times& times) {
  if (times.count() == 0) return format("{:>31}", "-");
  return format("{:>7.1f} {:>7.1f} {:>7.1f} {:>7.1f}", times.mean(), times.quantile(0.5), times.quantile(0.99),
                times.quantile(1));
}

int run(const Options& options) {
  const OpenModel model = open_model(model_path(options.engine));
  const RealClock clock;
  const auto ms_since = [&](Nanoseconds begin) { return static_cast<double>(clock.now() - begin) * 1e-6; };
  const Nanoseconds begin = clock.now();
  const GrammarVocabulary vocabulary(model.tokenizer, model.stop_ids);
  // The first grammar makes the form of the tokens that all others find: a model's cost, not that grammar's.
  const Grammar first = vocabulary.compile(GrammarKind::kLark, lark_choice(std::vector<std::string>{"a"}));
  if (!options.json)
    std::fputs(
        format(
            "{} tokens, ready for grammars in {:.0f} ms; microseconds a token: mean, median, 99 %, most\n{:<12} {:>10} "
            "{:>31} {:>31}\n",
            model.tokenizer.vocab_size(), ms_since(begin), "", "compile ms", "along an answer", "at random")
            .c_str(),
        stdout);
  for (const Case& c : cases_of(options, model.tokenizer)) {
    const Nanoseconds compiling = clock.now();
    const Grammar grammar = vocabulary.compile(c.kind, c.source);
    const double compile_ms = ms_since(compiling);
    Walk walk(grammar, model);
    if (!c.answer.empty()) walk.along(c.answer, options.tokens);
    walk.at_random(options.tokens, options.seed);
    const std::string line = options.json ? OrderedJson{{"grammar", c.name},
                                                        {"compile_ms", compile_ms},
                                                        {"answer", json_of(walk.answer())},
                                                        {"random", json_of(walk.random())}}
                                                .dump()
                                          : format("{:<12} {:>10.2f} {} {}", c.name, compile_ms, text_of(walk.answer()),
                                                   text_of(walk.random()));
    std::fputs((line + "\n").c_str(), stdout);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace

Action declare_bench_grammar(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  app.add_option("-m,--model", options->engine.model, "a GGUF file, or a folder with config.json and safetensors");
  app.add_option("--schema", options->schema, "a file with a JSON schema to measure instead of the usual grammars");
  app.add_option("--tokens", options->tokens, "of each walk")->check(CLI::Range(1, 1 << 24))->capture_default_str();
  app.add_option("--seed", options->seed, "of the random walks")->capture_default_str();
  app.add_flag("--json", options->json, "one JSON object a line");
  return [options] { return run(*options); };
}

}  // namespace tandem
