// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Both ends of a session, with the wire between them in the test's hands.
#include "trust/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/base/error_of.h"
#include "tests/checkpoint/temporary_folder.h"
#include "trust/certificate_maker.h"
#include "trust/private_file.h"

namespace tandem {
namespace {

using testing::HasSubstr;

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

struct End {
  std::unique_ptr<TlsSession> session;
  std::vector<std::byte> out, plain;
  Status status;

  void take(std::span<const std::byte> wire) {
    if (!status) return;
    status = session->receive(wire, plain);
    session->take_out(out);
  }
  std::string text() const { return {reinterpret_cast<const char*>(plain.data()), plain.size()}; }
  std::string why() const { return status ? "" : status.error().message(); }
};

struct Ends {
  End front, worker;

  // Carries bytes to and fro until nobody says any more, so many at a time.
  void talk(std::size_t piece = 1 << 20) {
    front.session->take_out(front.out);
    while (!front.out.empty() || !worker.out.empty()) {
      carry(front, worker, piece);
      carry(worker, front, piece);
    }
  }
  static void carry(End& from, End& to, std::size_t piece) {
    std::vector<std::byte> wire;
    wire.swap(from.out);
    for (std::size_t at = 0; at < wire.size(); at += piece)
      to.take(std::span(wire).subspan(at, std::min(piece, wire.size() - at)));
  }
  void say(End& from, std::string_view text) { from.session->send(bytes_of(text), from.out); }
};

Ends between(const Credentials& front, const Credentials& worker, const std::string& host = "127.0.0.1") {
  return {{.session = front.begin(TlsSide::kFront, host), .out = {}, .plain = {}, .status = {}},
          {.session = worker.begin(TlsSide::kWorker, ""), .out = {}, .plain = {}, .status = {}}};
}

std::shared_ptr<const Credentials> some_secret() {
  return Credentials::of_secret(parse_secret(make_secret_text(), "s"));
}

class CertificateFolder {
 public:
  CertificateFolder() : authority_(make_authority("test", 1)) {
    folder_.write("authority.pem", authority_.certificate);
  }

  // key_of: another host's, for a key that does not fit.
  CertificateFiles files(const std::string& host, std::int32_t days = 1) {
    const std::string stem = folder_.path() + "/" + std::to_string(++count_);
    const Pem pem = make_certificate(authority_, host, days);
    write_private_file(stem + ".pem", pem.certificate);
    write_private_file(stem + ".key", pem.key);
    return {stem + ".pem", stem + ".key", folder_.path() + "/authority.pem"};
  }
  std::shared_ptr<const Credentials> credentials(const std::string& host, std::int32_t days = 1) {
    return Credentials::of_certificates(files(host, days));
  }

