// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/http/request_reader.h"

#include <gmock/gmock.h>

namespace tandem {
namespace {

using State = RequestReader::State;

// Feeds text in pieces of so many bytes; what is left over stays for the next call as a connection would do it.
void feed(RequestReader& reader, std::string_view text, std::size_t piece) {
  std::string pending;
  while (!text.empty() && reader.state() != State::kWhole) {
    pending += text.substr(0, piece);
    text.remove_prefix(std::min(piece, text.size()));
    for (std::size_t used = 1; used > 0 && !pending.empty() && reader.state() != State::kWhole;) {
      used = reader.feed(pending);
      pending.erase(0, used);
    }
  }
}

int status_of(std::string_view text, const RequestReader::Limits& limits = {}) {
  for (const std::size_t piece : {text.size(), std::size_t{1}, std::size_t{7}}) {
    RequestReader reader(limits);
    try {
      feed(reader, text, piece);
    } catch (const HttpError& error) {
      if (piece == 7) return error.status();
      continue;
    }
    return reader.state() == State::kWhole ? 200 : 0;
  }
  return 0;
}

TEST(RequestReader, reads_a_request_in_any_pieces) {
  const std::string plain =
      "POST /v1/x?y=1 HTTP/1.1\r\nHost: a\r\nAUTHORIZATION: Bearer k\r\nContent-Length: 5\r\n\r\nhello";
  const std::string chunked =
      "POST /v1/x?y=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer k\r\nTransfer-Encoding: "
      "chunked\r\n\r\n2\r\nhe\r\n3;e=1\r\nllo\r\n0\r\n\r\n";
  for (const std::string& text : {plain, chunked})
    for (const std::size_t piece : {std::size_t{1}, std::size_t{3}, std::size_t{16}, text.size()}) {
      RequestReader reader({});
      feed(reader, text, piece);
      ASSERT_EQ(reader.state(), State::kWhole) << piece;
      EXPECT_EQ(reader.request().method, "POST");
      EXPECT_EQ(reader.request().path, "/v1/x");
      EXPECT_EQ(reader.request().body, "hello");
      EXPECT_EQ(reader.request().header("authorization"), "Bearer k");
      EXPECT_EQ(reader.request().header("none"), "");
      EXPECT_TRUE(reader.request().keep_alive);
    }
}

// The end of a body in chunks may have fields of its own and come in pieces of any size, whole or broken.
TEST(RequestReader, reads_what_follows_the_last_chunk_in_any_pieces) {
  const std::string head = "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (std::size_t piece = 1; piece <= 12; ++piece) {
    RequestReader whole({});
    feed(whole, head + "0\r\nX-Sum: 6\r\n\r\n", piece);
    EXPECT_EQ(whole.state(), State::kWhole) << piece;
    EXPECT_EQ(whole.request().body, "");

    RequestReader broken({});
    EXPECT_THROW(feed(broken, head + "0\r\nhK 6\r\n\r\nabcd", piece), HttpError) << piece;
  }
}

TEST(RequestReader, leaves_the_next_request_alone) {
  RequestReader reader({});
  const std::string text = "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\n";
  EXPECT_EQ(reader.feed(text), text.find("GET /b"));
  EXPECT_EQ(reader.state(), State::kWhole);
}

TEST(RequestReader, stops_after_the_head) {
  RequestReader reader({});
  const std::string text = "POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab";
  EXPECT_EQ(reader.feed(text), text.size() - 2);
  EXPECT_EQ(reader.state(), State::kBody);
  EXPECT_TRUE(reader.expects_continue());
  EXPECT_EQ(reader.feed("ab"), 2U);
  EXPECT_EQ(reader.state(), State::kWhole);
}

TEST(RequestReader, knows_old_clients) {
  RequestReader reader({});
  reader.feed("GET /a HTTP/1.0\r\n\r\n");
  EXPECT_FALSE(reader.request().keep_alive);
  EXPECT_FALSE(reader.request().chunks);
}

TEST(RequestReader, refuses_what_is_no_request) {
  for (const char* text :
       {"hello\r\n\r\n", "GET /a\r\n\r\n", "GET /a HTTP/9.9\r\n\r\n", "GET /a HTTP/1.1\r\nNo colon\r\n\r\n",
        "GET /a HTTP/1.1\r\n: empty\r\n\r\n", "GET /a HTTP/1.1\r\nA b: c\r\n\r\n", "\x16\x03\x01\x02\x01\r\n\r\n",
        "POST /a HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "POST /a HTTP/1.1\r\nContent-Length: 1x\r\n\r\n",
        "POST /a HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST /a HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST /a HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc\r\n0\r\n\r\n"})
    EXPECT_EQ(status_of(text), 400) << text;
}

TEST(RequestReader, bounds_headers_and_body) {
  const RequestReader::Limits limits{.header_bytes_max = 200, .headers_max = 4, .body_bytes_max = 10};
  EXPECT_EQ(status_of("GET /" + std::string(300, 'a') + " HTTP/1.1\r\n\r\n", limits), 431);
  EXPECT_EQ(status_of("GET /a HTTP/1.1\r\nA: " + std::string(300, 'a'), limits), 431) << "without waiting for its end";
  EXPECT_EQ(status_of("GET /a HTTP/1.1\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n\r\n", limits), 200);
  EXPECT_EQ(status_of("GET /a HTTP/1.1\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\nE: 1\r\n\r\n", limits), 431);
  EXPECT_EQ(status_of("POST /a HTTP/1.1\r\nContent-Length: 10\r\n\r\n0123456789", limits), 200);
  EXPECT_EQ(status_of("POST /a HTTP/1.1\r\nContent-Length: 11\r\n\r\n", limits), 413) << "without waiting for it";
  EXPECT_EQ(
      status_of("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n5\r\nabcde\r\n0\r\n\r\n", limits),
      413);
}

}  // namespace
}  // namespace tandem
