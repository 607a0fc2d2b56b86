// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/settings.h"

#include <fstream>

#include "base/error.h"
#include "base/format.h"
#include "serve/remote/remote_url.h"

namespace tandem {

namespace {

using Place = SettingRow::Place;

constexpr std::int64_t kMsMax = 24 * 3600 * 1000;
constexpr std::int64_t kCountMax = 1'000'000;
constexpr std::size_t kKeyBytesMin = 8, kKeyBytesMax = 512, kKeysMax = 1024;

// clang-format off
constexpr SettingRow kRows[] = {
    {"host", "address to listen on; one that others can reach needs an API key", [](ServeSettings& s) -> Place { return &s.http.host; }},
    {"port", "port to listen on; 0 takes a free one and says which", [](ServeSettings& s) -> Place { return &s.http.port; }, 0, 65535},
    {"http-threads", "threads that read requests, apply templates and tokenise", [](ServeSettings& s) -> Place { return &s.http.threads; }, 1, 64},
    {"model-name", "what clients call the model; the checkpoint's folder name unless said", [](ServeSettings& s) -> Place { return &s.model_name; }},
    {"reasoning-parser", "how answers mark reasoning: auto, none, step3, qwen3 or deepseek_r1; auto asks the model's template and tokens", [](ServeSettings& s) -> Place { return &s.reasoning_parser; }},
    {"tool-call-parser", "how answers call tools: auto, none, step3, hermes, qwen3, deepseek_v3 or deepseek_v31", [](ServeSettings& s) -> Place { return &s.tool_call_parser; }},
    {"api-key", "a key that clients must show; may be repeated, in the environment separated by commas", [](ServeSettings& s) -> Place { return &s.api_keys; }, 0, 0, false, true},
    {"api-key-file", "a file with one key a line; empty lines and those with # in front are passed over", [](ServeSettings& s) -> Place { return &s.api_key_file; }},
    {"no-auth", "let anybody in who can reach an address that is not loopback", [](ServeSettings& s) -> Place { return &s.no_auth; }},
    {"tls-certificate", "PEM file with the certificate and its chain; with --tls-key the server speaks HTTPS", [](ServeSettings& s) -> Place { return &s.http.tls_certificate; }},
    {"tls-key", "PEM file with the key of the certificate", [](ServeSettings& s) -> Place { return &s.http.tls_key; }},
    {"allow-remote-images", "hosts, as HOST or HOST:PORT, from which pictures are fetched that image_url names by http or https; may be repeated or separated by commas; none unless said", [](ServeSettings& s) -> Place { return &s.limits.remote.hosts; }},
    {"log-file", "where the request log goes; standard error unless said", [](ServeSettings& s) -> Place { return &s.log_file; }},
    {"log-format", "request log as text, json or off; prompts and answers are never in it", [](ServeSettings& s) -> Place { return &s.log_format; }},
    {"drain-ms-max", "after SIGTERM, how long answers under way may take to end", [](ServeSettings& s) -> Place { return &s.drain_ms_max; }, 0, kMsMax},

    {"connections-max", "open connections; 503 beyond", [](ServeSettings& s) -> Place { return &s.http.limits.connections_max; }, 1, kCountMax, true},
    {"header-bytes-max", "request line and headers; 431 beyond", [](ServeSettings& s) -> Place { return &s.http.limits.header_bytes_max; }, 1024, 1 << 20, true},
    {"headers-max", "number of headers; 431 beyond", [](ServeSettings& s) -> Place { return &s.http.limits.headers_max; }, 8, 10'000, true},
    {"body-bytes-max", "request body; 413 beyond; 0: 2 MiB, or 32 MiB where the model sees pictures", [](ServeSettings& s) -> Place { return &s.http.limits.body_bytes_max; }, 0, 1 << 30, true},
    {"idle-ms-max", "how long a connection may stay open between requests; closed beyond", [](ServeSettings& s) -> Place { return &s.http.limits.idle_ms_max; }, 10, kMsMax, true},
    {"head-ms-max", "time to send the headers; 408 beyond", [](ServeSettings& s) -> Place { return &s.http.limits.head_ms_max; }, 10, kMsMax, true},
    {"body-ms-max", "time to send the body; 408 beyond", [](ServeSettings& s) -> Place { return &s.http.limits.body_ms_max; }, 10, kMsMax, true},
    {"write-ms-max", "time to read each part of an answer; closed beyond", [](ServeSettings& s) -> Place { return &s.http.limits.write_ms_max; }, 10, kMsMax, true},
    {"json-depth-max", "nesting of the request's JSON; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.json_depth_max; }, 4, 512, true},
    {"json-keys-max", "keys of one JSON object; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.json_keys_max; }, 64, kCountMax, true},
    {"json-values-max", "values in the request's JSON; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.json_values_max; }, 256, 100'000'000, true},
    {"messages-max", "messages of one conversation; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.messages_max; }, 1, 4096, true},
    {"prompts-max", "prompts of one completions request; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.prompts_max; }, 1, 4096, true},
    {"prompt-tokens-max", "tokens of one prompt; 400 beyond; 0: what the context has room for", [](ServeSettings& s) -> Place { return &s.limits.prompt_tokens_max; }, 0, 1 << 30, true},
    {"choices-max", "answers of one request, n times its prompts; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.choices_max; }, 1, 4096, true},
    {"stop-max", "stop strings; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.stop_max; }, 1, 16, true},
    {"stop-bytes-max", "length of a stop string; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.stop_bytes_max; }, 1, 256, true},
    {"logit-bias-max", "entries of logit_bias; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.logit_bias_max; }, 1, 1024, true},
    {"top-logprobs-max", "alternatives to each token; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.top_logprobs_max; }, 0, 32, true},
    {"salt-bytes-max", "length of cache_salt; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.salt_bytes_max; }, 16, 4096, true},
    {"tools-max", "tools of one request, and calls in one message; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.tools_max; }, 1, 4096, true},
    {"tool-bytes-max", "length of one tool's JSON, and of the arguments of one call; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.tool_bytes_max; }, 256, 16 << 20, true},
    {"grammar-bytes-max", "length of a schema, an expression or a grammar for answers, and of the one made of all tools that may be called; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.grammar.bytes_max; }, 1024, 256 << 10, true},
    {"grammar-depth-max", "brackets within brackets in such a source; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.grammar.depth_max; }, 4, 128, true},
    {"grammar-ms-max", "time to compile it; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.grammar.ms_max; }, 1, 60'000, true},
    {"pictures-max", "pictures of one conversation; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.pictures_max; }, 0, 1024, true},
    {"picture-bytes-max", "length of one picture's file; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.picture_bytes_max; }, 1024, 256 << 20, true},
    {"picture-pixels-max", "width times height of one picture, and a third of those of all in one conversation; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.picture_pixels_max; }, 1024, 1 << 30, true},
    {"remote-images-at-once", "pictures that are being fetched for all clients together, each by an HTTP thread of its own; 429 beyond", [](ServeSettings& s) -> Place { return &s.limits.remote.at_once; }, 1, 64, true},
    {"remote-images-ms-max", "time to fetch the remote pictures of one conversation; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.remote.ms_max; }, 10, kMsMax, true},
    {"remote-image-connect-ms-max", "time to look up and reach the host of one of them; 400 beyond", [](ServeSettings& s) -> Place { return &s.limits.remote.connect_ms_max; }, 10, kMsMax, true},
    {"streams-max", "answers under way for all clients together; 429 beyond", [](ServeSettings& s) -> Place { return &s.streams_max; }, 1, kCountMax, true},
};
// clang-format on

void read_key_file(ServeSettings& settings) {
  if (settings.api_key_file.empty()) return;
  std::ifstream file(settings.api_key_file);
  if (!file) throw Error(ErrorCode::kNotFound, format("--api-key-file {} cannot be read", settings.api_key_file));
  for (std::string line; std::getline(file, line) && settings.api_keys.size() <= kKeysMax;) {
    line.erase(line.find_last_not_of(" \t\r") + 1);
    if (!line.empty() && line.front() != '#') settings.api_keys.push_back(line);
  }
  if (settings.api_keys.empty())
    throw Error(ErrorCode::kInvalidData, format("--api-key-file {} has no key", settings.api_key_file));
}

void check_keys(const ServeSettings& settings) {
  if (settings.api_keys.size() > kKeysMax)
    throw Error(ErrorCode::kInvalidArgument, format("more than {} API keys", kKeysMax));
  for (const std::string& key : settings.api_keys)
    if (key.size() < kKeyBytesMin || key.size() > kKeyBytesMax)
      throw Error(ErrorCode::kInvalidArgument,
                  format("an API key has {} bytes, allowed are {} to {}", key.size(), kKeyBytesMin, kKeyBytesMax));
}

}  // namespace

std::span<const SettingRow> setting_rows() {
  return kRows;
}

std::string environment_name(std::string_view name) {
  std::string out = "TANDEM_";
  for (const char c : name) out += c == '-' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  return out;
}

void finish_settings(ServeSettings& settings) {
  for (const SettingRow& row : setting_rows()) {
    const Place place = row.place(settings);
    if (const auto* number = std::get_if<std::int64_t*>(&place); number && (**number < row.min || **number > row.max))
      throw Error(ErrorCode::kInvalidArgument,
                  format("--{} is {}, allowed are {} to {}", row.name, **number, row.min, row.max));
  }
  for (const std::string& host : settings.limits.remote.hosts) check_allowed_host(host);
  read_key_file(settings);
  check_keys(settings);
  if (settings.log_format != "text" && settings.log_format != "json" && settings.log_format != "off")
    throw Error(ErrorCode::kInvalidArgument,
                format("--log-format is {}, must be text, json or off", settings.log_format));
  if (settings.http.tls_certificate.empty() != settings.http.tls_key.empty())
    throw Error(ErrorCode::kInvalidArgument, "--tls-certificate and --tls-key go together");
  if (!is_loopback(settings.http.host) && settings.api_keys.empty() && !settings.no_auth)
    throw Error(ErrorCode::kInvalidArgument,
                format("--host {} can be reached by others: give an --api-key, or say --no-auth", settings.http.host));
}

}  // namespace tandem
