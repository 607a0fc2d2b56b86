// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/request_parcel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/base/error_of.h"

namespace tandem {
namespace {

using testing::HasSubstr;

class Constraint final : public TokenConstraint {
 public:
  explicit Constraint(bool sendable) : sendable_(sendable) {}
  Status allowed(std::span<const std::int32_t>, std::span<std::uint32_t>) override { return Status::ok(); }
  Status commit(std::int32_t) override { return Status::ok(); }
  bool complete() const override { return false; }
  std::optional<ConstraintRecipe> recipe() const override {
    if (!sendable_) return std::nullopt;
    return ConstraintRecipe{.kind = 1, .start = 2, .source = "a*"};
  }

 private:
  const bool sendable_;
};

std::shared_ptr<EmbeddingRows> some_rows(std::uint8_t name, std::int64_t count, std::int64_t hidden) {
  auto rows = std::make_shared<EmbeddingRows>();
  rows->hidden = hidden;
  rows->digest[0] = name;
  for (std::int64_t i = 0; i < count * hidden; ++i)
    rows->values.push_back(static_cast<float>(i % 1000) + static_cast<float>(name) / 8);
  return rows;
}

// Two pictures, the first in two places.
Request some_request() {
  const auto one = some_rows(1, 5, 4), two = some_rows(2, 3, 4);
  Request request;
  request.id = 7;
  request.prompt.assign(20, 1);
  request.embedded = {{1, 2, 0, one}, {5, 3, 0, two}, {9, 3, 2, one}};
  return request;
}

// What the other end gets, as bytes have it.
std::vector<ControlMessage> messages_of(Request request) {
  std::vector<ControlMessage> messages;
  for (Parcel parcel(std::move(request)); !parcel.done();)
    messages.push_back(parse_control(to_bytes(parcel.next())).value());
  return messages;
}

Request read(ParcelReader& reader, std::vector<ControlMessage> messages) {
  for (ControlMessage& message : messages) {
    if (auto* submit = std::get_if<Submit>(&message)) return reader.take(std::move(*submit));
    reader.take(std::get<Rows>(std::move(message)));
  }
  ADD_FAILURE() << "no request";
  return {};
}

TEST(Parcel, RowsArriveWhereTheyWereAndEachContentOnce) {
  const Request sent = some_request();
  const std::vector<ControlMessage> messages = messages_of(sent);
  EXPECT_EQ(messages.size(), 3u);
  ParcelReader reader;
  for (int again = 0; again < 2; ++again) {  // nothing is left of the one before
    const Request found = read(reader, messages);
    EXPECT_EQ(found.id, 7u);
    ASSERT_EQ(found.embedded.size(), sent.embedded.size());
    for (std::size_t i = 0; i < sent.embedded.size(); ++i) {
      const EmbeddedSpan &a = sent.embedded[i], &b = found.embedded[i];
      EXPECT_EQ(std::tie(a.position, a.count, a.first_row), std::tie(b.position, b.count, b.first_row));
      EXPECT_EQ(a.rows->values, b.rows->values);
      EXPECT_EQ(a.rows->digest, b.rows->digest);
      EXPECT_EQ(a.rows->hidden, b.rows->hidden);
    }
    EXPECT_EQ(found.embedded[0].rows, found.embedded[2].rows);
  }
}

TEST(Parcel, LongRowsTravelInPieces) {
  const std::int64_t hidden = 1000, count = 2500;  // 10 MB
  Request sent;
  sent.prompt = {1, 2};
  sent.embedded = {{0, 1, count - 1, some_rows(3, count, hidden)}};
  const std::vector<ControlMessage> messages = messages_of(sent);
  ASSERT_EQ(messages.size(), 4u);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto& piece = std::get<Rows>(messages[i]);
    EXPECT_EQ(piece.begins, i == 0);
    EXPECT_LE(std::ssize(piece.values) * 4, kRowsPieceBytes);
  }
  ParcelReader reader;
  EXPECT_EQ(read(reader, messages).embedded[0].rows->values, sent.embedded[0].rows->values);
}

TEST(Parcel, AConstraintGoesAsWhatItWasMadeFrom) {
  Request request;
  request.prompt = {1};
  request.constraint = std::make_shared<Constraint>(true);
  EXPECT_TRUE(check_sendable(request));
  const std::vector<ControlMessage> messages = messages_of(request);
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(std::get<Submit>(messages[0]).constraint, request.constraint->recipe());
}

TEST(Parcel, SaysWhatCannotBeSent) {
  EXPECT_TRUE(check_sendable(some_request()));
  EXPECT_TRUE(check_sendable(some_request(), 8 * 4 * 4));  // a content counts once
  Request request = some_request();
  EXPECT_EQ(check_sendable(request, 8 * 4 * 4 - 1).error().message(),
            "the prompt's pictures are 1 MiB of rows, limit is 0 MiB on their way to an attention worker");
  request.embedded[1].rows = some_rows(2, 0, 4);
  EXPECT_EQ(check_sendable(request).error().message(), "the 3 embedded rows from position 5 on are no whole rows");
  request.embedded[1].rows.reset();
  EXPECT_FALSE(check_sendable(request));
  request = some_request();
  request.constraint = std::make_shared<Constraint>(false);
  EXPECT_EQ(check_sendable(request).error().code(), ErrorCode::kUnsupported);
}

TEST(Parcel, ReaderRefusesWhatDoesNotFitTogether) {
  const Rows good{.begins = true, .digest = {}, .hidden = 2, .values = {1, 2, 3, 4}};
  const auto refusal = [&](auto&& change, std::vector<std::uint32_t> contents = {0}, std::size_t spans = 1) {
    return error_of([&] {
             ParcelReader reader(32);
             reader.take(Rows(good));
             Rows next = good;
             next.begins = false;
             change(next);
             reader.take(std::move(next));
             Submit submit;
             submit.request.embedded.resize(spans);
             submit.contents = std::move(contents);
             (void)reader.take(std::move(submit));
           })
        .message();
  };
  EXPECT_THAT(refusal([](Rows& r) { r.values.pop_back(); }), HasSubstr("3 values is no rows of 2"));
  EXPECT_THAT(refusal([](Rows& r) { r.values.clear(); }), HasSubstr("0 values is no rows of 2"));
  EXPECT_THAT(refusal([](Rows& r) { r.hidden = 0; }), HasSubstr("no rows of 0"));
  EXPECT_THAT(refusal([](Rows& r) { r.hidden = -2; }), HasSubstr("no rows of -2"));
  EXPECT_THAT(refusal([](Rows& r) { r.hidden = 1; }), HasSubstr("another content"));
  EXPECT_THAT(refusal([](Rows& r) { r.digest[0] = 1; }), HasSubstr("another content"));
  EXPECT_THAT(refusal([](Rows& r) { r.values.resize(6); }), HasSubstr("40 bytes of rows come for one request, limit"));
  EXPECT_THAT(refusal([](Rows&) {}, {1}), HasSubstr("content 1, 1 have come"));
  EXPECT_THAT(refusal([](Rows&) {}, {0, 0}), HasSubstr("2 contents are named for 1 spans"));
  EXPECT_THAT(refusal([](Rows& r) { r.begins = true; }, {2}), HasSubstr("content 2, 2 have come"));
  ParcelReader reader;
  reader.take(Rows(good));
  reader.clear();
  Rows next = good;
  next.begins = false;
  EXPECT_THAT(error_of([&] { reader.take(next); }).message(), HasSubstr("have not begun"));
}

TEST(PageOrder, TakesPiecesOfOnePageAfterTheOtherWithinTheLimit) {
  PageOrder order;
  const auto piece = [](std::uint32_t index, bool last, std::size_t bytes = 1) {
    return Page{.id = 9, .index = index, .last = last, .bytes = std::vector<std::byte>(bytes)};
  };
  order.take(piece(0, false));
  order.take(piece(0, true));
  order.take(piece(1, false));
  EXPECT_EQ(error_of([&] { order.take(piece(2, true)); }).message(),
            "a piece of page 2 of request 9 comes, page 1 is not whole");
  order.take(piece(1, true));
  EXPECT_EQ(error_of([&] { order.take(piece(1, true)); }).message(),
            "a piece of page 1 of request 9 comes, page 2 is next");
  const Page large = piece(2, false, std::size_t{256} << 20);
  for (int i = 0; i < 3; ++i) order.take(large);
  EXPECT_EQ(error_of([&] { order.take(large); }).message(),
            "pages of request 9 have 1073741828 bytes, limit is 1073741824");
}

}  // namespace
}  // namespace tandem
