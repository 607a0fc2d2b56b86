// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/serve/test_server.h"

#include <gtest/gtest.h>

#include "ops/forwarding.h"

namespace tandem {

namespace {

// The choice of tokens is once in a step and micro-batch: there it sleeps.
class SlowBackend final : public ForwardingBackend {
 public:
  SlowBackend(std::unique_ptr<Backend> inner, std::int64_t step_ms)
      : ForwardingBackend(std::move(inner)), pause_(step_ms) {}
  void run(const Operator& op) override {
    if (std::holds_alternative<Sample>(op)) std::this_thread::sleep_for(pause_);
    ForwardingBackend::run(op);
  }

 private:
  const std::chrono::milliseconds pause_;
};

// Says a script: the n-th token of every answer is its n-th, and the one after its last ends the answer.
class ScriptedBackend final : public ForwardingBackend {
 public:
  ScriptedBackend(std::unique_ptr<Backend> inner, std::vector<std::int32_t> script, std::int32_t end)
      : ForwardingBackend(std::move(inner)), script_(std::move(script)), end_(end) {}
  void run(const Operator& op) override {
    ForwardingBackend::run(op);
    const auto* sample = std::get_if<Sample>(&op);
    if (!sample) return;
    synchronise();
    for (std::size_t i = 0; i < sample->rows.size(); ++i) {
      const std::size_t at = sample->rows[i].answer.size();
      sample->out[i] = {.id = at < script_.size() ? script_[at] : end_};
    }
  }

 private:
  const std::vector<std::int32_t> script_;
  const std::int32_t end_;
};

EngineConfig engine_config(const TestServerConfig& config, const OpenModel& model) {
  EngineConfig engine;
  engine.layout = parse_layout(config.layout);
  engine.threads = 1;
  engine.queue_max = config.queue_max;
  engine.sequences_max = config.sequences_max;
  if (config.step_ms > 0)
    engine.wrap_backend = [ms = config.step_ms](std::unique_ptr<Backend> inner) -> std::unique_ptr<Backend> {
      return std::make_unique<SlowBackend>(std::move(inner), ms);
    };
  if (!config.script.empty())
    engine.wrap_backend = [script = model.tokenizer.encode(config.script, {.parse_special = true}),
                           end = model.stop_ids.front()](std::unique_ptr<Backend> inner) -> std::unique_ptr<Backend> {
      return std::make_unique<ScriptedBackend>(std::move(inner), script, end);
    };
  return engine;
}

}  // namespace

TestServer::TestServer(TestServerConfig config)
    : model_(open_model(config.model)), engine_(Engine::start(*model_.checkpoint, engine_config(config, model_))) {
  config.settings.http.port = 0;
  if (!config.chat_template.empty()) model_.chat_template.emplace(config.chat_template);
  if (config.settings.log_file.empty()) config.settings.log_format = "off";
  finish_settings(config.settings);
  server_ = std::make_unique<TandemServer>(*engine_, model_, config.settings, config.remote);
}

HttpAnswer TestServer::chat(Json body) const {
  if (!body.contains("messages")) body["messages"] = {{{"role", "user"}, {"content", "Hello"}}};
  return post(port(), "/v1/chat/completions", body);
}

HttpAnswer TestServer::complete(Json body, std::string_view headers) const {
  if (!body.contains("prompt")) body["prompt"] = "Hello";
  return post(port(), "/v1/completions", body, headers);
}

std::int64_t TestServer::engine_requests() const {
  std::int64_t count = 0;
  for (const AttentionWorker* worker : engine_->attention_workers()) count += worker->outstanding();
  return count;
}

bool TestServer::wait_idle(double seconds) {
  return eventually(
      [&] {
        if (server_->service().metrics.answers_running != 0 || engine_requests() != 0) return false;
        for (const AttentionWorker* worker : engine_->attention_workers())
          if (worker->load().kv.held != 0) return false;
        return true;
      },
      seconds);
}

}  // namespace tandem
