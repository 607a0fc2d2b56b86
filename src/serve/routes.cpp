// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/routes.h"

#include <algorithm>
#include <new>

#include "base/format.h"
#include "serve/completion.h"
#include "serve/openai/tokens.h"

namespace tandem {

namespace {

using Answer = std::unique_ptr<Reply>;

Answer reply_with(const OrderedJson& body) {
  return std::make_unique<WholeReply>(HttpHead{}, json_text(body) + "\n");
}

Answer health(Routes&, HttpRequest&, const Wake&) {
  return reply_with({{"status", "ok"}});
}

Answer ready(Routes& routes, HttpRequest&, const Wake&) {
  if (routes.service().draining) throw ApiError(503, "the server is stopping");
  return reply_with({{"status", "ready"}});
}

Answer metrics(Routes& routes, HttpRequest&, const Wake&) {
  Service& service = routes.service();
  return std::make_unique<WholeReply>(HttpHead{.content_type = "text/plain; version=0.0.4; charset=utf-8"},
                                      service.metrics.page(service.engine));
}

OrderedJson model_json(const Service& service) {
  return {{"id", service.scope.model_name},
          {"object", "model"},
          {"created", service.started_unix_seconds},
          {"owned_by", "tandem"},
          {"max_model_len", service.scope.context_tokens_max}};
}

Answer models(Routes& routes, HttpRequest&, const Wake&) {
  return reply_with({{"object", "list"}, {"data", OrderedJson::array({model_json(routes.service())})}});
}

// The name stands behind /v1/models/ and may itself have slashes.
Answer model(Routes& routes, HttpRequest& request, const Wake&) {
  const RequestScope& scope = routes.service().scope;
  if (std::string_view(request.path).substr(std::string_view("/v1/models/").size()) != scope.model_name)
    throw ApiError(404, format("this server has no such model; it serves {}", scope.model_name), "model",
                   "model_not_found");
  return reply_with(model_json(routes.service()));
}

template <Endpoint endpoint>
Answer complete(Routes& routes, HttpRequest& request, const Wake& wake) {
  Service& service = routes.service();
  CompletionRequest read = read_completion_request(request.body, endpoint, service.scope);
  request.body = {};  // an answer may take minutes
  return std::make_unique<CompletionReply>(service, std::move(read), request, wake);
}

Answer tokenize(Routes& routes, HttpRequest& request, const Wake&) {
  return reply_with(answer_tokenize(request.body, routes.service().scope));
}

Answer detokenize(Routes& routes, HttpRequest& request, const Wake&) {
  return reply_with(answer_detokenize(request.body, routes.service().scope));
}

constexpr Route kRoutes[] = {
    {"POST", "/v1/chat/completions", complete<Endpoint::kChat>, false, true, "an answer to a conversation"},
    {"POST", "/v1/completions", complete<Endpoint::kCompletions>, false, true, "what goes on after a text"},
    {"GET", "/v1/models", models, false, false, "the model that is served"},
    {"GET", "/v1/models/*", model, false, false, "the same by its name"},
    {"POST", "/tokenize", tokenize, false, true, "text (prompt) or a conversation (messages) to token ids"},
    {"POST", "/detokenize", detokenize, false, true, "token ids (tokens) to text"},
    {"GET", "/health", health, true, false, "200 while the process lives"},
    {"GET", "/ready", ready, false, false, "200 while new requests are taken, 503 from SIGTERM on"},
    {"GET", "/metrics", metrics, false, false, "counters for Prometheus"},
};

bool matches(const Route& route, std::string_view path) {
  if (!route.path.ends_with('*')) return path == route.path;
  const std::string_view stem = route.path.substr(0, route.path.size() - 1);
  return path.starts_with(stem) && path.size() > stem.size();
}

// Runs action; whatever it throws becomes a reply.
template <class Action>
Answer guarded(Action action) {
  try {
    return action();
  } catch (const Error& error) {
    return error_reply(api_error(error));
  } catch (const std::bad_alloc&) {
    return error_reply({503, "the server is out of memory; try again"});
  } catch (const std::exception&) {
    return error_reply({500, "internal error"});
  }
}

}  // namespace

std::span<const Route> route_rows() {
  return kRoutes;
}

const Route& Routes::find(const HttpRequest& request) const {
  const Route* other = nullptr;
  for (const Route& route : kRoutes) {
    if (!matches(route, request.path)) continue;
    if (route.method == request.method) return route;
    other = &route;
  }
  if (other) throw ApiError(405, format("this route takes {} only", other->method), {}, "method_not_allowed");
  throw ApiError(404, "there is no such route", {}, "unknown_route");
}

Answer Routes::on_head(HttpRequest& head) {
  head.id = random_hex(12);
  return guarded([&]() -> Answer {
    const bool guards = !service_.keys.none() && head.path != "/health";
    if (guards) {  // before anything that would tell which routes there are
      const auto key = service_.keys.find(head.header("authorization"));
      if (!key) throw ApiError(401, "no valid API key: send it as Authorization: Bearer KEY", {}, "invalid_api_key");
      head.client = *key;
    }
    const Route& route = find(head);
    if (route.work && service_.draining) throw ApiError(503, "the server is stopping");
    return nullptr;
  });
}

Answer Routes::on_request(HttpRequest& request, const Wake& wake) {
  return guarded([&] { return find(request).answer(*this, request, wake); });
}

Answer Routes::on_error(int status, std::string_view message) {
  return error_reply({status, std::string(message)});
}

void Routes::on_end(const HttpRequest& request, const Reply* reply, const ExchangeEnd& end) {
  Metrics& metrics = service_.metrics;
  if (end.status != 0) metrics.count_response(end.status);
  if (!end.whole) ++metrics.clients_gone;
  OrderedJson line{{"id", request.id},         {"client", request.client},
                   {"method", request.method}, {"path", request.path.substr(0, 128)},
                   {"status", end.status},     {"whole", end.whole},
                   {"bytes", end.bytes},       {"seconds", end.seconds}};
  if (reply) reply->describe(line);
  log_.write(line);
}

}  // namespace tandem
