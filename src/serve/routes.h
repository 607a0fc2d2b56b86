// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The routes, in one table, and what stands before them: ids, keys, methods, draining. A route takes a whole request
// and gives a reply; whatever it throws becomes an error of OpenAI's form.
#pragma once

#include <functional>
#include <span>
#include <string_view>

#include "serve/http/message.h"
#include "serve/request_log.h"
#include "serve/service.h"

namespace tandem {

class Routes;

struct Route {
  std::string_view method, path;
  std::unique_ptr<Reply> (*answer)(Routes& routes, HttpRequest& request, const Wake& wake);
  bool open;  // to everybody, key or none
  bool work;  // refused while the server drains
  std::string_view doc;
};
std::span<const Route> route_rows();

class Routes final : public HttpHandler {
 public:
  Routes(Service& service, RequestLog& log) : service_(service), log_(log) {}

  std::unique_ptr<Reply> on_head(HttpRequest& head) override;
  std::unique_ptr<Reply> on_request(HttpRequest& request, const Wake& wake) override;
  std::unique_ptr<Reply> on_error(int status, std::string_view message) override;
  void on_connection(int change) override { service_.metrics.connections += change; }
  void on_end(const HttpRequest& request, const Reply* reply, const ExchangeEnd& end) override;

  Service& service() { return service_; }

 private:
  const Route& find(const HttpRequest& request) const;

  Service& service_;
  RequestLog& log_;
};

}  // namespace tandem
