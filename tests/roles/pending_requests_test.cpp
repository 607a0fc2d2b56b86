// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/pending_requests.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

class PendingRequestsTest : public testing::Test {
 protected:
  void add(RequestId id, std::int32_t rank) {
    Request request;
    request.id = id;
    request.prompt = {1, 2};
    pending_.add(std::move(request), rank, events_);
  }
  static RequestEvent news(RequestId id, std::int32_t token, FinishReason finish = FinishReason::kNone) {
    RequestEvent event;
    event.id = id;
    event.tokens.push_back({.id = token});
    event.finish = finish;
    return event;
  }
  static RequestEvent lost_link(RequestId id) {
    RequestEvent event;
    event.id = id;
    event.finish = FinishReason::kError;
    event.status = Status(ErrorCode::kUnavailable, "FFN worker 0 is gone");
    return event;
  }

  std::shared_ptr<EventStream> events_ = std::make_shared<EventStream>();
  PendingRequests pending_;
};

TEST_F(PendingRequestsTest, GoToWhomTheyAreMeantForAndElsewhereToTheIdlest) {
  for (RequestId id = 1; id <= 3; ++id) add(id, 0);
  add(4, 1);
  EXPECT_EQ(pending_.count_of(0), 3);
  const auto sent = pending_.take_unsent({false, true, true});
  ASSERT_EQ(sent.size(), 4u);
  EXPECT_EQ(sent[0].rank, 2);  // 1 has one already
  EXPECT_EQ(pending_.count_of(0), 0);
  EXPECT_EQ(pending_.count_of(1), 2);
  EXPECT_EQ(pending_.count_of(2), 2);
  EXPECT_EQ(pending_.cancel(4), 1);
  EXPECT_TRUE(pending_.take_unsent({true, true, true}).empty());
}

TEST_F(PendingRequestsTest, WaitWhereNobodyIs) {
  add(1, 0);
  EXPECT_TRUE(pending_.take_unsent({false, false}).empty());
  EXPECT_EQ(pending_.take_unsent({true, false}).size(), 1u);
}

TEST_F(PendingRequestsTest, AreSentAgainWithTheAnswerThatWasTold) {
  add(1, 0);
  pending_.take_unsent({true});
  EXPECT_TRUE(pending_.pass_on(news(1, 7)));
  EXPECT_TRUE(pending_.pass_on(news(1, 8)));
  pending_.unsend_all();
  EXPECT_TRUE(pending_.pass_on(news(1, 9)));  // late: who sent it has it no longer
  const auto again = pending_.take_unsent({true});
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].request.answer, (std::vector<std::int32_t>{7, 8}));
  EXPECT_EQ(events_->pop(0)->tokens.size(), 2u);
  EXPECT_TRUE(pending_.pass_on(news(1, 9, FinishReason::kLength)));
  EXPECT_EQ(events_->pop(0)->finish, FinishReason::kLength);
  EXPECT_TRUE(pending_.empty());
}

TEST_F(PendingRequestsTest, ALinkThatFailsHoldsThemBackUntilAllMeetAgain) {
  add(1, 0);
  for (std::int32_t i = 0; i < PendingRequests::kRetriesMax; ++i) {
    ASSERT_EQ(pending_.take_unsent({true}).size(), 1u);
    EXPECT_FALSE(pending_.pass_on(lost_link(1)));
    EXPECT_TRUE(pending_.take_unsent({true}).empty());
    pending_.unsend_all();
  }
  EXPECT_FALSE(events_->pop(0).has_value());
  pending_.take_unsent({true});
  EXPECT_TRUE(pending_.pass_on(lost_link(1)));
  EXPECT_EQ(events_->pop(0)->status.error().message(), "FFN worker 0 is gone");
  EXPECT_TRUE(pending_.empty());
}

TEST_F(PendingRequestsTest, ACancelledOneIsNeverSentAgain) {
  for (RequestId id = 1; id <= 3; ++id) add(id, 0);
  EXPECT_EQ(pending_.cancel(9), PendingRequests::kNobody);
  EXPECT_EQ(pending_.cancel(3), PendingRequests::kNobody);  // nobody has it
  EXPECT_EQ(events_->pop(0)->finish, FinishReason::kCancelled);
  pending_.take_unsent({true});
  EXPECT_EQ(pending_.cancel(1), 0);
  EXPECT_EQ(pending_.cancel(2), 0);
  EXPECT_FALSE(events_->pop(0).has_value());
  EXPECT_FALSE(pending_.pass_on(lost_link(1)));
  EXPECT_EQ(events_->pop(0)->finish, FinishReason::kCancelled);
  pending_.unsend_all();  // its worker is gone before it has said that 2 has ended
  const auto end = events_->pop(0);
  EXPECT_EQ(end->id, 2u);
  EXPECT_EQ(end->finish, FinishReason::kCancelled);
  EXPECT_TRUE(pending_.empty());
}

