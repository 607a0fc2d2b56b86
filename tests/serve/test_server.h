// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A whole server on a free port in front of a tiny model, as fast as it can or with steps as slow as a test wants.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "serve/serve.h"
#include "tests/serve/http_client.h"

namespace tandem {

struct TestServerConfig {
  ServeSettings settings;
  std::string layout = "1A1F";
  std::int64_t step_ms = 0;  // every step takes at least so long
  std::int64_t queue_max = 1024, sequences_max = 64;
  std::string model = "tests/goldens/llama";
  std::string script;         // every answer, whatever is asked; empty: what the model says
  std::string chat_template;  // instead of the model's own
  RemoteSeams remote;         // the network of pictures
};

class TestServer {
 public:
  TestServer() : TestServer(TestServerConfig()) {}
  explicit TestServer(TestServerConfig config);

  int port() const { return server_->port(); }
  HttpAnswer chat(Json body) const;
  HttpAnswer complete(Json body, std::string_view headers = {}) const;
  const OpenModel& model() const { return model_; }
  Engine& engine() { return *engine_; }
  TandemServer& operator*() { return *server_; }
  TandemServer* operator->() { return server_.get(); }

  // Waits until nothing runs, waits or holds KV; false when that takes longer than seconds.
  bool wait_idle(double seconds = 20);
  // Requests that the engine runs or holds.
  std::int64_t engine_requests() const;

 private:
  OpenModel model_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<TandemServer> server_;
};

// Polls until condition holds; false when it does not within seconds.
template <class Condition>
bool eventually(Condition condition, double seconds = 20) {
  for (int i = 0; i < static_cast<int>(seconds * 200); ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

}  // namespace tandem
