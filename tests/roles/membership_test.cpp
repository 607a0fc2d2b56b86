// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/membership.h"

#include <gmock/gmock.h>

#include "tests/roles/membership_fixture.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// ---- forming

TEST_F(MembershipTest, TheFirstTimeAllAttentionWorkersAreWaitedFor) {
  make(2, 1);
  worker(1).listens = false;
  settle();
  EXPECT_EQ(last_epoch(0), 0u);
  EXPECT_EQ(membership_->standing().missing, "A1 (rank 1, 10.0.0.1:7001) is missing: nobody listens there");
  EXPECT_FALSE(membership_->standing().formed_once);
  worker(1).listens = true;
  pass(200);
  EXPECT_EQ(membership_->formations(), 1);
  EXPECT_TRUE(membership_->standing().formed_once);
  worker(1).die();  // from now on the other one is enough
  settle();
  EXPECT_EQ(membership_->formations(), 2);
  EXPECT_EQ(membership_->epoch(), 2u);
}

TEST_F(MembershipTest, ChannelsThatHaveNotMovedAreNotAsked) {
  make_formed(1, 1);
  worker(0).die();
  membership_->turn([](const ControlChannel&) { return false; });
  EXPECT_TRUE(membership_->peers()[0]->present());
  membership_->turn([](const ControlChannel&) { return true; });
  EXPECT_FALSE(membership_->peers()[0]->present());
}

