// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/control_connection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

#include "tests/base/error_of.h"

namespace tandem {
namespace {

using testing::HasSubstr;

std::pair<Descriptor, Descriptor> connected_pair() {
  std::array<int, 2> ends{};
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()), 0);
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

TEST(ControlConnection, LongAndShortMessagesComeInOrder) {
  auto [near, far] = connected_pair();
  ControlConnection from(std::move(near)), to(std::move(far));
  Request request;
  request.prompt.assign(1 << 20, 3);  // more than a socket takes at once
  from.post(Submit{request});
  for (RequestId id = 1; id <= 100; ++id) from.post(Cancel{id});
  std::vector<ControlMessage> came, none;
  while (came.size() < 101) {
    ASSERT_TRUE(from.move(none));
    ASSERT_TRUE(to.move(came));
  }
  EXPECT_FALSE(from.wants_to_write());
  EXPECT_EQ(std::get<Submit>(came[0]).request.prompt.size(), request.prompt.size());
  for (RequestId id = 1; id <= 100; ++id) EXPECT_EQ(std::get<Cancel>(came[id]).id, id);
}

TEST(ControlConnection, LastWordsAreHeardBeforeTheEnd) {
  auto [near, far] = connected_pair();
  ControlConnection to(std::move(far));
  std::vector<ControlMessage> came;
  {
    ControlConnection from(std::move(near));
    from.post(Refusal{ErrorCode::kUnavailable, "good-bye"});
    ASSERT_TRUE(from.move(came));
  }
  const Status status = to.move(came);
  ASSERT_EQ(came.size(), 1u);
  EXPECT_EQ(std::get<Refusal>(came[0]).why, "good-bye");
  EXPECT_EQ(status.error().message(), "it has closed the connection");
}

TEST(ControlConnection, BytesThatAreNoMessageEndIt) {
  auto [near, far] = connected_pair();
  const std::string text = "GET / HTTP/1.1\r\n\r\n";
  ASSERT_EQ(write(near.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  ControlConnection to(std::move(far));
  std::vector<ControlMessage> came;
  EXPECT_THAT(to.move(came).error().message(), HasSubstr("magic is"));
  EXPECT_TRUE(came.empty());
}

TEST(ControlConnection, APeerThatReadsNothingIsGivenUp) {
  auto [near, far] = connected_pair();
  ControlConnection from(std::move(near));
  Request request;
  request.prompt.assign(10 << 20, 3);
  std::vector<ControlMessage> none;
  Status status = Status::ok();
  for (int i = 0; i < 10 && status; ++i) {  // 40 MiB each
    from.post(Submit{request});
    status = from.move(none);
  }
  EXPECT_EQ(status.error().code(), ErrorCode::kOutOfResources);
}

TEST(ControlConnection, ConnectsOverTcpOrSaysWhyNot) {
  const Descriptor listener = listen_on("localhost", 11973);
  EXPECT_THAT(error_of([] { listen_on("localhost", 11973); }).message(), HasSubstr("cannot listen on localhost:11973"));
  EXPECT_THAT(error_of([] { listen_on("no such host", 1); }).message(), HasSubstr("no such host has no address"));
  std::string why;
  const Descriptor socket = begin_connect("localhost", 11973, why);
  ASSERT_TRUE(socket) << why;
  pollfd waited{socket.get(), POLLOUT, 0};
  ASSERT_EQ(poll(&waited, 1, 10'000), 1);
  EXPECT_EQ(connect_failure(socket), "");
  EXPECT_TRUE(accept_from(listener));
  EXPECT_FALSE(accept_from(listener));
  EXPECT_FALSE(begin_connect("no such host", 1, why));
  EXPECT_THAT(why, HasSubstr("no such host has no address"));
}

TEST(WakePipe, AWakeIsSeenUntilItIsTaken) {
  const WakePipe pipe;
  pollfd waited{pipe.fd(), POLLIN, 0};
  EXPECT_EQ(poll(&waited, 1, 0), 0);
  pipe.wake();
  pipe.wake();
  EXPECT_EQ(poll(&waited, 1, 0), 1);
  pipe.drain();
  EXPECT_EQ(poll(&waited, 1, 0), 0);
}

}  // namespace
}  // namespace tandem