 private:
  const TemporaryFolder folder_;
  const Pem authority_;
  int count_ = 0;
};

void expect_conversation(Ends ends) {
  ends.talk();
  ASSERT_EQ(ends.front.why() + ends.worker.why(), "");
  ASSERT_TRUE(ends.front.session->established() && ends.worker.session->established());
  const std::string long_text(100'000, 'x');
  ends.say(ends.front, "good morning");
  ends.say(ends.worker, long_text);
  ends.talk(777);
  EXPECT_EQ(ends.worker.text(), "good morning");
  EXPECT_EQ(ends.front.text(), long_text);
}

TEST(Credentials, WhoHasTheSecretIsHeard) {
  const auto secret = some_secret();
  expect_conversation(between(*secret, *secret));
}

TEST(Credentials, WhoHasACertificateIsHeard) {
  CertificateFolder folder;
  const auto front = folder.credentials("front.example");
  expect_conversation(between(*front, *folder.credentials("127.0.0.1")));
  expect_conversation(between(*front, *folder.credentials("::1"), "[::1]"));
  expect_conversation(between(*front, *folder.credentials("worker-3.example"), "worker-3.example"));
}

TEST(Credentials, BytesMayComeOneByOne) {
  const auto secret = some_secret();
  Ends ends = between(*secret, *secret);
  ends.talk(1);
  ASSERT_TRUE(ends.front.session->established() && ends.worker.session->established());
}

TEST(Credentials, NothingIsReadableOnTheWire) {
  const auto secret = some_secret();
  Ends ends = between(*secret, *secret);
  ends.talk();
  ends.say(ends.front, "a prompt that is nobody's business");
  const std::string wire(reinterpret_cast<const char*>(ends.front.out.data()), ends.front.out.size());
  EXPECT_THAT(wire, testing::Not(HasSubstr("prompt")));
  ends.front.out[ends.front.out.size() / 2] ^= std::byte{1};
  ends.talk();
  EXPECT_EQ(ends.worker.text(), "");
  EXPECT_THAT(ends.worker.why(), HasSubstr("its TLS is refused"));
}

TEST(Credentials, ARecordedSessionSaysNothingAgain) {
  const auto secret = some_secret();
  Ends ends = between(*secret, *secret);
  std::vector<std::byte> recorded;
  ends.front.session->take_out(ends.front.out);
  recorded = ends.front.out;
  ends.talk();
  ends.say(ends.front, "submit");
  recorded.insert(recorded.end(), ends.front.out.begin(), ends.front.out.end());
  End again{.session = secret->begin(TlsSide::kWorker, ""), .out = {}, .plain = {}, .status = {}};
  again.take(recorded);
  EXPECT_FALSE(again.session->established());
  EXPECT_EQ(again.text(), "");
}

struct Strangers {
  const char* name;
  std::function<Ends(CertificateFolder&)> meet;
  const char* worker_says;  // why it refuses, or is refused
  const char* front_says;
};

class CredentialStrangers : public testing::TestWithParam<Strangers> {};

TEST_P(CredentialStrangers, AreRefusedOnBothSidesWithTheReason) {
  CertificateFolder folder;
  Ends ends = GetParam().meet(folder);
  ends.talk();
  EXPECT_FALSE(ends.worker.session->established());
  EXPECT_THAT(ends.worker.why(), HasSubstr(GetParam().worker_says));
  EXPECT_THAT(ends.front.why(), HasSubstr(GetParam().front_says));
  EXPECT_EQ(ends.worker.status.error().code(), ErrorCode::kPermissionDenied);
  EXPECT_EQ(ends.front.status.error().code(), ErrorCode::kPermissionDenied);
  EXPECT_EQ(ends.worker.text() + ends.front.text(), "");
}

// Sessions refer to their credentials, which live here for as long as the tests.
const Credentials& kept(std::shared_ptr<const Credentials> credentials) {
  static std::vector<std::shared_ptr<const Credentials>> all;
  return *all.emplace_back(std::move(credentials));
}

INSTANTIATE_TEST_SUITE_P(
    All, CredentialStrangers,
    testing::Values(
        Strangers{"AnotherSecret", [](CertificateFolder&) { return between(kept(some_secret()), kept(some_secret())); },
                  "it has another secret: number ",
                  "it has refused the TLS handshake: handshake failure (its trust.secret"},
        Strangers{"ACertificateInsteadOfTheSecret",
                  [](CertificateFolder& f) { return between(kept(f.credentials("127.0.0.1")), kept(some_secret())); },
                  "it has not shown the secret of this deployment",
                  "it has refused the TLS handshake: handshake failure"},
        Strangers{"ASecretInsteadOfACertificate",
                  [](CertificateFolder& f) { return between(kept(some_secret()), kept(f.credentials("127.0.0.1"))); },
                  "it has refused the TLS handshake: ", "it has not shown the secret of this deployment"},
        Strangers{"AFrontOfAnotherAuthority",
                  [](CertificateFolder& f) {
                    CertificateFolder other;
                    CertificateFiles files = other.files("front.example");
                    files.authority = f.files("x").authority;  // it takes the worker for one of its own
                    return between(kept(Credentials::of_certificates(files)), kept(f.credentials("127.0.0.1")));
                  },
                  "its certificate is refused: unable to get local issuer certificate",
                  "it has refused the TLS handshake: unknown CA"},
        Strangers{"AWorkerOfAnotherAuthority",
                  [](CertificateFolder& f) {
                    CertificateFolder other;
                    return between(kept(f.credentials("front.example")), kept(other.credentials("127.0.0.1")));
                  },
                  "it has refused the TLS handshake: unknown CA",
                  "its certificate is refused: unable to get local issuer certificate"},
        Strangers{"AWorkerOnAnotherHost",
                  [](CertificateFolder& f) {
                    return between(kept(f.credentials("front.example")), kept(f.credentials("127.0.0.2")));
                  },
                  "it has refused the TLS handshake: ", "its certificate is refused: IP address mismatch"},
        Strangers{"AWorkerOfAnotherName",
                  [](CertificateFolder& f) {
                    return between(kept(f.credentials("front.example")), kept(f.credentials("b.example")), "a.example");
                  },
                  "it has refused the TLS handshake: ", "its certificate is refused: hostname mismatch"},
        Strangers{"AWorkerWhoseTimeIsOver",
                  [](CertificateFolder& f) {
                    return between(kept(f.credentials("front.example")), kept(f.credentials("127.0.0.1", -1)));
                  },
                  "it has refused the TLS handshake: certificate expired",
                  "its certificate is refused: certificate has expired"}),
    [](const auto& info) { return info.param.name; });

TEST(Credentials, WhoDoesNotSpeakTlsIsRefusedAtOnce) {
  const auto secret = some_secret();
  for (const std::string& said : {std::string("GET / HTTP/1.1\r\n"), std::string("TTTC"), std::string(100, '\0')}) {
    Ends ends = between(*secret, *secret);
    ends.worker.take(bytes_of(said));
    EXPECT_TRUE(ends.worker.session->spoken_to_plainly());
    EXPECT_THAT(ends.worker.why(), HasSubstr("it does not speak TLS"));
    ends.front.take(bytes_of(said));
    EXPECT_THAT(ends.front.why(), HasSubstr("it does not speak TLS"));
  }
}

TEST(Credentials, AHandshakeWithoutEndIsCutOff) {
  const auto secret = some_secret();
  Ends ends = between(*secret, *secret);
  // A handshake record of the largest size whose message never ends: 16 MiB are announced.
  std::vector<std::byte> record = bytes_of(std::string("\x16\x03\x01\x40\x00\x01\xff\xff\xff", 9));
  record.resize(5 + 0x4000, std::byte{0});
  for (int i = 0; i < 10 && ends.worker.status; ++i) ends.worker.take(record);
  EXPECT_FALSE(ends.worker.status);
  Ends slow = between(*secret, *secret);
  slow.front.session->take_out(slow.front.out);
  const std::vector<std::byte> hello = slow.front.out;
  slow.worker.take(std::span(hello).first(hello.size() - 1));
  EXPECT_TRUE(slow.worker.status);
  EXPECT_FALSE(slow.worker.session->established());
}

TEST(Credentials, FilesThatCannotBeUsedAreNamed) {
  CertificateFolder folder;
  const TemporaryFolder other;
  const CertificateFiles good = folder.files("a.example"), another = folder.files("b.example");
  const auto refusal = [&](auto change) {
    CertificateFiles files = good;
    change(files);
    return error_of([&] { Credentials::of_certificates(files); }).message();
  };
  EXPECT_THAT(refusal([&](auto& f) { f.key = another.key; }),
              HasSubstr(another.key + " is not the key of " + good.certificate));
  EXPECT_THAT(refusal([&](auto& f) { f.certificate = other.write("c", "none"); }), HasSubstr("is no certificate that"));
  EXPECT_THAT(refusal([&](auto& f) { f.authority = other.write("a", "none"); }), HasSubstr("is no authority's"));
  EXPECT_THAT(refusal([&](auto& f) { f.key = other.write("k", "none"); }), HasSubstr("/k"));
  EXPECT_THAT(refusal([&](auto& f) { f.certificate = "/no/such"; }), HasSubstr("/no/such"));
}

}  // namespace
}  // namespace tandem