TEST_F(MembershipTest, AllFfnWorkersAreWaitedForEachTime) {
  make_formed(1, 2);
  worker(2).die();
  pass(1'000);
  EXPECT_EQ(membership_->formations(), 1);
  EXPECT_EQ(last_epoch(0), 1u);
  worker(2).listens = true;
  pass(200);
  EXPECT_EQ(membership_->formations(), 2);
  worker(0).die();  // nor without an attention worker
  pass(1'000);
  EXPECT_EQ(membership_->formations(), 2);
  EXPECT_EQ(last_epoch(1), 2u);
}

TEST_F(MembershipTest, PrepareTellsAnEpochItsOwnSessionAndWhoTakesPart) {
  make_formed(2, 1);
  const Prepare first{.epoch = 1, .session = 101, .present = {1, 1, 1}},
      second{.epoch = 2, .session = 102, .present = {1, 0, 1}};
  for (std::int32_t rank = 0; rank < 3; ++rank)
    EXPECT_THAT(worker(rank).wire->all<Prepare>(), ElementsAre(first)) << rank;
  worker(1).die();
  settle();
  EXPECT_THAT(worker(0).wire->all<Prepare>(), ElementsAre(first, second));
  EXPECT_THAT(worker(2).wire->all<Prepare>(), ElementsAre(first, second));
}

TEST_F(MembershipTest, ConnectBringsEachWhatItsPeersHaveForIt) {
  make(2, 1);
  worker(2).introduces = false;
  settle();
  for (std::int32_t rank = 0; rank < 3; ++rank) EXPECT_THAT(worker(rank).wire->all<Connect>(), IsEmpty()) << rank;
  const Prepare prepare = worker(2).wire->all<Prepare>().at(0);
  Addresses of_another = worker(2).addresses(prepare);
  of_another.epoch = 7;
  worker(2).say(of_another);
  settle();
  EXPECT_THAT(worker(0).wire->all<Connect>(), IsEmpty());
  worker(2).say(worker(2).addresses(prepare));
  settle();
  for (std::int32_t rank = 0; rank < 3; ++rank) {
    const std::vector<Connect> connects = worker(rank).wire->all<Connect>();
    ASSERT_THAT(connects, SizeIs(1)) << rank;
    EXPECT_EQ(connects[0].epoch, 1u);
    ASSERT_THAT(connects[0].introductions, SizeIs(3));
    for (std::size_t from = 0; from < 3; ++from)
      EXPECT_EQ(connects[0].introductions[from].hello, bytes_of(format("{} to {}", from, rank)));
  }
  EXPECT_EQ(membership_->formations(), 1);
}

TEST_F(MembershipTest, WhoIsNotThereIntroducesItselfToNobody) {
  make_formed(2, 1);
  worker(1).die();
  settle();
  const Connect connect = worker(0).wire->all<Connect>().back();
  EXPECT_EQ(connect.epoch, 2u);
  EXPECT_THAT(connect.introductions.at(1).hello, IsEmpty());
  EXPECT_EQ(connect.introductions.at(2).hello, bytes_of("2 to 0"));
}

TEST_F(MembershipTest, AddressesThatComeTwiceConnectNobodyTwice) {
  make(1, 1);
  worker(0).gets_ready = false;
  settle();
  worker(1).say(worker(1).addresses(worker(1).wire->all<Prepare>().at(0)));
  settle();
  EXPECT_THAT(worker(0).wire->all<Connect>(), SizeIs(1));
}

TEST_F(MembershipTest, AddressesOfWhoTakesNoPartConnectNobody) {
  make_formed(2, 1);
  worker(0).gets_ready = false;
  membership_->obey({.kind = OrderKind::kDrain, .rank = 1});
  settle();
  ASSERT_THAT(worker(0).wire->all<Connect>(), SizeIs(2));
  worker(1).say(worker(1).addresses(worker(0).wire->all<Prepare>().back()));
  settle();
  EXPECT_THAT(worker(0).wire->all<Connect>(), SizeIs(2));
}

TEST_F(MembershipTest, RunsWhenAllAreReadyForThisEpoch) {
  make(1, 1);
  worker(1).gets_ready = false;
  settle();
  submit(1, 0);
  worker(1).say(Ready{.epoch = 7});
  settle();
  EXPECT_EQ(membership_->formations(), 0);
  EXPECT_EQ(status()["phase"].get<std::string>(), "forming");
  EXPECT_THAT(submitted(0), IsEmpty());
  worker(1).say(Ready{.epoch = 1});
  settle();
  EXPECT_EQ(membership_->formations(), 1);
  EXPECT_EQ(status()["phase"].get<std::string>(), "running");
  EXPECT_THAT(submitted(0), ElementsAre(1));
}

TEST_F(MembershipTest, WhoIsNeverReadyIsLost) {
  make(1, 1);
  worker(1).gets_ready = false;
  pass(60'000);
  EXPECT_EQ(last_epoch(0), 1u);
  EXPECT_FALSE(worker(1).wire->closed);
  const std::shared_ptr<ToldWire> before = worker(1).wire;
  worker(1).gets_ready = true;
  pass(500);
  EXPECT_TRUE(before->closed);
  EXPECT_EQ(membership_->epoch(), 2u);
  EXPECT_EQ(membership_->formations(), 1);
}

TEST_F(MembershipTest, AWorkerThatComesBackIsTakenInByAnotherEpoch) {
  make_formed(2, 1);
  worker(1).die();
  settle();
  submit(1, 0);
  settle();
  worker(1).listens = true;
  pass(200);
  EXPECT_EQ(membership_->formations(), 3);
  EXPECT_THAT(worker(0).wire->all<Prepare>().back().present, ElementsAre(1, 1, 1));
  EXPECT_THAT(submitted(0), ElementsAre(1, 1));  // sent again
}

// ---- who speaks

TEST_F(MembershipTest, IsGreetedByTheFrontAndNamedByRank) {
  make(1, 1);
  worker(1).listens = false;
  settle();
  EXPECT_THAT(worker(0).wire->all<Greeting>(), ElementsAre(Greeting{.identity = identity_, .rank = 0}));
  EXPECT_TRUE(worker(0).wire->long_messages);
  EXPECT_TRUE(membership_->peers()[0]->available());
  EXPECT_FALSE(membership_->peers()[1]->available());
  // Tried again after a tenth of a second, and not before.
  EXPECT_EQ(worker(1).dialed, 1);
  clock_.advance_to(clock_.now() + 100 * kMillisecond - 1);
  settle();
  EXPECT_EQ(worker(1).dialed, 1);
  clock_.advance_to(clock_.now() + 1);
  settle();
  EXPECT_EQ(worker(1).dialed, 2);
}

TEST_F(MembershipTest, WhoSpeaksBeforeItsWelcomeIsLost) {
  make(1, 1);
  worker(1).answers = false;
  settle();
  worker(1).say(Ready{.epoch = 0});
  settle();
  EXPECT_TRUE(worker(1).wire->closed);
  EXPECT_THAT(membership_->standing().missing, HasSubstr("it did not begin with a welcome"));
  EXPECT_FALSE(worker(1).wire->long_messages);
}

TEST_F(MembershipTest, WhoSaysWhatNoWorkerSaysIsLost) {
  make_formed(1, 1);
  worker(1).say(Told{.json = "{}"});
  worker(1).listens = false;
  settle();
  EXPECT_TRUE(worker(1).wire->closed);
  EXPECT_THAT(membership_->standing().missing, HasSubstr("is no message from a worker"));
}

TEST_F(MembershipTest, WorkersHearABeatEveryHeartbeat) {
  make_formed(1, 1);
  const auto beats = [&] { return worker(0).wire->all<Beat>().size(); };
  const std::size_t before = beats();
  const Nanoseconds due = clock_.now() + 500 * kMillisecond;
  clock_.advance_to(due - 1);
  settle();
  EXPECT_EQ(beats(), before);
  clock_.advance_to(due);
  settle();
  EXPECT_EQ(beats(), before + 1);
}

TEST_F(MembershipTest, ReportsAreWhatStatusTells) {
  make_formed(1, 1);
  Report report;
  report.steps = 12;
  report.rows = 34;
  report.load.running = 5;
  worker(0).say(report);
  settle();
  submit(1, 0);
  EXPECT_EQ(membership_->peers()[0]->stats().rows.load(), 34);
  EXPECT_EQ(membership_->peers()[0]->load().running, 5);
  const OrderedJson told = status();
  EXPECT_EQ(told["deployment"].get<std::string>(), "test");
  EXPECT_EQ(told["epoch"].get<int>(), 1);
  EXPECT_EQ(told["workers"][0]["state"].get<std::string>(), "running");
  EXPECT_EQ(told["workers"][0]["steps"].get<int>(), 12);
  EXPECT_EQ(told["workers"][0]["requests"].get<int>(), 1);
  EXPECT_FALSE(told["workers"][1].contains("requests"));
}

TEST_F(MembershipTest, AWorkerOfAnotherDeploymentKeepsItFromStarting) {
  make(1, 1);
  worker(1).identity.layout = "9A9F";
  settle();
  const Membership::Standing standing = membership_->standing();
  ASSERT_TRUE(standing.failure.has_value());
  EXPECT_EQ(standing.failure->code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(standing.failure->message(),
            "F0 (rank 1, 10.0.0.1:7001) is of another deployment: layout is 1A1F, the other has 9A9F");
  EXPECT_TRUE(worker(1).wire->closed);
}

TEST_F(MembershipTest, AWorkerThatIsAnotherRankKeepsItFromStarting) {
  make(1, 1);
  worker(1).says_rank = 0;
  settle();
  ASSERT_TRUE(membership_->standing().failure.has_value());
  EXPECT_THAT(membership_->standing().failure->message(), HasSubstr("it is rank 0"));
}

TEST_F(MembershipTest, ARefusalKeepsItFromStartingUnlessItMayPass) {
  make(1, 1);
  worker(1).answers = false;
  settle();
  worker(1).say(Refusal{ErrorCode::kUnavailable, "another front is connected"});
  pass(300);
  EXPECT_FALSE(membership_->standing().failure.has_value());
  EXPECT_EQ(worker(1).dialed, 2);  // tried again
  worker(1).say(Refusal{ErrorCode::kUnsupported, "not done yet"});
  settle();
  ASSERT_TRUE(membership_->standing().failure.has_value());
  EXPECT_EQ(membership_->standing().failure->code(), ErrorCode::kUnsupported);
  EXPECT_EQ(membership_->standing().failure->message(), "F0 (rank 1, 10.0.0.1:7001) refuses: not done yet");
}

TEST_F(MembershipTest, WhoIsNotTrustedKeepsItFromStarting) {
  make(1, 1);
  worker(1).answers = false;
  settle();
  worker(1).wire->end = Status(ErrorCode::kPermissionDenied, "its certificate is of another authority");
  settle();
  ASSERT_TRUE(membership_->standing().failure.has_value());
  EXPECT_EQ(membership_->standing().failure->code(), ErrorCode::kPermissionDenied);
  EXPECT_THAT(membership_->standing().failure->message(), HasSubstr("its certificate is of another authority"));
}

TEST_F(MembershipTest, OnceItHasRunAStrangerIsOnlyMissing) {
  make_formed(1, 1);
  worker(1).die();
  settle();
  worker(1).listens = true;
  worker(1).identity.model = 9;
  pass(200);
  EXPECT_FALSE(membership_->standing().failure.has_value());
  EXPECT_THAT(membership_->standing().missing, HasSubstr("the model is another"));
  EXPECT_EQ(membership_->formations(), 1);
}

// ---- requests and losses

TEST_F(MembershipTest, NewsReachWhoeverAsked) {
  make_formed(2, 1);
  submit(1, 1);
  settle();
  EXPECT_THAT(submitted(0), IsEmpty());
  EXPECT_THAT(submitted(1), ElementsAre(1));
  EXPECT_EQ(membership_->outstanding(1), 1);
  tell(1, 1, tokens(1, {7, 8}, FinishReason::kStop));
  settle();
  const std::vector<RequestEvent> told = news();
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_THAT(told[0].tokens, SizeIs(2));
  EXPECT_EQ(told[0].finish, FinishReason::kStop);
  EXPECT_EQ(membership_->outstanding(1), 0);
}

TEST_F(MembershipTest, NewsOfAnotherEpochChangeNothing) {
  make_formed(1, 1);
  submit(1, 0);
  settle();
  tell(0, 0, tokens(1, {9}, FinishReason::kStop));
  tell(0, 2, tokens(1, {9}, FinishReason::kStop));
  settle();
  EXPECT_THAT(news(), IsEmpty());
  EXPECT_EQ(membership_->outstanding(0), 1);
}

TEST_F(MembershipTest, NewsWhileItIsApartChangeNothing) {
  make_formed(1, 1);
  submit(1, 0);
  settle();
  worker(1).die();
  settle();
  tell(0, 1, tokens(1, {9}, FinishReason::kStop));
  settle();
  EXPECT_THAT(news(), IsEmpty());
  worker(1).listens = true;
  pass(200);
  ASSERT_EQ(membership_->formations(), 2);
  EXPECT_THAT(worker(0).wire->all<Submit>().back().request.answer, IsEmpty());
}

TEST_F(MembershipTest, ALostAttentionWorkersRequestsGoOnElsewhere) {
  make_formed(2, 1);
  submit(1, 0);
  submit(2, 1);
  settle();
  tell(0, 1, tokens(1, {7, 8}));
  settle();
  worker(0).die();
  settle();
  EXPECT_THAT(worker(1).wire->all<Dissolve>(), SizeIs(1));
  EXPECT_THAT(worker(2).wire->all<Dissolve>(), SizeIs(1));
  EXPECT_EQ(membership_->epoch(), 2u);
  const std::vector<Submit> sent = worker(1).wire->all<Submit>();
  ASSERT_THAT(submitted(1), ElementsAre(2, 1, 2));
  EXPECT_THAT(sent[1].request.answer, ElementsAre(7, 8));
  EXPECT_EQ(membership_->outstanding(0), 0);
  EXPECT_EQ(membership_->outstanding(1), 2);
  tell(1, 2, tokens(1, {9}, FinishReason::kLength));
  settle();
  const std::vector<RequestEvent> told = news();
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.back().finish, FinishReason::kLength);
}

TEST_F(MembershipTest, NothingIsSentBetweenALossAndTheNextMeeting) {
  make_formed(1, 1);
  worker(1).die();
  settle();
  submit(1, 0);
  settle();
  EXPECT_THAT(submitted(0), IsEmpty());
  // What the front does first for a worker that is back is to dissolve what it had, and to prepare it.
  EXPECT_TRUE(std::holds_alternative<Dissolve>(worker(0).wire->sent.back()));
}

TEST_F(MembershipTest, AWorkerThatIsSilentIsLost) {
  make_formed(1, 1);
  worker(1).answers = false;
  worker(1).listens = false;
  const std::shared_ptr<ToldWire> wire = worker(1).wire;
  pass(5'000);
  EXPECT_FALSE(wire->closed);
  pass(100);
  EXPECT_TRUE(wire->closed);
  EXPECT_FALSE(worker(0).wire->closed);  // it reports
  EXPECT_THAT(worker(0).wire->all<Dissolve>(), SizeIs(1));
  EXPECT_FALSE(membership_->peers()[1]->present());
}

TEST_F(MembershipTest, WhoDoesNotAnswerTheGreetingIsTriedAgain) {
  make(1, 1);
  worker(1).answers = false;
  pass(5'000);
  EXPECT_EQ(worker(1).dialed, 1);
  pass(300);
  EXPECT_EQ(worker(1).dialed, 2);
}

TEST_F(MembershipTest, AHandOverThatFailedWithNobodyGoneMakesThemMeetAgain) {
  make_formed(1, 1);
  submit(1, 0);
  settle();
  RequestEvent lost_link = tokens(1, {}, FinishReason::kError);
  lost_link.status = Status(ErrorCode::kUnavailable, "FFN worker 0 is gone");
  tell(0, 1, lost_link);
  settle();
  EXPECT_THAT(news(), IsEmpty());
  pass(5'000);
  EXPECT_EQ(membership_->epoch(), 1u);  // somebody may yet be found to be gone
  pass(100);
  EXPECT_EQ(membership_->epoch(), 2u);
  EXPECT_EQ(membership_->formations(), 2);
  EXPECT_THAT(submitted(0), ElementsAre(1, 1));
}

TEST_F(MembershipTest, WaitsForSoLongThenRequestsEndWithWhoIsMissing) {
  make_formed(1, 1);
  submit(1, 0);
  settle();
  worker(1).die();
  settle();
  pass(20'000);
  submit(2, 0);
  EXPECT_THAT(news(), IsEmpty());
  pass(100);
  std::vector<RequestEvent> told = news();
  ASSERT_THAT(told, SizeIs(2));
  for (const RequestEvent& event : told) {
    EXPECT_EQ(event.finish, FinishReason::kError);
    EXPECT_EQ(event.status.error().code(), ErrorCode::kUnavailable);
    EXPECT_EQ(event.status.error().message(), "F0 (rank 1, 10.0.0.1:7001) is missing: nobody listens there");
  }
  submit(3, 0);  // is not even waited for
  told = news();
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_EQ(told[0].id, 3u);
  EXPECT_EQ(told[0].status.error().code(), ErrorCode::kUnavailable);
  EXPECT_THAT(told[0].status.error().message(), HasSubstr("F0"));
  EXPECT_EQ(membership_->outstanding(0), 0);

  worker(1).listens = true;
  pass(200);
  ASSERT_EQ(membership_->formations(), 2);
  submit(4, 0);
  settle();
  EXPECT_THAT(news(), IsEmpty());
  EXPECT_EQ(submitted(0).back(), 4u);
}

TEST_F(MembershipTest, BeforeItHasRunRequestsWaitForEver) {
  make(1, 1);
  worker(1).listens = false;
  submit(1, 0);
  pass(40'000);
  EXPECT_THAT(news(), IsEmpty());
}

// Each try ends before they have met: that it was tried makes nobody wait longer.
TEST_F(MembershipTest, AWorkerThatIsLostWhileTheyMeetDoesNotProlongTheWait) {
  make_formed(1, 1);
  submit(1, 0);
  settle();
  worker(1).die();
  worker(1).gets_ready = false;
  for (int i = 0; i < 21; ++i) {
    worker(1).listens = true;
    pass(800);
    worker(1).die();
    pass(200);
  }
  EXPECT_EQ(membership_->formations(), 1);
  EXPECT_GT(membership_->epoch(), 10u);
  const std::vector<RequestEvent> told = news();
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_EQ(told[0].status.error().code(), ErrorCode::kUnavailable);
}

TEST_F(MembershipTest, AfterItGaveUpThereIsAReasonThoughNobodyIsMissing) {
  make_formed(1, 1);
  worker(1).die();
  pass(21'000);
  worker(1).gets_ready = false;
  worker(1).listens = true;
  pass(200);
  ASSERT_EQ(status()["phase"].get<std::string>(), "forming");
  submit(1, 0);
  const std::vector<RequestEvent> told = news();
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_EQ(told[0].status.error().message(), "the workers have not met in time");
}

// ---- cancels

TEST_F(MembershipTest, ACancelledRequestThatNobodyHasEndsAndIsNotSent) {
  make(1, 1);
  worker(1).listens = false;
  submit(1, 0);
  submit(2, 0);
  membership_->cancel(1);
  membership_->cancel(9);  // nobody's
  settle();
  const std::vector<RequestEvent> told = news();
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_EQ(told[0].id, 1u);
  EXPECT_EQ(told[0].finish, FinishReason::kCancelled);
  worker(1).listens = true;
  pass(200);
  EXPECT_THAT(submitted(0), ElementsAre(2));
}

TEST_F(MembershipTest, ACancelGoesToWhoeverHasTheRequest) {
  make_formed(2, 1);
  submit(1, 1);
  settle();
  membership_->cancel(1);
  settle();
  EXPECT_THAT(worker(1).wire->all<Cancel>(), ElementsAre(Cancel{1}));
  EXPECT_THAT(worker(0).wire->all<Cancel>(), IsEmpty());
  EXPECT_THAT(news(), IsEmpty());  // its worker says when it has ended
  tell(1, 1, tokens(1, {5}, FinishReason::kCancelled));
  settle();
  const std::vector<RequestEvent> told = news();
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_EQ(told[0].finish, FinishReason::kCancelled);
}

TEST_F(MembershipTest, WhatTheChannelHasNotTakenIsWithdrawn) {
  make_formed(1, 1);
  worker(0).wire->unsent_bytes = 1 << 30;
  submit(1, 0);
  settle();
  EXPECT_THAT(submitted(0), IsEmpty());
  membership_->cancel(1);
  settle();
  const std::vector<RequestEvent> told = news();
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_EQ(told[0].finish, FinishReason::kCancelled);
  worker(0).wire->unsent_bytes = 0;
  settle();
  EXPECT_THAT(submitted(0), IsEmpty());
  EXPECT_THAT(worker(0).wire->all<Cancel>(), IsEmpty());
}

TEST_F(MembershipTest, ACancelledRequestOfALostWorkerIsNotSentAgain) {
  make_formed(2, 1);
  submit(1, 0);
  settle();
  membership_->cancel(1);
  settle();
  worker(0).die();
  settle();
  const std::vector<RequestEvent> told = news();
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_EQ(told[0].finish, FinishReason::kCancelled);
  EXPECT_EQ(membership_->formations(), 2);
  EXPECT_THAT(submitted(1), IsEmpty());
}

TEST_F(MembershipTest, WhatCannotBeSentIsRefusedAtOnce) {
  make(1, 1);
  Request request;
  request.id = 1;
  request.prompt = {1};
  request.embedded = {{0, 1, 0, nullptr}};
  membership_->submit(std::move(request), 0, events_);
  const std::vector<RequestEvent> told = news();
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_EQ(told[0].finish, FinishReason::kError);
  EXPECT_EQ(membership_->outstanding(0), 0);
}

// ---- orders

TEST_F(MembershipTest, ADrainedWorkersRequestsGoOnElsewhereUntilItIsAdded) {
  make_formed(2, 1);
  submit(1, 0);
  settle();
  const Told told = membership_->obey({.kind = OrderKind::kDrain, .rank = 0});
  EXPECT_EQ(OrderedJson::parse(told.json)["workers"][0]["state"].get<std::string>(), "draining");
  settle();
  EXPECT_EQ(state(0), "drained");
  EXPECT_EQ(membership_->formations(), 2);
  EXPECT_THAT(worker(1).wire->all<Prepare>().back().present, ElementsAre(0, 1, 1));
  EXPECT_THAT(worker(0).wire->all<Dissolve>(), SizeIs(1));
  EXPECT_THAT(worker(0).wire->all<Prepare>(), SizeIs(1));
  EXPECT_THAT(submitted(1), ElementsAre(1, 1));  // when it was moved, and as all met without the first
  EXPECT_FALSE(membership_->peers()[0]->available());
  EXPECT_FALSE(worker(0).wire->closed);  // it may be added again
  membership_->obey({.kind = OrderKind::kDrain, .rank = 0});
  settle();
  EXPECT_EQ(membership_->epoch(), 2u);  // it was already

  membership_->obey({.kind = OrderKind::kAdd, .rank = 0});
  settle();
  EXPECT_EQ(membership_->formations(), 3);
  EXPECT_THAT(worker(1).wire->all<Prepare>().back().present, ElementsAre(1, 1, 1));
  EXPECT_TRUE(membership_->peers()[0]->available());
}

TEST_F(MembershipTest, ADrainedWorkerThatLeavesAndComesBackDisturbsNobody) {
  make_formed(2, 1);
  membership_->obey({.kind = OrderKind::kDrain, .rank = 0});
  settle();
  worker(0).die();
  pass(500);
  worker(0).listens = true;
  pass(200);
  EXPECT_TRUE(membership_->peers()[0]->present());
  EXPECT_EQ(membership_->epoch(), 2u);
  EXPECT_THAT(membership_->standing().missing, IsEmpty());
}

TEST_F(MembershipTest, ADrainedWorkerIsNotWaitedForTheFirstTime) {
  make(2, 1);
  worker(1).listens = false;
  settle();
  membership_->obey({.kind = OrderKind::kDrain, .rank = 1});
  settle();
  EXPECT_EQ(membership_->formations(), 1);
}

TEST_F(MembershipTest, TheLastAttentionWorkerAndFfnWorkersAreNotDrained) {
  make_formed(2, 1);
  Error refusal = refusal_of(OrderKind::kDrain, 2);
  EXPECT_EQ(refusal.code(), ErrorCode::kUnavailable);
  EXPECT_EQ(refusal.message(), "F0 (rank 2, 10.0.0.1:7002) holds a part of every layer, and no replica of it is here");
  membership_->obey({.kind = OrderKind::kDrain, .rank = 0});
  settle();
  refusal = refusal_of(OrderKind::kDrain, 1);
  EXPECT_EQ(refusal.code(), ErrorCode::kUnavailable);
  EXPECT_EQ(refusal.message(), "A1 (rank 1, 10.0.0.1:7001) is the last attention worker that is here");
  membership_->obey({.kind = OrderKind::kAdd, .rank = 0});
  settle();
  worker(0).die();  // one that is away is no other
  settle();
  EXPECT_EQ(refusal_of(OrderKind::kDrain, 1).code(), ErrorCode::kUnavailable);
  EXPECT_EQ(status()["phase"].get<std::string>(), "running");
}

TEST_F(MembershipTest, OrdersNameARankThatThereIs) {
  make_formed(1, 1);
  for (const std::int32_t rank : {-1, 2}) {
    const Error refusal = refusal_of(OrderKind::kAdd, rank);
    EXPECT_EQ(refusal.code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(refusal.message(), format("rank is {}, there are 2 workers", rank));
  }
}

// ---- requests that move

TEST_F(MembershipTest, KvGoesWithARequestAndTheOthersRunMeanwhile) {
  make_formed(3, 1);
  worker(0).pages = 2;
  worker(0).yields = false;  // yet
  for (RequestId id = 1; id <= 3; ++id) submit(id, 0);
  submit(4, 1);
  settle();
  membership_->obey({.kind = OrderKind::kDrain, .rank = 0});
  submit(5, 0);  // chosen before: it is not sent there any more
  settle();
  EXPECT_EQ(membership_->epoch(), 1u);
  EXPECT_EQ(state(0), "draining");
  EXPECT_THAT(worker(0).wire->all<Yield>(), ElementsAre(Yield{1}, Yield{2}));  // two at a time
  EXPECT_THAT(submitted(0), ElementsAre(1, 2, 3));
  tell(0, 1, tokens(1, {7}));  // the last that was computed there
  worker(0).say(Page{1, 1, 0, true, bytes_of("a")});
  worker(0).say(Page{1, 1, 1, true, bytes_of("b")});
  worker(0).say(Yielded{1, 1});
  settle();
  EXPECT_THAT(worker(1).wire->all<Page>(),
              ElementsAre(Page{1, 1, 0, true, bytes_of("a")}, Page{1, 1, 1, true, bytes_of("b")}));
  EXPECT_THAT(submitted(2), ElementsAre(5));
  ASSERT_THAT(submitted(1), ElementsAre(4, 1));
  EXPECT_THAT(worker(1).wire->all<Submit>()[1].request.answer, ElementsAre(7));
  EXPECT_TRUE(std::holds_alternative<Submit>(worker(1).wire->sent.back()));  // after its KV
  EXPECT_THAT(worker(0).wire->all<Yield>(), SizeIs(3));
  EXPECT_THAT(worker(1).wire->all<Dissolve>(), IsEmpty());
  for (const RequestId id : {2, 3}) worker(0).say(Yielded{1, id});
  settle();
  EXPECT_EQ(membership_->formations(), 2);
  EXPECT_EQ(state(0), "drained");
  EXPECT_EQ(status()["moved_requests"].get<int>(), 3);
  EXPECT_EQ(status()["moved_pages"].get<int>(), 2);
  EXPECT_EQ(membership_->outstanding(0), 0);
}

TEST_F(MembershipTest, WhatHasNotBegunToBeSentNeedsNotToBeGivenUp) {
  make_formed(2, 1);
  worker(0).wire->unsent_bytes = 1 << 30;
  submit(1, 0);
  settle();
  membership_->obey({.kind = OrderKind::kDrain, .rank = 0});
  settle();
  EXPECT_THAT(submitted(0), IsEmpty());
  EXPECT_EQ(submitted(1).front(), 1u);
}

TEST_F(MembershipTest, WhatOfAMoveComesFromAnEarlierEpochIsNotListenedTo) {
  make_formed(3, 1);
  worker(0).yields = false;
  submit(1, 0);
  settle();
  membership_->obey({.kind = OrderKind::kDrain, .rank = 0});
  settle();
  worker(2).die();
  settle();
  ASSERT_EQ(membership_->formations(), 2);  // without the one that drains, too
  EXPECT_EQ(state(0), "drained");
  EXPECT_THAT(submitted(1), ElementsAre(1));
  worker(0).say(Page{1, 1, 0, true, bytes_of("late")});
  worker(0).say(Yielded{1, 1});
  settle();
  EXPECT_THAT(worker(1).wire->all<Page>(), IsEmpty());
  EXPECT_THAT(submitted(1), ElementsAre(1));
}

TEST_F(MembershipTest, OneThatIsAddedWhileItDrainsKeepsTheRest) {
  make_formed(2, 1);
  worker(0).yields = false;
  for (RequestId id = 1; id <= 4; ++id) submit(id, 0);
  settle();
  membership_->obey({.kind = OrderKind::kDrain, .rank = 0});
  settle();
  membership_->obey({.kind = OrderKind::kAdd, .rank = 0});
  for (const RequestId id : {1, 2}) worker(0).say(Yielded{1, id});
  settle();
  EXPECT_EQ(membership_->epoch(), 1u);
  EXPECT_EQ(membership_->outstanding(0), 2);
  EXPECT_THAT(submitted(1), ElementsAre(1, 2));
  EXPECT_TRUE(membership_->peers()[0]->available());
}

TEST_F(MembershipTest, ARequestThatIsCancelledOnItsWayEnds) {
  make_formed(2, 1);
  worker(0).yields = false;
  submit(1, 0);
  settle();
  membership_->obey({.kind = OrderKind::kDrain, .rank = 0});
  settle();
  membership_->cancel(1);
  settle();
  worker(0).say(Yielded{1, 1});
  settle();
  const std::vector<RequestEvent> told = news();
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_EQ(told[0].finish, FinishReason::kCancelled);
  EXPECT_THAT(submitted(1), IsEmpty());
  EXPECT_EQ(state(0), "drained");
}

// One that is left behind for its endpoint is no other either.
TEST_F(MembershipTest, ASlowAttentionWorkerDoesNotStandInForADrainedOne) {
  make(2, 1);
  settle();
  worker(1).introduces = false;
  worker(1).die();
  settle();
  worker(1).listens = true;
  pass(5'500);
  ASSERT_EQ(state(1), "slow");
  EXPECT_EQ(refusal_of(OrderKind::kDrain, 0).code(), ErrorCode::kUnavailable);
}

// ---- the end

TEST_F(MembershipTest, AfterItsCloseRequestsEndAsCancelled) {
  make_formed(1, 1);
  submit(1, 0);
  settle();
  membership_->close();
  submit(2, 0);
  std::vector<RequestEvent> told = news();
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_EQ(told[0].id, 2u);
  EXPECT_EQ(told[0].finish, FinishReason::kCancelled);
  membership_->end_all();
  told = news();
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_EQ(told[0].id, 1u);
  EXPECT_EQ(told[0].finish, FinishReason::kCancelled);
  EXPECT_TRUE(told[0].status.is_ok());
  membership_->end_all();
  EXPECT_THAT(news(), IsEmpty());
}

}  // namespace
}  // namespace tandem
