// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/serve.h"

#include <signal.h>

#include <chrono>
#include <ctime>
#include <filesystem>
#include <thread>

namespace tandem {

namespace {

std::string served_name(const ServeSettings& settings, const OpenModel& model) {
  if (!settings.model_name.empty()) return settings.model_name;
  const std::filesystem::path path = std::filesystem::weakly_canonical(model.checkpoint->path());
  return path.extension() == ".gguf" ? path.stem().string() : path.filename().string();
}

// Pictures come in the body.
ServeSettings with_body_limit(ServeSettings settings, const OpenModel& model) {
  std::int64_t& limit = settings.http.limits.body_bytes_max;
  if (limit == 0) limit = model.picture_tokens ? 32 << 20 : 2 << 20;
  return settings;
}

sigset_t end_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

// Whoever waits for a remote picture keeps nobody else from being served.
HttpConfig with_waiting_threads(HttpConfig http, const RemoteLimits& remote) {
  if (!remote.hosts.empty()) http.threads += remote.at_once;
  return http;
}

}  // namespace

TandemServer::TandemServer(Engine& engine, const OpenModel& model, ServeSettings settings, RemoteSeams remote)
    : settings_(with_body_limit(std::move(settings), model)),
      service_{.engine = engine,
               .model = model,
               .settings = settings_,
               .grammars = GrammarVocabulary(model.tokenizer, model.stop_ids),
               .remote = RemotePictures(settings_.limits.remote, std::move(remote)),
               .scope = {.model = model,
                         .limits = settings_.limits,
                         .grammars = service_.grammars,
                         .model_name = served_name(settings_, model),
                         .vocab = engine.model().vocab,
                         .context_tokens_max = engine.config().context_tokens_max,
                         .kv_tokens = engine.config().kv_tokens,
                         .format = find_chat_format(model.tokenizer, model.template_source, settings_.reasoning_parser,
                                                    settings_.tool_call_parser)},
               .keys = ApiKeys(settings_.api_keys),
               .salts = {},
               .metrics = {},
               .clock = {},
               .started_unix_seconds = std::time(nullptr)},
      log_(settings_.log_file, settings_.log_format, service_.metrics),
      routes_(service_, log_) {
  if (!settings_.limits.remote.hosts.empty()) service_.scope.remote = &service_.remote;
  http_ = HttpServer::start(with_waiting_threads(settings_.http, settings_.limits.remote), routes_);
}

TandemServer::~TandemServer() {
  service_.remote.stop();  // HTTP threads may wait for it
  http_->stop();
}

bool TandemServer::wait_drained() {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(settings_.drain_ms_max);
  while (service_.metrics.answers_running > 0 && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return service_.metrics.answers_running == 0;
}

void hold_end_signals() {
  const sigset_t set = end_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

bool wait_for_end_signal(std::int64_t ms) {
  const sigset_t set = end_signals();
  const timespec timeout{.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1'000'000};
  return sigtimedwait(&set, nullptr, &timeout) > 0;
}

}  // namespace tandem
