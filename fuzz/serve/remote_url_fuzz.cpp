// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any text as a remote URL: an Error, or a host of plain characters whose own spelling reads back as the same.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "serve/remote/remote_url.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tandem;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    check_allowed_host(text);
  } catch (const Error&) {
  }
  try {
    const RemoteUrl url = parse_remote_url(text);
    TANDEM_CHECK(is_remote_url(text), "a URL with another scheme was read");
    const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.'; };
    TANDEM_CHECK(std::ranges::all_of(url.host.name, plain), "a host with other characters");
    TANDEM_CHECK(url.target.starts_with('/') && url.target.find_first_of(" \r\n#") == std::string::npos,
                 "a target that ends its line");
    const std::string host = url.host.name + ":" + std::to_string(url.host.port);
    TANDEM_CHECK(allows(host, url), "the host does not mean itself");
    const RemoteUrl again = parse_remote_url((url.tls ? "https://" : "http://") + host + url.target);
    TANDEM_CHECK(again.host == url.host && again.target == url.target, "it reads back as another");
  } catch (const Error&) {
  }
  return 0;
}
