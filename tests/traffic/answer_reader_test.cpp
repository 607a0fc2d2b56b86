// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "traffic/answer_reader.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/format.h"

namespace tandem {
namespace {

using Events = std::vector<std::string>;

// What piece by piece comes to.
Events events_of(std::string_view text, std::size_t piece) {
  AnswerReader reader;
  Events events;
  while (!text.empty()) {
    reader.feed(text.substr(0, piece));
    text.remove_prefix(std::min(piece, text.size()));
    for (std::string& event : reader.take_events()) events.push_back(std::move(event));
  }
  reader.end();
  return events;
}

constexpr std::string_view kStream = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";

TEST(AnswerReader, events_in_any_pieces_and_frames) {
  const std::string lines =
      ": hello\r\nevent: x\r\ndata: {\"a\":1}\r\n\r\ndata:two\ndata: lines\n\n\n\ndata: [DONE]\n\n";
  const auto chunk = [&](std::size_t from, std::size_t size, const char* extension) {
    const std::string part = lines.substr(from, size);
    return format("{:x}{}\r\n{}\r\n", part.size(), extension, part);
  };
  const std::string chunked = std::string(kStream) + "Transfer-Encoding: chunked\r\n\r\n" + chunk(0, 5, "") +
                              chunk(5, 42, ";x=y") + chunk(47, 1000, "") + "0\r\nTrailer: x\r\n\r\n";
  const std::string to_end = std::string(kStream) + "\r\n" + lines;
  for (const std::string& text : {chunked, to_end, "HTTP/1.1 100 Continue\r\n\r\n" + to_end})
    for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, text.size()})
      EXPECT_EQ(events_of(text, piece), (Events{"{\"a\":1}", "two\nlines", "[DONE]"})) << piece;
}

TEST(AnswerReader, a_body_that_is_no_stream) {
  AnswerReader reader;
  reader.feed("HTTP/1.1 429 Too Many Requests\r\nContent-Length: 5\r\n\r\nhel");
  EXPECT_EQ(reader.status(), 429);
  EXPECT_FALSE(reader.whole());
  reader.feed("lo and more");
  EXPECT_TRUE(reader.whole());
  EXPECT_EQ(reader.body(), "hello");
}

TEST(AnswerReader, what_is_no_answer) {
  const std::string endless(AnswerReader::kHeadBytesMax + 1, 'a');
  for (const std::string& text :
       {std::string("hello there\r\n"), std::string("HTTP/2.0 200 OK\r\n"), std::string("HTTP/1.1 abc\r\n"),
        std::string("HTTP/1.1 200 OK\r\nno colon\r\n"), std::string("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n"),
        std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n"), "HTTP/1.1 200 OK\r\nA: " + endless, endless,
        std::string(kStream) + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        std::string(kStream) + "Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
        std::string(kStream) + "\r\ndata: " + std::string(AnswerReader::kEventBytesMax + 1, 'a')}) {
    AnswerReader reader;
    EXPECT_THROW(reader.feed(text), Error) << text.substr(0, 100);
  }
  AnswerReader cut;
  cut.feed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel");
  EXPECT_THROW(cut.end(), Error);
}

}  // namespace
}  // namespace tandem
