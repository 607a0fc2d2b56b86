// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Who is kept out of a deployment of real processes, and that nobody inside notices. That those inside have the tokens
// of one process is tests/roles/front_test.cpp.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <string>
#include <vector>

#include "base/format.h"
#include "roles/control_connection.h"
#include "roles/deployment_engine.h"
#include "tests/base/error_of.h"
#include "tests/roles/deployment_run.h"

namespace tandem {
namespace {

using testing::HasSubstr;

Deployment trusted(const std::string& kind, const TemporaryFolder& folder) {
  Deployment deployment = small_deployment("llama", 1, 1);
  give_trust(deployment, kind, folder.path());
  return deployment;
}

// What a front hears that has other trust than its workers.
Error refusal_of(const DeploymentRun& run, const DeploymentTrust& trust) {
  Deployment other = run.deployment();
  other.trust = trust;
  return error_of([&] { Front::connect(other, run.identity(), {}); });
}

void expect_an_answer(DeploymentRun& run) {
  const RequestId id = run.submit({.prompt = {1, 2, 3}, .new_tokens_max = 4});
  run.wait();
  EXPECT_EQ(run.answer(id).tokens.size(), 4u);
}

TEST(Trust, FrontsWithAnotherSecretOrNoneAreRefusedOnBothSides) {
  const TemporaryFolder folder, other_folder;
  DeploymentRun run(trusted("secret", folder));
  Deployment other = run.deployment();
  give_trust(other, "secret", other_folder.path());
  Error error = refusal_of(run, other.trust);
  EXPECT_EQ(error.code(), ErrorCode::kPermissionDenied);
  EXPECT_THAT(error.message(), HasSubstr("it has refused the TLS handshake: handshake failure (its trust.secret_file"));
  EXPECT_THAT(error.message(), testing::ContainsRegex("^(A0 .rank 0|F0 .rank 1), 127.0.0.1:"));
  error = refusal_of(run, {});
  EXPECT_EQ(error.code(), ErrorCode::kPermissionDenied);
  EXPECT_THAT(error.message(), HasSubstr("it does not speak TLS, which the trust of this deployment needs"));
  Deployment certified = run.deployment();
  give_trust(certified, "certificates", other_folder.path());
  certified.trust.secret_file.clear();
  EXPECT_THAT(refusal_of(run, certified.trust).message(), HasSubstr("it has refused the TLS handshake"));
  run.connect();
  expect_an_answer(run);
}

TEST(Trust, FrontsOfAnotherAuthorityAreRefused) {
  const TemporaryFolder folder, other_folder;
  DeploymentRun run(trusted("certificates", folder));
  Deployment other = run.deployment();
  give_trust(other, "certificates", other_folder.path());
  EXPECT_THAT(refusal_of(run, other.trust).message(),
              HasSubstr("its certificate is refused: unable to get local issuer"));
  other.trust.authority_file = run.deployment().trust.authority_file;  // it takes the worker, which does not take it
  EXPECT_THAT(refusal_of(run, other.trust).message(), HasSubstr("it has refused the TLS handshake: unknown CA"));
  run.connect();
  expect_an_answer(run);
}

TEST(Trust, AWorkerWithoutTrustIsRefusedByAFrontThatHasIt) {
  DeploymentRun run(small_deployment("llama", 1, 1));
  const TemporaryFolder folder;
  Deployment other = run.deployment();
  give_trust(other, "secret", folder.path());
  EXPECT_THAT(refusal_of(run, other.trust).message(), HasSubstr("it does not speak TLS"));
}

// A connection that says this and nothing more.
Descriptor visitor(std::int32_t port, std::string_view text) {
  std::string why;
  Descriptor socket = begin_connect("127.0.0.1", port, why);
  pollfd writable{socket.get(), POLLOUT, 0};
  EXPECT_EQ(poll(&writable, 1, 10'000), 1) << why;
  EXPECT_EQ(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  return socket;
}

std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Whether the worker ends it within its time.
bool is_cut_off(const Descriptor& socket) {
  pollfd waited{socket.get(), POLLIN, 0};
  for (char bytes[4096]; poll(&waited, 1, 10'000) == 1;)
    if (recv(socket.get(), bytes, sizeof bytes, 0) <= 0) return true;
  return false;
}

TEST(Trust, HostileVisitorsAreCutOffAndNobodyNotices) {
  const TemporaryFolder folder;
  Deployment deployment = trusted("secret", folder);
  deployment.link.lost_after_ms = 1000;
  deployment.link.encrypt = true;
  DeploymentRun run(std::move(deployment));
  run.connect();
  const RequestId id = run.submit({.prompt = {1, 2, 3}, .new_tokens_max = 200});
  run.wait_for_tokens(id, 2);

  std::vector<std::byte> hello;
  Credentials::of_secret(SecretKey{})->begin(TlsSide::kFront, "")->take_out(hello);
  std::vector<Descriptor> visitors;
  for (const std::int32_t rank : {0, 1}) {
    const std::int32_t port = (rank == 0 ? run.deployment().attention : run.deployment().ffn).front().port;
    for (const std::string& said :
         {std::string(), text_of(hello).substr(0, 40), text_of(hello), std::string(1000, '\x16'),
          std::string("GET / HTTP/1.1\r\n\r\n"), text_of(to_bytes(Prepare{})),
          // a control message, and a record of TLS, of the largest lengths that can be said
          text_of(to_bytes(Beat{})).substr(0, 8) + std::string(8, '\xff'), std::string("\x16\x03\x01\xff\xff", 5)})
      visitors.push_back(visitor(port, said));
    // A crowd would push out who has spoken and was not heard yet.
    run.wait_for_line(rank, "refused   a connection: it has another secret: number");
    for (int i = 0; i < 80; ++i) visitors.push_back(visitor(port, ""));  // more than are let in at a time
  }
  run.wait();
  EXPECT_EQ(run.answer(id).tokens.size(), 200u);
  for (const Descriptor& socket : visitors) EXPECT_TRUE(is_cut_off(socket));
  expect_an_answer(run);
  EXPECT_EQ(run.front().epoch(), 1u);  // nobody was lost meanwhile
}

// A front that restarts gets in while somebody keeps connecting.
TEST(Trust, AFrontFindsItsWayThroughACrowd) {
  const TemporaryFolder folder;
  DeploymentRun run(trusted("secret", folder));
  run.wait_for_line(0, "ready");
  run.wait_for_line(1, "ready");
  std::vector<Descriptor> crowd;
  crowd.reserve(200);
  for (int i = 0; i < 200; ++i) crowd.push_back(visitor(run.deployment().ffn[0].port, ""));
  run.connect();
  expect_an_answer(run);
}

}  // namespace
}  // namespace tandem
