// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Replicas of FFN workers as a front sees them: one has the seat, the others stand by, also for one that is slow.
#include <gmock/gmock.h>

#include "tests/roles/membership_fixture.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

using ReplicasTest = MembershipTest;

TEST_F(ReplicasTest, AReplicaStandsByAndIsNotAskedToMeet) {
  make_formed(1, 2, 1);
  EXPECT_EQ(last_epoch(3), 0u);
  EXPECT_THAT(worker(0).wire->all<Prepare>().back().present, ElementsAre(1, 1, 1));
  EXPECT_EQ(state(1), "running");
  EXPECT_EQ(state(3), "standby");
  EXPECT_EQ(status()["workers"][3]["replica_of"].get<std::int32_t>(), 1);
  EXPECT_EQ(status()["workers"][3]["name"].get<std::string>(), "F0r1");
}

TEST_F(ReplicasTest, AReplicaTakesTheSeatOfOneThatIsLostAtOnce) {
  make_formed(1, 2, 1);
  submit(1, 0);
  settle();
  worker(1).die();
  settle();  // and no time passes
  EXPECT_EQ(membership_->formations(), 2);
  EXPECT_EQ(state(3), "running");
  // It is introduced to the attention worker in that seat, and the worker to it.
  const Connect to_attention = worker(0).wire->all<Connect>().back(),
                to_replica = worker(3).wire->all<Connect>().back();
  ASSERT_THAT(to_attention.introductions, SizeIs(3));
  EXPECT_EQ(to_attention.introductions[1].hello, bytes_of("3 to 0"));
  EXPECT_EQ(to_attention.introductions[2].hello, bytes_of("2 to 0"));
  EXPECT_EQ(to_replica.introductions[0].hello, bytes_of("0 to 1"));
  EXPECT_THAT(submitted(0), ElementsAre(1, 1));
}

TEST_F(ReplicasTest, OneThatComesBackToATakenSeatDisturbsNobody) {
  make_formed(1, 2, 1);
  worker(1).die();
  settle();
  worker(1).listens = true;
  pass(300);
  EXPECT_EQ(membership_->epoch(), 2u);
  EXPECT_EQ(state(1), "standby");
  EXPECT_EQ(state(3), "running");
  worker(3).die();  // now it stands in for its replica
  settle();
  EXPECT_EQ(membership_->formations(), 3);
  EXPECT_EQ(state(1), "running");
}

