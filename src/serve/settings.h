// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Everything about the server that can be set, and one table of it. The table makes the flags, the environment
// variables, the places in the TOML file and the page of docs, so none of them can say something else.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "serve/http/server.h"
#include "serve/remote/remote_pictures.h"
#include "text/grammar.h"

namespace tandem {

// What one request may bring. Reaching a limit is an answer, never a crash or a wait.
struct RequestLimits {
  std::int64_t json_depth_max = 24;
  std::int64_t json_keys_max = 1024;
  std::int64_t json_values_max = 300'000;
  std::int64_t messages_max = 1024;
  std::int64_t prompts_max = 32;
  std::int64_t prompt_tokens_max = 0;  // 0: the context, less one for the answer
  std::int64_t choices_max = 16;
  std::int64_t stop_max = 4;
  std::int64_t stop_bytes_max = 128;
  std::int64_t logit_bias_max = 300;
  std::int64_t top_logprobs_max = 20;
  std::int64_t salt_bytes_max = 256;
  std::int64_t tools_max = 128;
  std::int64_t tool_bytes_max = 64 << 10;
  std::int64_t pictures_max = 32;
  std::int64_t picture_bytes_max = 20 << 20;
  std::int64_t picture_pixels_max = 40'000'000;
  GrammarLimits grammar;
  RemoteLimits remote;
};

struct ServeSettings {
  HttpConfig http;
  RequestLimits limits;
  std::int64_t streams_max = 256;  // answers under way, each choice counts
  std::int64_t drain_ms_max = 30'000;
  std::string model_name;  // empty: the name of the checkpoint's folder
  std::vector<std::string> api_keys;
  std::string api_key_file;
  bool no_auth = false;
  std::string reasoning_parser = "auto";
  std::string tool_call_parser = "auto";
  std::string log_file;  // empty: standard error
  std::string log_format = "text";
};

struct SettingRow {
  using Place = std::variant<std::int64_t*, std::string*, bool*, std::vector<std::string>*>;
  std::string_view name;  // --name, TANDEM_NAME, name = … in the file
  std::string_view doc;
  Place (*place)(ServeSettings&);
  std::int64_t min = 0, max = 0;  // of numbers
  bool limit = false;             // of what clients send; the others say what the server is
  bool secret = false;            // its value is never printed
};

std::span<const SettingRow> setting_rows();
// The environment variable of a flag: "port" → "TANDEM_PORT".
std::string environment_name(std::string_view name);

// Reads the key file into api_keys and checks what belongs together: keys where others can reach the server, both files
// of TLS or none. Throws Error naming the flag.
void finish_settings(ServeSettings& settings);

}  // namespace tandem
