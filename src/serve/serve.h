// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A server in front of a running engine: everything that tandem serve is, less the command line.
//
//   TandemServer server(engine, model, settings);   // listens
//   server.run_until_signal();                      // SIGTERM or SIGINT: drains; a second one leaves at once
#pragma once

#include <memory>

#include "serve/http/server.h"
#include "serve/routes.h"

namespace tandem {

class TandemServer {
 public:
  // settings as finish_settings leaves them. Engine and model must outlive the server. remote: the network that
  // pictures may come from. Throws Error.
  TandemServer(Engine& engine, const OpenModel& model, ServeSettings settings, RemoteSeams remote = RemoteSeams());
  ~TandemServer();

  std::int32_t port() const { return http_->port(); }
  const ServeSettings& settings() const { return settings_; }
  const std::string& model_name() const { return service_.scope.model_name; }
  Service& service() { return service_; }

  // From now on no new work: /ready says so, answers under way go on.
  void drain() { service_.draining = true; }
  // Waits until they have ended, at most drain_ms_max; true when all have.
  bool wait_drained();

 private:
  const ServeSettings settings_;
  Service service_;
  RequestLog log_;
  Routes routes_;
  std::unique_ptr<HttpServer> http_;
};

// Signals that end a server come to wait_for_end_signal alone. Before any thread is started.
void hold_end_signals();
// Waits for one at most so long; false when none came.
bool wait_for_end_signal(std::int64_t ms);

}  // namespace tandem