TEST_F(ReplicasTest, AReplicaThatIsLostWhileItStandsByDisturbsNobody) {
  make_formed(1, 2, 1);
  worker(3).die();
  pass(1'000);
  EXPECT_EQ(membership_->epoch(), 1u);
  EXPECT_THAT(worker(0).wire->all<Dissolve>(), IsEmpty());
  EXPECT_THAT(membership_->standing().missing, IsEmpty());
}

TEST_F(ReplicasTest, AReplicaIsOfOneSeatAlone) {
  make_formed(1, 2, 1);
  worker(2).die();
  settle();
  EXPECT_EQ(membership_->formations(), 1);
  EXPECT_EQ(status()["phase"].get<std::string>(), "apart");
  EXPECT_EQ(membership_->standing().missing, "F1 (rank 2, 10.0.0.1:7002) is missing: it closed the connection");
}

TEST_F(ReplicasTest, WhoeverCouldHaveTheSeatIsMissing) {
  make_formed(1, 1, 1);
  worker(1).die();
  worker(2).die();
  settle();
  EXPECT_EQ(membership_->standing().missing,
            "F0 (rank 1, 10.0.0.1:7001) is missing: it closed the connection; "
            "F0r1 (rank 2, 10.0.0.1:7002) is missing: it closed the connection");
}

TEST_F(ReplicasTest, TheFirstTimeAReplicaWillDoAfterAWhile) {
  make(1, 1, 1);
  worker(1).listens = false;
  pass(5'000);  // whose place it is may still come
  EXPECT_EQ(membership_->formations(), 0);
  pass(200);
  EXPECT_EQ(membership_->formations(), 1);
  EXPECT_EQ(state(2), "running");
}

// There are two: one is lost while all meet.
TEST_F(ReplicasTest, TheNextReplicaTakesTheSeat) {
  make_formed(1, 1, 2);
  worker(2).gets_ready = false;
  worker(1).die();
  settle();
  ASSERT_EQ(state(2), "joining");
  worker(2).die();
  settle();
  EXPECT_EQ(state(3), "running");
  EXPECT_EQ(membership_->formations(), 2);
}

TEST_F(ReplicasTest, AnFfnWorkerWithoutEndpointIsLeftBehindForItsReplica) {
  make_formed(1, 1, 1);
  worker(1).die();
  settle();
  worker(1).introduces = false;
  worker(1).listens = true;
  pass(300);
  worker(2).die();
  settle();
  ASSERT_EQ(state(1), "joining");
  worker(2).listens = true;
  pass(5'500);
  EXPECT_EQ(state(1), "slow");
  EXPECT_EQ(state(2), "running");
}

// Seconds in which the workers report steps; one FFN worker computes so many milliseconds a step, the other two.
class SlowWorkersTest : public MembershipTest {
 protected:
  void work(int seconds, std::int64_t slow_ms) {
    for (int i = 0; i < seconds; ++i) {
      total_ += 100;
      slow_busy_ += 100 * slow_ms * kMillisecond;
      for (std::int32_t rank = 0; rank < 4; ++rank) {
        Report report{.steps = total_, .rows = 8 * total_, .busy_ns = 2 * total_ * kMillisecond};
        if (rank == 1) report.busy_ns = slow_busy_;
        if (rank != 1) report.wait_ns = 9 * total_ * kMillisecond;
        worker(rank).say(report);
      }
      for (int t = 0; t < 4; ++t) {
        clock_.advance_to(clock_.now() + 500 * kMillisecond);
        settle();
      }
    }
  }
  std::int64_t total_ = 0, slow_busy_ = 0;
};

TEST_F(SlowWorkersTest, AreNamedAndStayUnlessToldOtherwise) {
  make_formed(1, 2, 1);
  work(3, 2);
  EXPECT_EQ(status()["slow"].get<std::string>(), "");
  work(3, 20);
  EXPECT_EQ(status()["slow"].get<std::string>(),
            "F0 (rank 1, 10.0.0.1:7001) computes 20.00 ms a step, 2.00 ms is usual, and waits 0.00 ms");
  EXPECT_EQ(membership_->epoch(), 1u);
  work(2, 2);
  EXPECT_EQ(status()["slow"].get<std::string>(), "");
}

TEST_F(SlowWorkersTest, GiveTheirSeatToAReplicaWhereThatIsThePolicy) {
  deployment_.link.replace_slow = true;
  make_formed(1, 2, 1);
  work(2, 2);
  work(4, 20);
  EXPECT_EQ(state(1), "aside");
  EXPECT_EQ(state(3), "running");
  EXPECT_EQ(membership_->formations(), 2);
  membership_->obey({.kind = OrderKind::kAdd, .rank = 1});
  settle();
  EXPECT_EQ(state(1), "standby");
}

TEST_F(SlowWorkersTest, AreBetterThanNobody) {
  deployment_.link.replace_slow = true;
  make_formed(1, 2, 1);
  work(2, 2);
  work(4, 20);
  worker(3).die();
  settle();
  EXPECT_EQ(state(1), "running");
  EXPECT_EQ(membership_->formations(), 3);
  worker(3).listens = true;
  pass(300);
  worker(2).die();  // at the next meeting they come last again
  worker(2).listens = true;
  pass(300);
  EXPECT_EQ(state(3), "running");
  EXPECT_EQ(state(1), "aside");
}

TEST_F(SlowWorkersTest, StayWhereNobodyStandsIn) {
  deployment_.link.replace_slow = true;
  make(1, 2, 1);
  worker(3).listens = false;
  settle();
  work(2, 2);
  work(4, 20);
  EXPECT_EQ(state(1), "running");
  EXPECT_NE(status()["slow"].get<std::string>(), "");
}

TEST_F(ReplicasTest, AnFfnWorkerIsDrainedWhereAReplicaStandsBy) {
  make_formed(1, 2, 1);
  membership_->obey({.kind = OrderKind::kDrain, .rank = 1});
  settle();
  EXPECT_EQ(membership_->formations(), 2);
  EXPECT_EQ(state(1), "drained");
  EXPECT_EQ(state(3), "running");
  EXPECT_EQ(refusal_of(OrderKind::kDrain, 3).code(), ErrorCode::kUnavailable);
  membership_->obey({.kind = OrderKind::kAdd, .rank = 1});
  settle();
  EXPECT_EQ(state(1), "standby");  // nobody has to wait for that
  EXPECT_EQ(membership_->epoch(), 2u);
  membership_->obey({.kind = OrderKind::kDrain, .rank = 1});  // nor for this
  settle();
  EXPECT_EQ(membership_->epoch(), 2u);
}

}  // namespace
}  // namespace tandem
