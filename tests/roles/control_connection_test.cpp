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
#include "trust/credentials.h"

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
  to.allow_long_messages();
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

std::shared_ptr<const Credentials> some_secret() {
  return Credentials::of_secret(parse_secret(make_secret_text(), "s"));
}

// Moves both until neither gets any further; what the first error of each was.
std::pair<std::string, std::string> let_talk(ControlConnection& a, std::vector<ControlMessage>& to_a,
                                             ControlConnection& b, std::vector<ControlMessage>& to_b) {
  std::pair<std::string, std::string> why;
  const auto move = [](ControlConnection& c, std::vector<ControlMessage>& came, std::string& reason) {
    if (!reason.empty()) return;
    if (const Status status = c.move(came); !status) reason = status.error().message();
  };
  for (int round = 0; round < 200; ++round) move(a, to_a, why.first), move(b, to_b, why.second);
  return why;
}

TEST(ControlConnection, WithinTlsMessagesWaitUntilThePeerIsKnown) {
  const auto secret = some_secret();
  auto [near, far] = connected_pair();
  ControlConnection front(std::move(near), secret->begin(TlsSide::kFront, "")),
      worker(std::move(far), secret->begin(TlsSide::kWorker, ""));
  worker.allow_long_messages();
  Request request;
  request.prompt.assign(1 << 20, 3);
  front.post(Submit{request});
  worker.post(Cancel{1});
  std::vector<ControlMessage> to_front, to_worker;
  EXPECT_EQ(let_talk(front, to_front, worker, to_worker), std::pair(std::string(), std::string()));
  ASSERT_EQ(to_worker.size(), 1u);
  EXPECT_EQ(std::get<Submit>(to_worker[0]).request.prompt, request.prompt);
  ASSERT_EQ(to_front.size(), 1u);
  EXPECT_EQ(std::get<Cancel>(to_front[0]).id, 1u);
}

TEST(ControlConnection, NothingIsSaidToAStranger) {
  const auto mine = some_secret(), other = some_secret();
  auto [near, far] = connected_pair();
  ControlConnection front(std::move(near), mine->begin(TlsSide::kFront, "")),
      worker(std::move(far), other->begin(TlsSide::kWorker, ""));
  front.post(Cancel{1});
  std::vector<ControlMessage> to_front, to_worker;
  const auto [front_why, worker_why] = let_talk(front, to_front, worker, to_worker);
  EXPECT_THAT(worker_why, HasSubstr("it has another secret: number"));
  EXPECT_THAT(front_why, HasSubstr("it has refused the TLS handshake"));
  EXPECT_TRUE(to_front.empty() && to_worker.empty());
}

TEST(ControlConnection, WhoOnlyOneSideAsksForTlsBothHearWhy) {
  const auto secret = some_secret();
  {
    auto [near, far] = connected_pair();
    ControlConnection plain(std::move(near)), asks(std::move(far), secret->begin(TlsSide::kWorker, ""));
    plain.post(Greeting{});
    std::vector<ControlMessage> to_plain, to_asking;
    EXPECT_THAT(let_talk(plain, to_plain, asks, to_asking).second, HasSubstr("it does not speak TLS"));
    ASSERT_EQ(to_plain.size(), 1u);
    EXPECT_EQ(std::get<Refusal>(to_plain[0]).code, ErrorCode::kPermissionDenied);
    EXPECT_THAT(std::get<Refusal>(to_plain[0]).why, HasSubstr("it does not speak TLS"));
    EXPECT_TRUE(to_asking.empty());
  }
  auto [near, far] = connected_pair();
  ControlConnection front(std::move(near), secret->begin(TlsSide::kFront, "")), plain(std::move(far));
  front.post(Greeting{});
  std::vector<ControlMessage> to_front, to_plain;
  const auto [front_why, plain_why] = let_talk(front, to_front, plain, to_plain);
  EXPECT_THAT(plain_why, HasSubstr("it speaks TLS, and here the deployment has no trust"));
  EXPECT_THAT(front_why, HasSubstr("it does not speak TLS"));
  EXPECT_TRUE(to_front.empty() && to_plain.empty());
}

TEST(ControlConnection, AStrangerCannotAnnounceMuch) {
  auto [near, far] = connected_pair();
  ControlConnection from(std::move(near)), to(std::move(far));
  Request request;
  request.prompt.assign(1 << 20, 3);
  from.post(Submit{request});
  std::vector<ControlMessage> none, came;
  EXPECT_THAT(let_talk(from, none, to, came).second, HasSubstr("limit is 65536"));
  EXPECT_TRUE(came.empty());
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
