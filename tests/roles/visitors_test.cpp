// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/visitors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/roles/free_port.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr Nanoseconds kPatience = kSecond;

class VisitorsTest : public testing::Test {
 protected:
  VisitorsTest() {
    port_ = free_port();
    listener_ = listen_on("127.0.0.1", port_);
  }

  Descriptor connect() {
    std::string why;
    Descriptor socket = begin_connect("127.0.0.1", port_, why);
    pollfd writable{socket.get(), POLLOUT, 0};
    EXPECT_EQ(poll(&writable, 1, 10'000), 1) << why;
    visitors_->accept(listener_, now_);
    return socket;
  }
  static void say(const Descriptor& socket, std::string_view text) {
    EXPECT_EQ(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  // Until somebody has spoken or there are fewer of them; what travels on loopback takes its time.
  std::vector<Visitors::Guest> move(std::size_t expected_count) {
    std::vector<Visitors::Guest> guests = visitors_->move(now_);
    for (int i = 0; i < 1000 && guests.empty() && visitors_->count() > expected_count; ++i) {
      usleep(1000);
      guests = visitors_->move(now_);
    }
    return guests;
  }

  void expect_a_front_is_heard() {
    ControlConnection front(connect(), secret_->begin(TlsSide::kFront, ""));
    front.post(Cancel{7});
    std::vector<ControlMessage> none;
    std::vector<Visitors::Guest> guests;
    for (int i = 0; i < 1000 && guests.empty(); ++i) {
      ASSERT_TRUE(front.move(none));
      guests = visitors_->move(now_);
      usleep(1000);
    }
    ASSERT_EQ(guests.size(), 1u);
    ASSERT_EQ(guests[0].said.size(), 1u);
    EXPECT_EQ(std::get<Cancel>(guests[0].said[0]).id, 7u);
  }

  std::int32_t port_ = 0;
  Descriptor listener_;
  std::vector<std::string> refused_;
  std::shared_ptr<const Credentials> secret_ = Credentials::of_secret(parse_secret(make_secret_text(), "s"));
  std::optional<Visitors> visitors_{std::in_place, secret_.get(), kPatience,
                                    [this](const std::string& why) { refused_.push_back(why); }};
  Nanoseconds now_ = 1;
};

TEST_F(VisitorsTest, OneWhoIsKnownAndSpeaksIsHandedOver) {
  expect_a_front_is_heard();
  EXPECT_EQ(visitors_->count(), 0u);
  EXPECT_THAT(refused_, IsEmpty());
}

TEST_F(VisitorsTest, GarbageIsCutOffAtOnce) {
  const Descriptor socket = connect();
  say(socket, "GET / HTTP/1.1\r\n\r\n");
  EXPECT_THAT(move(0), IsEmpty());
  EXPECT_EQ(visitors_->count(), 0u);
  EXPECT_THAT(refused_, ElementsAre(HasSubstr("it does not speak TLS")));
}

TEST_F(VisitorsTest, HalfAHandshakeEndsWithItsTime) {
  const Descriptor silent = connect(), slow = connect();
  std::vector<std::byte> hello;
  secret_->begin(TlsSide::kFront, "")->take_out(hello);
  for (std::size_t i = 0; i < 100; ++i) {  // a byte now and then buys no time
    now_ += kPatience / 100;
    say(slow, {reinterpret_cast<const char*>(&hello[i]), 1});
    EXPECT_THAT(visitors_->move(now_), IsEmpty());
  }
  EXPECT_EQ(visitors_->count(), 2u);
  now_ += 2;
  EXPECT_THAT(visitors_->move(now_), IsEmpty());
  EXPECT_EQ(visitors_->count(), 0u);
  EXPECT_THAT(refused_, ElementsAre(HasSubstr("nothing that counts for 1000 ms"), HasSubstr("link.lost_after_ms")));
}

TEST_F(VisitorsTest, WhoComesNewDoesNotWaitForThoseBefore) {
  std::vector<Descriptor> silent;
  silent.reserve(Visitors::kVisitorsMax + 5);
  for (std::size_t i = 0; i < Visitors::kVisitorsMax + 5; ++i) silent.push_back(connect());
  EXPECT_EQ(visitors_->count(), Visitors::kVisitorsMax);
  EXPECT_EQ(refused_.size(), 5u);
  EXPECT_THAT(refused_.front(), HasSubstr("64 others came after it"));
  expect_a_front_is_heard();
}

TEST_F(VisitorsTest, ManyRefusalsAreToldInFewLines) {
  for (int i = 0; i < 1000; ++i) visitors_->tell_refused("no", now_);
  EXPECT_EQ(refused_.size(), 20u);
  now_ += 2'000'000'000;
  visitors_->tell_refused("no", now_);
  EXPECT_EQ(refused_.back(), "no; 980 more before");
}

}  // namespace
}  // namespace tandem