TEST_F(PendingRequestsTest, MoveOneByOneWithWhatWasTold) {
  for (RequestId id = 1; id <= 3; ++id) add(id, 0);
  EXPECT_FALSE(pending_.begin_move(0));  // nobody has them yet
  pending_.take_unsent({true, true});
  EXPECT_EQ(pending_.begin_move(0), 1u);
  EXPECT_EQ(pending_.begin_move(0), 2u);
  EXPECT_FALSE(pending_.begin_move(1));
  RequestEvent told;
  told.id = 1;
  told.tokens = {{.id = 77}};
  pending_.pass_on(told);  // on its way out
  EXPECT_TRUE(pending_.take_unsent({true, true}).empty());
  EXPECT_TRUE(pending_.end_move(1, 1));
  const std::vector<PendingRequests::Sending> sent = pending_.take_unsent({true, true});
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].rank, 1);
  EXPECT_EQ(sent[0].request.answer, std::vector<std::int32_t>{77});
  EXPECT_EQ(pending_.count_of(0), 2);
  EXPECT_FALSE(pending_.end_move(1, 0));  // it does not move any more
  EXPECT_EQ(pending_.count_of(1), 1);
}

// What is found when it is sent again is its own.
TEST_F(PendingRequestsTest, CachedTokensAreThoseOfTheFirstSending) {
  add(1, 0);
  pending_.take_unsent({true});
  const auto tell = [&](std::int64_t cached, FinishReason finish) {
    RequestEvent told;
    told.id = 1;
    told.tokens = {{.id = 77}};
    told.cached_tokens = cached;
    told.finish = finish;
    pending_.pass_on(told);
    return events_->pop(0)->cached_tokens;
  };
  EXPECT_EQ(tell(64, FinishReason::kNone), 64);
  pending_.unsend_all();
  pending_.take_unsent({true});
  EXPECT_EQ(tell(256, FinishReason::kLength), 64);
}

TEST_F(PendingRequestsTest, OneThatIsCancelledOnItsWayEnds) {
  add(1, 0);
  add(2, 0);
  pending_.take_unsent({true});
  ASSERT_EQ(pending_.begin_move(0), 1u);
  EXPECT_EQ(pending_.cancel(1), 0);
  EXPECT_EQ(pending_.cancel(2), 0);
  EXPECT_FALSE(pending_.begin_move(0));  // 2 ends where it is
  while (events_->pop(0)) continue;
  EXPECT_FALSE(pending_.end_move(1, 0));
  const auto end = events_->pop(0);
  ASSERT_TRUE(end);
  EXPECT_EQ(end->id, 1u);
  EXPECT_EQ(end->finish, FinishReason::kCancelled);
  EXPECT_FALSE(pending_.end_move(9, 0));  // that has ended meanwhile
}

TEST_F(PendingRequestsTest, WhoeverWasOnTheWayIsWithNobodyAfterALoss) {
  add(1, 0);
  pending_.take_unsent({true, true});
  ASSERT_TRUE(pending_.begin_move(0));
  pending_.unsend_all();
  EXPECT_FALSE(pending_.end_move(1, 1));  // from before
  const std::vector<PendingRequests::Sending> sent = pending_.take_unsent({true, true});
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].rank, 0);
  EXPECT_TRUE(pending_.begin_move(0));
}

TEST_F(PendingRequestsTest, EndOnceWithTheReason) {
  add(1, 0);
  add(2, 0);
  pending_.end(1, FinishReason::kCancelled, Status::ok());
  pending_.end(1, FinishReason::kCancelled, Status::ok());
  const auto first = events_->pop(0);
  EXPECT_EQ(first->id, 1u);
  EXPECT_EQ(first->prompt_tokens, 2);
  EXPECT_FALSE(events_->pop(0).has_value());
  pending_.end_all(FinishReason::kError, Status(ErrorCode::kUnavailable, "nobody"));
  EXPECT_EQ(events_->pop(0)->status.error().message(), "nobody");
  EXPECT_TRUE(pending_.empty());
}

}  // namespace
}  // namespace tandem
