// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// tandem ctl: what a running front tells, and who is to take part.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>

#include "base/format.h"
#include "base/json.h"
#include "cli/command.h"
#include "roles/front_control.h"

namespace tandem {

namespace {

struct Options {
  std::string file;
  std::string host;
  std::int32_t rank = 0;
  std::int32_t seconds = 60;
  bool json = false;
};

class Front {
 public:
  explicit Front(const Options& options) : options_(options), deployment_(read_deployment(options.file)) {}

  Json ask(OrderKind kind) const {
    const Order order{.deployment = deployment_.name, .kind = kind, .rank = options_.rank};
    const Told told = order_front(deployment_, options_.host, order, options_.seconds * kSecond);
    return parse_json(told.json, "what the front tells");
  }

 private:
  const Options& options_;
  const Deployment deployment_;
};

std::int64_t number(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
}

std::string text(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

std::string step_ms(const Json& worker, const char* key) {
  const std::int64_t steps = number(worker, "steps");
  return steps == 0 ? "-"
                    : format("{:.2f}", static_cast<double>(number(worker, key)) * 1e-6 / static_cast<double>(steps));
}

void show(const Json& status) {
  std::string out =
      format("deployment {}, {}, links {}: {}, epoch {}\n", text(status, "deployment"), text(status, "layout"),
             text(status, "links"), text(status, "phase"), number(status, "epoch"));
  out += format("{:<4} {:<5} {:<24} {:<10} {:>8} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8}\n", "rank", "name", "address",
                "state", "requests", "steps", "busy ms", "wait ms", "KV held", "KV all", "resends");
  const Json none = Json::array();
  for (const Json& w : status.contains("workers") ? status["workers"] : none) {
    const bool keeps = w.contains("kv_tokens");
    const auto of_attention = [&](const char* key) { return keeps ? format("{}", number(w, key)) : std::string("-"); };
    out += format("{:<4} {:<5} {:<24} {:<10} {:>8} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8}\n", number(w, "rank"),
                  text(w, "name"), format("{}:{}", text(w, "host"), number(w, "port")), text(w, "state"),
                  of_attention("requests"), number(w, "steps"), step_ms(w, "busy_ns"), step_ms(w, "wait_ns"),
                  of_attention("kv_blocks_held"), of_attention("kv_blocks"), number(w, "resends"));
    if (const std::string why = text(w, "why"); !why.empty()) out += format("     {}\n", why);
  }
  if (const std::string slow = text(status, "slow"); !slow.empty()) out += "slow: " + slow + "\n";
  if (const std::string missing = text(status, "missing"); !missing.empty()) out += missing + "\n";
  std::fputs(out.c_str(), stdout);
}

int tell(const Options& options, const Json& status) {
  if (options.json)
    std::fputs((to_line(status) + "\n").c_str(), stdout);
  else
    show(status);
  return 0;
}

// Whether the deployment runs with the worker as it was ordered.
bool is_done(const Json& status, const Options& options, bool drained) {
  if (text(status, "phase") != "running") return false;
  const Json& workers = status["workers"];
  return std::ranges::any_of(workers, [&](const Json& worker) {
    const std::string state = text(worker, "state");
    return number(worker, "rank") == options.rank &&
           (drained ? state == "drained" : state == "running" || state == "standby");
  });
}

int change(const Options& options, OrderKind kind) {
  const Front front(options);
  const RealClock clock;
  const Nanoseconds end = clock.now() + options.seconds * kSecond;
  Json status = front.ask(kind);
  while (!is_done(status, options, kind == OrderKind::kDrain)) {
    if (clock.now() > end)
      throw Error(ErrorCode::kUnavailable, format("ordered, and not done in {} s: the deployment is {}",
                                                  options.seconds, text(status, "phase")));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    status = front.ask(OrderKind::kStatus);
  }
  return tell(options, status);
}

std::shared_ptr<Options> declare(CLI::App& app, bool rank) {
  auto options = std::make_shared<Options>();
  app.add_option("file", options->file, "the deployment file")->required();
  if (rank) app.add_option("rank", options->rank, "of the worker")->required();
  app.add_option("--host", options->host, "where the front runs, if not where the file says");
  app.add_option("--seconds", options->seconds, "to wait")->check(CLI::Range(1, 3600))->capture_default_str();
  app.add_flag("--json", options->json, "what the front tells, as it tells it");
  return options;
}

}  // namespace

Action declare_ctl_status(CLI::App& app) {
  const auto options = declare(app, false);
  return [options] { return tell(*options, Front(*options).ask(OrderKind::kStatus)); };
}

Action declare_ctl_drain(CLI::App& app) {
  const auto options = declare(app, true);
  return [options] { return change(*options, OrderKind::kDrain); };
}

Action declare_ctl_add(CLI::App& app) {
  const auto options = declare(app, true);
  return [options] { return change(*options, OrderKind::kAdd); };
}

}  // namespace tandem
