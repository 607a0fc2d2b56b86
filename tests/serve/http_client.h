// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A client on a plain socket, so that a test can say exactly which bytes go when, and leave when it wants.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace tandem {

struct HttpAnswer {
  int status = 0;                              // 0: the server closed without one
  std::map<std::string, std::string> headers;  // names in small letters
  std::string body;                            // without the frame of chunks
  bool whole = false;                          // as long as it said it would be
  Json json() const { return Json::parse(body, nullptr, false); }
  // The "error" of an OpenAI error; null when the body is none.
  Json error() const;
};

class HttpClient {
 public:
  explicit HttpClient(int port, const std::string& host = "127.0.0.1");
  ~HttpClient();
  HttpClient(HttpClient&& other) noexcept;
  HttpClient(const HttpClient&) = delete;

  // False when the server has closed.
  bool send(std::string_view bytes);
  void post(std::string_view path, std::string_view body, std::string_view headers = {});
  // Waits for a whole answer, or what there is when the server closes or seconds have passed.
  HttpAnswer answer(double seconds = 20);
  // Waits until the bytes received so far contain text; false when the server closes or the time is over.
  bool wait_for(std::string_view text, double seconds = 20);
  bool wait_closed(double seconds = 20);
  void half_close();  // no more from here, still listening
  void close();
  void reset();  // closes so that the other side sees an error
  // Makes the system hold few bytes for this client.
  void shrink_receive_buffer();

 private:
  bool receive(double seconds);  // some more bytes; false at the end
  int fd_;
  std::string received_;
};

HttpAnswer get(int port, std::string_view path, std::string_view headers = {});
HttpAnswer post(int port, std::string_view path, const Json& body, std::string_view headers = {});
HttpAnswer post_text(int port, std::string_view path, std::string_view body, std::string_view headers = {});

// The data of server-sent events, in order; "[DONE]" as text.
std::vector<Json> events_of(std::string_view body);

}  // namespace tandem
