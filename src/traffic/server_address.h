// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Where a server is: the parts of http://host:port/base.
#pragma once

#include <string>

namespace tandem {

struct ServerAddress {
  std::string host;
  int port = 80;
  std::string base;  // such as /v1, without a slash at its end
};

// Throws Error naming what is wrong.
ServerAddress parse_server_address(const std::string& url);

}  // namespace tandem
