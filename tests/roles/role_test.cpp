// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/role.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "base/format.h"
#include "roles/control_connection.h"
#include "tests/base/error_of.h"
#include "tests/roles/deployment_run.h"

namespace tandem {
namespace {

using testing::HasSubstr;

TEST(Role, ARankMustBeOfItsKind) {
  const Deployment deployment = small_deployment("llama", 2, 1);
  const auto message = [&](RoleKind kind, std::int32_t rank) {
    return error_of([&] { run_role(kind, deployment, {.rank = rank}); }).message();
  };
  EXPECT_EQ(message(RoleKind::kFfn, 1), "rank is 1, FFN workers of deployment test have 2 … 2 (--rank)");
  EXPECT_EQ(message(RoleKind::kAttention, 2), "rank is 2, attention workers of deployment test have 0 … 1 (--rank)");
  EXPECT_EQ(message(RoleKind::kFfn, 7), "rank is 7, FFN workers of deployment test have 2 … 2 (--rank)");
}

TEST(Role, APortThatIsTakenIsNamed) {
  const Deployment deployment = small_deployment("llama", 1, 1);
  const Descriptor taken = listen_on("127.0.0.1", deployment.attention[0].port);
  EXPECT_THAT(error_of([&] { run_role(RoleKind::kAttention, deployment, {.rank = 0}); }).message(),
              HasSubstr(format("cannot listen on 127.0.0.1:{}", deployment.attention[0].port)));
}

// What a stranger hears: the last message before the end of the connection. It says one thing more when it has heard
// the worker's addresses.
ControlMessage last_word(std::int32_t port, const std::vector<ControlMessage>& said, const std::string& raw = "",
                         std::optional<ControlMessage> to_addresses = {}) {
  std::string why;
  Descriptor socket = begin_connect("127.0.0.1", port, why);
  pollfd writable{socket.get(), POLLOUT, 0};
  poll(&writable, 1, 10'000);
  EXPECT_EQ(write(socket.get(), raw.data(), raw.size()), static_cast<ssize_t>(raw.size()));
  ControlConnection connection(std::move(socket));
  for (const ControlMessage& message : said) connection.post(message);
  std::vector<ControlMessage> came;
  while (connection.move(came)) {
    const auto is_addresses = [](const ControlMessage& message) { return std::holds_alternative<Addresses>(message); };
    if (to_addresses && std::ranges::any_of(came, is_addresses))
      connection.post(*std::exchange(to_addresses, std::nullopt));
    pollfd waited{connection.fd(), POLLIN, 0};
    if (poll(&waited, 1, 30'000) == 0) ADD_FAILURE() << "the worker does not answer";
  }
  return came.empty() ? ControlMessage(Beat{}) : came.back();
}

TEST(Role, StrangersAreCutOffAndHarmNobody) {
  DeploymentRun run(small_deployment("llama", 1, 1));
  run.wait_for_line(1, "ready");
  const std::int32_t port = run.deployment().ffn[0].port;
  const auto refusal = [](const ControlMessage& word) {
    const auto* refusal = std::get_if<Refusal>(&word);
    return refusal ? refusal->why : "nothing";
  };
  EXPECT_EQ(refusal(last_word(port, {Prepare{.epoch = 1, .session = 7, .present = {1, 1}}})),
            "a front begins with a greeting");
  EXPECT_EQ(refusal(last_word(port, {Greeting{.identity = run.identity(), .rank = 0}})),
            "this is rank 1, the front means 0");
  const Greeting good{.identity = run.identity(), .rank = 1};
  EXPECT_EQ(refusal(last_word(port, {good, Prepare{.epoch = 1, .session = 7, .present = {1}}})),
            "1 workers are prepared for, this deployment has 2");
  EXPECT_THAT(refusal(last_word(port, {good, Connect{.epoch = 9, .introductions = {}}})),
              HasSubstr("peers of epoch 9 come"));
  Connect garbage{.epoch = 1, .introductions = {{{std::byte{1}}, {}}, {}}};
  const Prepare prepare{.epoch = 1, .session = 7, .present = {1, 1}};
  EXPECT_THAT(refusal(last_word(port, {good, prepare}, "", garbage)), HasSubstr("ucx hello"));
  EXPECT_EQ(refusal(last_word(port, {good, prepare}, "", Connect{.epoch = 1, .introductions = {{}}})),
            "1 peers are introduced, this deployment has 2");
  EXPECT_THAT(refusal(last_word(port, {good, prepare, garbage})), HasSubstr("before this worker has an endpoint"));
  EXPECT_THAT(refusal(last_word(port, {good, Submit{}})), HasSubstr("no message from a front to such a worker"));
  last_word(port, {}, "GET / HTTP/1.1\r\nHost: tandem\r\n\r\n");
  run.connect();
  const RequestId id = run.submit({.prompt = {1, 2, 3}, .new_tokens_max = 4});
  run.wait();
  EXPECT_EQ(run.answer(id).tokens.size(), 4u);
  EXPECT_EQ(refusal(last_word(port, {good})), "another front is connected");
}

}  // namespace
}  // namespace tandem
