// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/deployment_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "checkpoint/checkpoint.h"
#include "engine/settings/machine.h"
#include "tests/base/error_of.h"
#include "tests/checkpoint/temporary_folder.h"
#include "trust/frame_cipher.h"
#include "trust/private_file.h"

namespace tandem {
namespace {

using testing::HasSubstr;

Deployment local_deployment() {
  Deployment d{.name = "fleet", .model = "tests/goldens/llama"};
  d.engine.device = "cpu";
  d.attention = {{.rank = 0, .host = "127.0.0.1", .port = 7000, .devices = {}}};
  d.ffn = {{.rank = 1, .host = "127.0.0.1", .port = 7001, .devices = {}}};
  return d;
}

TEST(DeploymentEngine, WhatIsNotDoneYetIsRefusedByName) {
  const auto refusal = [](auto change) {
    Deployment d = local_deployment();
    change(d);
    return error_of([&] { check_supported(d, false); }).message();
  };
  check_supported(local_deployment(), false);
  EXPECT_THAT(refusal([](auto& d) { d.link.transport = "inproc"; }), HasSubstr("link.transport is inproc"));
  EXPECT_THAT(refusal([](auto& d) { d.ffn[0].devices = {2, 3}; }),
              HasSubstr("rank 1 has devices 2, 3, a process computes on one"));
  EXPECT_THAT(refusal([](auto& d) { d.link.encrypt = true; }),
              HasSubstr("link.encrypt (--encrypt) needs trust.secret_file or certificates"));
}

TEST(DeploymentEngine, ReplicasAreNamedForWhomTheyStandInAndAreNoMoreOfTheLayout) {
  Deployment d = local_deployment();
  d.split.experts = 2;
  d.ffn.push_back({.rank = 2, .host = "127.0.0.1", .port = 7002, .devices = {}});
  for (const std::int32_t of : {2, 1, 2})
    d.ffn.push_back({.rank = 1 + static_cast<std::int32_t>(d.ffn.size()),
                     .host = "127.0.0.1",
                     .port = 7001 + static_cast<std::int32_t>(d.ffn.size()),
                     .devices = {},
                     .replica_of = of});
  check_supported(d, false);
  EXPECT_EQ(find_faults(d), std::vector<std::string>());
  const char* const names[] = {"A0", "F0", "F1", "F1r1", "F0r1", "F1r2"};
  const std::int32_t seats[] = {0, 1, 2, 2, 1, 2};
  for (std::int32_t rank = 0; rank < 6; ++rank) {
    EXPECT_EQ(worker_name(d, rank), names[rank]);
    EXPECT_EQ(d.find(rank)->seat(), seats[rank]);
  }
  EXPECT_EQ(to_string(layout_of(d)), "1A2F");
  EXPECT_EQ(d.seats(), 3);
}

TEST(DeploymentEngine, WorkersElsewhereNeedTrustOrInsecure) {
  Deployment d = local_deployment();
  d.ffn[0].host = "127.evil.example";
  const Error error = error_of([&] { check_supported(d, false); });
  EXPECT_EQ(error.code(), ErrorCode::kPermissionDenied);
  EXPECT_THAT(error.message(), HasSubstr("rank 1 is on 127.evil.example"));
  check_supported(d, true);
  d.trust.insecure = true;
  check_supported(d, false);
  d.trust = {.secret_file = "secret"};
  check_supported(d, false);
  d.trust = {.certificate_file = "c", .key_file = "k", .authority_file = "a"};
  d.link.encrypt = true;
  check_supported(d, false);
}

TEST(DeploymentEngine, TrustIsReadFromItsFiles) {
  Deployment d = local_deployment();
  EXPECT_EQ(credentials_of(d), nullptr);
  const TemporaryFolder folder;
  d.trust.secret_file = folder.path() + "/secret";
  EXPECT_EQ(error_of([&] { credentials_of(d); }).code(), ErrorCode::kNotFound);
  write_private_file(d.trust.secret_file, make_secret_text());
  EXPECT_NE(credentials_of(d), nullptr);
  d.trust = {.certificate_file = folder.write("c", "c"), .key_file = "k", .authority_file = "a"};
  EXPECT_THAT(error_of([&] { credentials_of(d); }).message(), HasSubstr("is no certificate that can be used"));
}

TEST(DeploymentEngine, SealedMessagesHaveRoomForTheirSeal) {
  Deployment d = local_deployment();
  ModelConfig model;
  model.hidden = 64;
  const EngineConfig config = engine_config(d, 0);
  const std::size_t open = ucx_config(d, 0, config, model).message_bytes_max;
  d.link.encrypt = true;
  EXPECT_EQ(ucx_config(d, 0, config, model).message_bytes_max, open + kSealBytes);
}

TEST(DeploymentEngine, SettingsAreThoseOfTheFile) {
  Deployment d = local_deployment();
  d.engine.rows_per_micro_batch_max = 32;
  d.engine.micro_batches = 2;
  d.engine.kv_dtype = "f32";
  const EngineConfig c = engine_config(d, 0);
  EXPECT_EQ(to_string(c.layout), "1A1F");
  EXPECT_EQ(c.rows_per_step_max, 64);
  EXPECT_EQ(c.kv_dtype, DType::kF32);
  EXPECT_EQ(worker_name(d, 0), "A0");
  EXPECT_EQ(worker_name(d, 1), "F0");
  d.ffn.push_back({.rank = 2, .host = "127.0.0.1", .port = 7002, .devices = {}});
  d.split = {.experts = 1, .width = 2};
  check_supported(d, false);
  EXPECT_EQ(to_string(engine_config(d, 1).layout), "1A1x2F");
  d.engine.kv_dtype = "fp8";
  EXPECT_EQ(engine_config(d, 0).kv_dtype, DType::kF8E4M3);
}

TEST(DeploymentEngine, AFrontHasTheCoresThatWorkersOfItsHostLeave) {
  Deployment d = local_deployment();
  EXPECT_EQ(front_threads(d), std::max(1, usable_cores() / 3));
  d.front.host = "10.0.0.9";
  EXPECT_EQ(front_threads(d), usable_cores());
}

TEST(DeploymentEngine, SharedMemoryIsForWorkersOfOneMachine) {
  Deployment d = local_deployment();
  ModelConfig model;
  model.hidden = 64;
  EngineConfig config = engine_config(d, 0);
  EXPECT_EQ(ucx_config(d, 0, config, model).transports, "posix,self");
  EXPECT_FALSE(ucx_config(d, 0, config, model).notice_dead_peers);
  d.link.ucx_transports = "tcp";
  d.ffn[0].network_devices = {"eth0", "eth1"};
  EXPECT_EQ(ucx_config(d, 1, config, model).transports, "tcp");
  EXPECT_EQ(ucx_config(d, 1, config, model).devices, "eth0,eth1");
  EXPECT_TRUE(ucx_config(d, 0, config, model).notice_dead_peers);
  d.link.ucx_transports.clear();
  d.ffn[0].host = "far.example";
  EXPECT_EQ(ucx_config(d, 0, config, model).transports, "");
  EXPECT_TRUE(ucx_config(d, 0, config, model).notice_dead_peers);
}

TEST(DeploymentEngine, IdentitiesDifferByModelAndSettings) {
  Deployment d = local_deployment();
  const auto llama = Checkpoint::open("tests/goldens/llama"), qwen = Checkpoint::open("tests/goldens/qwen3");
  const Identity mine = identity_of(d, *llama);
  EXPECT_EQ(difference(mine, identity_of(d, *llama)), "");
  EXPECT_THAT(difference(mine, identity_of(d, *qwen)), HasSubstr("the model is another"));
  d.engine.sequences_max = 3;
  EXPECT_EQ(difference(mine, identity_of(d, *llama)), "the deployment files differ in what they say");
  d.name = "other";
  EXPECT_EQ(difference(mine, identity_of(d, *llama)), "deployment is fleet, the other has other");
}

}  // namespace
}  // namespace tandem
