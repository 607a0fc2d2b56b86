// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// TLS by certificate files, versions 1.2 and 1.3.
#pragma once

#include <memory>
#include <string>

#include "serve/http/socket.h"

namespace tandem {

class TlsContext {
 public:
  // PEM files: the certificate with its chain, and its key. Throws Error naming the file.
  static std::unique_ptr<TlsContext> load(const std::string& certificate, const std::string& key);
  virtual ~TlsContext() = default;
  // The context must outlive the socket.
  virtual std::unique_ptr<Socket> make_socket(boost::asio::ip::tcp::socket socket) = 0;
};

}  // namespace tandem
