// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/sealed/sealed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "tests/transport/conformance.h"
#include "tests/transport/worker.h"
#include "transport/inproc/inproc.h"

namespace tandem {
namespace {

using testing::HasSubstr;

SecretKey share_of(PeerRank rank, std::uint64_t seed = 0) {
  SecretKey share{};
  share[0] = std::byte(rank);
  share[1] = std::byte(seed);
  return share;
}

SecretKey key(PeerRank from, PeerRank to, std::uint64_t session = 7) {
  return link_key(share_of(from), share_of(to), {.from = from, .to = to, .session = session});
}

void set_all_keys(SealedTransport& transport) {
  for (PeerRank peer = 0; peer < transport.peers(); ++peer)
    transport.set_keys(peer, key(transport.rank(), peer), key(peer, transport.rank()));
}

class SealedNetwork {
 public:
  explicit SealedNetwork(std::int32_t peers) : network_(peers) {}
  std::unique_ptr<Transport> endpoint(PeerRank rank) {
    auto sealed = std::make_unique<SealedTransport>(network_.endpoint(rank));
    set_all_keys(*sealed);
    return sealed;
  }

 private:
  InprocNetwork network_;
};

INSTANTIATE_TYPED_TEST_SUITE_P(Sealed, TransportConformance, SealedNetwork);

// Rank 0 seals; what it sends lies open before somebody on the way, who says to rank 1 what he likes.
class SealedWire : public testing::Test {
 protected:
  SealedWire() : near_(2), far_(2), sender_(wrap(near_, 0)), tap_in_(near_.endpoint(1)), tap_out_(far_.endpoint(0)) {
    auto sealed = std::make_unique<SealedTransport>(far_.endpoint(1));
    set_all_keys(*sealed);
    sealed_ = sealed.get();
    receiver_ = std::make_unique<TestWorker>(std::move(sealed));
  }
  static std::unique_ptr<Transport> wrap(InprocNetwork& network, PeerRank rank) {
    auto sealed = std::make_unique<SealedTransport>(network.endpoint(rank));
    set_all_keys(*sealed);
    return sealed;
  }
  // What passes by when this is sent.
  std::string on_the_wire(std::string_view text) {
    EXPECT_TRUE(tap_in_.receive(0, 0));
    EXPECT_TRUE(sender_.send(1, 0, text));
    const std::vector<TransportEvent> events = tap_in_.events(1);
    sender_.events(1);
    return events.empty() ? "" : tap_in_.text(0, events[0].bytes);
  }
  // What the receiver makes of these bytes: the text, or why they are refused.
  std::string say(const std::string& bytes) {
    EXPECT_TRUE(receiver_->receive(0, 0));
    EXPECT_TRUE(tap_out_.send(1, 0, bytes));
    const std::vector<TransportEvent> events = receiver_->events(1);
    tap_out_.events(1);
    if (events.size() != 1) return "nothing came";
    if (events[0].kind == TransportEvent::Kind::kReceived) return receiver_->text(0, events[0].bytes);
    EXPECT_EQ(events[0], truncated(0, 0, 0));
    return sealed_->last_refusal();
  }

  InprocNetwork near_, far_;
  TestWorker sender_, tap_in_, tap_out_;
  SealedTransport* sealed_ = nullptr;
  std::unique_ptr<TestWorker> receiver_;
};

TEST_F(SealedWire, WhatIsSealedIsReadByWhoItIsForAndNobodyElse) {
  const std::string wire = on_the_wire("the answer is forty-two");
  EXPECT_EQ(wire.size(), 23 + kSealBytes);
  EXPECT_THAT(wire, testing::Not(HasSubstr("forty")));
  EXPECT_EQ(say(wire), "the answer is forty-two");
  EXPECT_EQ(sealed_->refused(), 0);
}

TEST_F(SealedWire, AReplayedFrameIsRefusedAndTheNextOneTaken) {
  const std::string first = on_the_wire("one"), second = on_the_wire("two");
  EXPECT_EQ(say(first), "one");
  EXPECT_EQ(say(first), "sealed frame: a replay: number 1, 1 has come");
  EXPECT_EQ(say(second), "two");
  EXPECT_EQ(say(first), "sealed frame: a replay: number 1, 2 has come");
  EXPECT_EQ(sealed_->refused(), 2);
  EXPECT_EQ(say(on_the_wire("three")), "three");
}

TEST_F(SealedWire, AnyChangedByteIsNoticed) {
  const std::string wire = on_the_wire("some rows");
  for (std::size_t i = 0; i < wire.size(); ++i) {
    std::string changed = wire;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    EXPECT_THAT(say(changed), HasSubstr("sealed frame:")) << "byte " << i;
  }
  for (std::size_t bytes = 0; bytes < wire.size(); ++bytes)
    EXPECT_THAT(say(wire.substr(0, bytes)), HasSubstr("sealed frame:")) << bytes << " bytes";
  EXPECT_THAT(say(wire + "x"), HasSubstr("is not what the peer has sealed"));
  EXPECT_EQ(say(wire), "some rows");  // nothing of that has moved the counter
}

TEST_F(SealedWire, WhatSomebodyElseHasSealedIsRefused) {
  EXPECT_THAT(say("a frame as anybody would write it, without a seal"), HasSubstr("is not what the peer has sealed"));
  InprocNetwork network(2);
  for (const SecretKey& other :
       {key(1, 0), key(0, 1, 8), link_key(share_of(0, 1), share_of(1), {0, 1, 7}), SecretKey{}}) {
    FrameCipher cipher(FrameCipher::Side::kSeals, other);
    const std::string text = "hello";
    std::string sealed(text.size() + kSealBytes, '\0');
    ASSERT_TRUE(cipher.seal(std::as_bytes(std::span(text)), std::as_writable_bytes(std::span(sealed))));
    EXPECT_THAT(say(sealed), HasSubstr("is not what the peer has sealed"));
  }
  EXPECT_EQ(say(on_the_wire("hello")), "hello");
}

TEST(Sealed, APeerWithoutKeysIsNotSpokenTo) {
  InprocNetwork network(2);
  TestWorker worker(std::make_unique<SealedTransport>(network.endpoint(0)));
  EXPECT_EQ(worker.send(1, 0, "x").error().message(), "peer 1 has no keys");
  EXPECT_EQ(worker.receive(1, 0).error().code(), ErrorCode::kUnavailable);
}

TEST(Sealed, MessagesHaveRoomForTheSeal) {
  InprocNetwork network(2, {.message_bytes_max = 100});
  auto sealed = std::make_unique<SealedTransport>(network.endpoint(0));
  set_all_keys(*sealed);
  EXPECT_EQ(sealed->capabilities().message_bytes_max, 100 - kSealBytes);
  TestWorker worker(std::move(sealed));
  EXPECT_TRUE(worker.send(1, 0, std::string(100 - kSealBytes, 'x')));
  EXPECT_THAT(worker.send(1, 1, std::string(101 - kSealBytes, 'x')).error().message(), HasSubstr("limit is 76"));
}

}  // namespace
}  // namespace tandem
