// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/outbox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tandem {
namespace {

using testing::ElementsAre;

class OutboxTest : public testing::Test {
 protected:
  static Request with_rows(RequestId id) {
    auto rows = std::make_shared<EmbeddingRows>();
    rows->hidden = 1;
    rows->values = {1};
    Request request;
    request.id = id;
    request.prompt = {1};
    request.embedded = {{0, 1, 0, rows}};
    return request;
  }
  // What is posted while there is room for so many messages.
  std::vector<std::string> move(int room) {
    std::vector<std::string> posted;
    outbox_.move([&] { return room-- > 0; },
                 [&](const ControlMessage& message) {
                   if (std::holds_alternative<Rows>(message)) posted.emplace_back("rows");
                   if (const auto* submit = std::get_if<Submit>(&message))
                     posted.push_back("submit " + std::to_string(submit->request.id));
                   if (const auto* cancel = std::get_if<Cancel>(&message))
                     posted.push_back("cancel " + std::to_string(cancel->id));
                   if (const auto* yield = std::get_if<Yield>(&message))
                     posted.push_back("yield " + std::to_string(yield->id));
                   if (const auto* page = std::get_if<Page>(&message))
                     posted.push_back("page of " + std::to_string(page->bytes.size()));
                 });
    return posted;
  }

  Outbox outbox_;
};

TEST_F(OutboxTest, KeepsOrderAndStopsWhereThereIsNoRoom) {
  outbox_.add(with_rows(1));
  outbox_.add(Cancel{1});
  outbox_.add(with_rows(2));
  EXPECT_THAT(move(0), ElementsAre());
  EXPECT_THAT(move(1), ElementsAre("rows"));
  EXPECT_THAT(move(3), ElementsAre("submit 1", "cancel 1", "rows"));
  EXPECT_FALSE(outbox_.empty());
  EXPECT_THAT(move(10), ElementsAre("submit 2"));
  EXPECT_TRUE(outbox_.empty());
}

TEST_F(OutboxTest, KvGoesAheadOfItsRequest) {
  outbox_.add(Page{.id = 1, .bytes = std::vector<std::byte>(7)});
  outbox_.add(with_rows(1));
  outbox_.add(Yield{1});
  EXPECT_THAT(move(2), ElementsAre("page of 7", "rows"));
  EXPECT_THAT(move(9), ElementsAre("submit 1", "yield 1"));
  EXPECT_TRUE(outbox_.empty());
}

TEST_F(OutboxTest, KvIsTakenBackWithItsRequest) {
  outbox_.add(Page{.id = 2, .bytes = std::vector<std::byte>(7)});
  outbox_.add(Page{.id = 1, .bytes = std::vector<std::byte>(8)});
  EXPECT_FALSE(outbox_.withdraw(1));  // it is still to come
  EXPECT_TRUE(outbox_.has_pages());
  EXPECT_THAT(move(9), ElementsAre("page of 7"));
  EXPECT_FALSE(outbox_.has_pages());
  outbox_.add(Page{.id = 3, .bytes = {}});
  outbox_.clear();
  EXPECT_FALSE(outbox_.has_pages());
}

TEST_F(OutboxTest, WhatHasNotBegunCanBeTakenBack) {
  for (RequestId id = 1; id <= 3; ++id) outbox_.add(with_rows(id));
  move(1);
  EXPECT_FALSE(outbox_.withdraw(1));
  EXPECT_TRUE(outbox_.withdraw(2));
  EXPECT_FALSE(outbox_.withdraw(2));
  EXPECT_THAT(move(10), ElementsAre("submit 1", "rows", "submit 3"));
  EXPECT_FALSE(outbox_.withdraw(3));
}

TEST_F(OutboxTest, ForgetsWhatNobodyWaitsFor) {
  outbox_.add(with_rows(1));
  move(1);
  outbox_.clear();
  outbox_.add(with_rows(2));
  EXPECT_THAT(move(10), ElementsAre("rows", "submit 2"));
}

}  // namespace
}  // namespace tandem
