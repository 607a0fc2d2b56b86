// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/constraint_thread.h"

#include <gtest/gtest.h>

#include <semaphore>

namespace tandem {
namespace {

// Takes tokens up to the length of its source.
class Counted final : public TokenConstraint {
 public:
  explicit Counted(std::size_t room) : room_(room) {}
  Status allowed(std::span<const std::int32_t>, std::span<std::uint32_t>) override { return Status::ok(); }
  Status commit(std::int32_t token) override {
    if (token < 0) return {ErrorCode::kInvalidData, "no such token"};
    taken.push_back(token);
    return Status::ok();
  }
  bool complete() const override { return taken.size() >= room_; }
  std::vector<std::int32_t> taken;

 private:
  const std::size_t room_;
};

class ConstraintThreadTest : public testing::Test {
 protected:
  static Request request(RequestId id, std::vector<std::int32_t> answer = {}) {
    Request request;
    request.id = id;
    request.answer = std::move(answer);
    return request;
  }
  // The next ones that are made.
  std::vector<ConstraintThread::Made> wait() {
    made_.acquire();
    return thread_.take_made();
  }
  // Made once; a source of "wait" waits to be let on, one of "fail" fails.
  std::shared_ptr<TokenConstraint> make(const ConstraintRecipe& recipe) {
    if (recipe.source == "wait") {
      begun_.release();
      let_on_.acquire();
    }
    if (recipe.source == "fail") throw Error(ErrorCode::kUnavailable, "grammar: no");
    return std::make_shared<Counted>(recipe.source.size());
  }

  std::counting_semaphore<> made_{0}, begun_{0}, let_on_{0};
  ConstraintThread thread_{[this](const ConstraintRecipe& recipe) { return make(recipe); },
                           [this] { made_.release(); }};
};

TEST_F(ConstraintThreadTest, AnAnswerThatWasToldIsTaken) {
  thread_.make(request(1, {5, 6}), {.source = "three"});
  const auto made = wait();
  ASSERT_EQ(made.size(), 1u);
  ASSERT_TRUE(made[0].status);
  EXPECT_EQ(dynamic_cast<Counted&>(*made[0].request.constraint).taken, (std::vector<std::int32_t>{5, 6}));
  EXPECT_EQ(made[0].request.answer.size(), 2u);
}

TEST_F(ConstraintThreadTest, FailuresComeWithTheReason) {
  const auto failure = [&](Request one, const char* source) {
    thread_.make(std::move(one), {.source = source});
    const auto made = wait();
    return made.at(0).status ? Error(ErrorCode::kInternal, "made") : made[0].status.error();
  };
  EXPECT_EQ(failure(request(1), "fail").message(), "grammar: no");
  EXPECT_EQ(failure(request(1), "fail").code(), ErrorCode::kOutOfResources);  // no link has failed
  EXPECT_EQ(failure(request(1, {-1}), "abc").message(), "no such token");
  EXPECT_EQ(failure(request(1, {1, 2, 3}), "abc").message(), "the answer to be gone on with is at its end");
}

TEST_F(ConstraintThreadTest, WithoutAFactoryRequestsAreRefused) {
  ConstraintThread none({}, [this] { made_.release(); });
  none.make(request(1), {});
  made_.acquire();
  EXPECT_EQ(none.take_made().at(0).status.error().code(), ErrorCode::kUnsupported);
}

TEST_F(ConstraintThreadTest, ACancelledRequestIsGoneWhereverItIs) {
  thread_.make(request(1), {.source = "wait"});
  thread_.make(request(2), {.source = "a"});
  thread_.make(request(3), {.source = "a"});
  begun_.acquire();
  EXPECT_EQ(thread_.waiting(), 2);
  EXPECT_TRUE(thread_.cancel(1));
  EXPECT_FALSE(thread_.cancel(1));
  EXPECT_TRUE(thread_.cancel(2));
  EXPECT_FALSE(thread_.cancel(9));
  EXPECT_EQ(thread_.waiting(), 1);
  let_on_.release();
  made_.acquire();
  EXPECT_TRUE(thread_.cancel(3));  // made, and not taken yet
  EXPECT_TRUE(thread_.take_made().empty());
}

TEST_F(ConstraintThreadTest, WhatIsDroppedDoesNotComeAndMayBeAskedForAgain) {
  thread_.make(request(1), {.source = "wait"});
  thread_.make(request(2), {.source = "a"});
  begun_.acquire();
  thread_.drop_all();
  thread_.make(request(1), {.source = "again"});
  let_on_.release();
  const auto made = wait();
  ASSERT_EQ(made.size(), 1u);
  EXPECT_EQ(made[0].request.id, 1u);
  EXPECT_FALSE(made[0].request.constraint->complete());
  EXPECT_FALSE(thread_.cancel(1));
}

}  // namespace
}  // namespace tandem
