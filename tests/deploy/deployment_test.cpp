// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "deploy/deployment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "base/format.h"
#include "base/read_file.h"
#include "tests/base/error_of.h"
#include "tests/checkpoint/temporary_folder.h"

namespace tandem {
namespace {

using testing::HasSubstr;

constexpr const char* kTwoByTwo = R"(version = 1
name = "test"
model = "/models/m"
[engine]
device = "cpu"
[split]
experts = 2
[[attention]]
rank = 0
host = "127.0.0.1"
port = 7000
[[attention]]
rank = 1
host = "127.0.0.1"
port = 7001
[[ffn]]
rank = 2
host = "127.0.0.1"
port = 7002
[[ffn]]
rank = 3
host = "127.0.0.1"
port = 7003
)";

// A deployment of this many workers on loopback, split like that.
Deployment deployment_of(std::int32_t attention, std::int32_t experts, std::int32_t width) {
  Deployment d{.name = "d", .model = "m"};
  d.engine.device = "cpu";
  d.split = {experts, width};
  std::int32_t rank = 0;
  const auto place = [&] {
    const WorkerPlace w{.rank = rank, .host = "localhost", .port = 7000 + rank, .devices = {}};
    ++rank;
    return w;
  };
  for (std::int32_t i = 0; i < attention; ++i) d.attention.push_back(place());
  for (std::int32_t i = 0; i < experts * width; ++i) d.ffn.push_back(place());
  return d;
}

std::string without(std::string text, const std::string& part) {
  const std::size_t at = text.find(part);
  EXPECT_NE(at, std::string::npos) << part;
  return text.erase(at, part.size());
}

std::string with(std::string text, const std::string& part, const std::string& other) {
  const std::size_t at = text.find(part);
  EXPECT_NE(at, std::string::npos) << part;
  return text.replace(at, part.size(), other);
}

std::string error_in(const std::string& text) {
  return error_of([&] { parse_deployment(text, "d.toml"); }).message();
}

TEST(Deployment, IsReadAndComesBackFromWhatIsWritten) {
  const Deployment d = parse_deployment(kTwoByTwo, "d.toml");
  EXPECT_EQ(d.name, "test");
  EXPECT_EQ(d.attention.size(), 2u);
  EXPECT_EQ(d.find(3)->port, 7003);
  EXPECT_EQ(d.find(4), nullptr);
  EXPECT_EQ(d.front.port, 8000);
  EXPECT_EQ(parse_deployment(to_toml(d), "written"), d);
}

TEST(Deployment, EveryFieldComesBackFromWhatIsWritten) {
  Deployment d = deployment_of(3, 2, 4);
  d.name = "a \"quoted\" name";
  d.engine = {"cuda", "fp8", "fp8", 4, 128, 512, 65536, 1'000'000};
  d.link = {"ucx", true, 100, 1000, 0, 7, true, "rc,tcp"};
  d.trust = {.secret_file = "/etc/tandem/secret"};
  d.front = {"0.0.0.0", 443, 444};
  d.planned = DeploymentPlanned{"step3", "h20", "h800", 8192, 47.25};
  for (std::vector<WorkerPlace>* list : {&d.attention, &d.ffn})
    for (WorkerPlace& w : *list) {
      w.host = format("host-{}", w.rank);
      w.devices = {0, 1};
      w.network_devices = {"mlx5_0:1", "mlx5_1:1"};
    }
  d.ffn.push_back({.rank = 11, .host = "spare", .port = 1, .devices = {7}, .replica_of = 5});
  EXPECT_THAT(find_faults(d), testing::IsEmpty());
  const std::string text = to_toml(d);
  EXPECT_EQ(parse_deployment(text, "written"), d) << text;
}

TEST(Deployment, EveryWorkerHoldsItsShareAndAllHoldTheModelOnce) {
  for (const auto& [groups, width] : {std::pair{1, 1}, {2, 1}, {3, 1}, {1, 2}, {2, 8}, {6, 8}, {1, 8}, {48, 1}}) {
    const Deployment d = deployment_of(1, groups, width);
    ASSERT_THAT(find_faults(d), testing::IsEmpty());
    std::set<std::pair<std::int32_t, std::int32_t>> cells;
    std::int32_t slices = 0;
    for (const WorkerPlace& w : d.ffn) {
      const FfnShare share = share_of(d, w, 48);
      for (std::int32_t e = share.expert_begin; e < share.expert_end; ++e)
        for (std::int32_t s = 0; s < share.width_count; ++s)
          EXPECT_TRUE(cells.insert({e, share.width_first + s}).second) << "expert " << e << " is held twice";
      slices += share.slice_count;
    }
    EXPECT_EQ(cells.size(), 48u * 8) << groups << " x " << width;
    EXPECT_EQ(slices, 8) << groups << " x " << width;
  }
}

TEST(Deployment, AReplicaHoldsTheShareOfItsOriginal) {
  Deployment d = deployment_of(2, 2, 2);
  d.ffn.push_back({.rank = 6, .host = "localhost", .port = 7100, .devices = {}, .replica_of = 4});
  ASSERT_THAT(find_faults(d), testing::IsEmpty());
  const FfnShare original = share_of(d, d.ffn[2], 48);
  EXPECT_EQ(share_of(d, d.ffn[4], 48), original);
  EXPECT_EQ(original.expert_end, 48);
  EXPECT_EQ(original.width_count, 4);
}

TEST(Deployment, OnlyAddressesOfThisMachineAreLoopback) {
  for (const char* host : {"localhost", "::1", "[::1]", "127.0.0.1", "127.255.255.255", "127.0.1.1"})
    EXPECT_TRUE(is_loopback(host)) << host;
  for (const char* host : {"127.evil.example", "127.0.0.1.evil.example", "127.0.0", "127.0.0.", "127.0.0.1.", "127.",
                           "127.0.0.256", "127.0.0.-1", "127.0.0.+1", "127.0.0.01", "127.0.0.1:80", "127.0.0.1 ",
                           "127.0x0.0.1", "127..0.1", "128.0.0.1", "1127.0.0.1", "", "localhost.example", "::2"})
    EXPECT_FALSE(is_loopback(host)) << host;
  EXPECT_THAT(error_in(with(kTwoByTwo, "host = \"127.0.0.1\"", "host = \"127.evil.example\"")),
              HasSubstr("rank 0 is on 127.evil.example, which is not this machine"));
}

TEST(Deployment, WhatIsNoDeploymentIsSaid) {
  EXPECT_EQ(error_in(""), "d.toml: version is missing");
  EXPECT_EQ(error_in(with(kTwoByTwo, "version = 1", "version = 2")),
            "d.toml: version is 2, has to be a whole number between 1 and 1");
  EXPECT_EQ(error_in(with(kTwoByTwo, "device = \"cpu\"", "devise = \"cpu\"")),
            "d.toml: engine.devise is not a known key; did you mean device?");
  EXPECT_EQ(error_in(with(kTwoByTwo, "[engine]", "[engin]")), "d.toml: engin is not a known key; did you mean engine?");
  EXPECT_EQ(error_in(with(kTwoByTwo, "port = 7001", "port = 70001")),
            "d.toml: attention[1].port is 70001, has to be a whole number between 1 and 65535");
  EXPECT_EQ(error_in(with(kTwoByTwo, "\"cpu\"", "\"tpu\"")),
            "d.toml: engine.device is \"tpu\", has to be one of cpu, cuda, reference; did you mean cpu?");
  EXPECT_EQ(error_in(with(kTwoByTwo, "\"test\"", "\"te\\u0001st\"")), "d.toml: name has control characters");
  EXPECT_EQ(error_in(with(kTwoByTwo, "rank = 0", "rank = 0\nreplica_of = 2")),
            "d.toml: attention[0].replica_of is not a known key");
  EXPECT_EQ(error_of([] { read_deployment("/no/such.toml"); }).message(), "/no/such.toml: cannot be opened");
  const TemporaryFolder folder;
  EXPECT_EQ(read_deployment(folder.write("d.toml", kTwoByTwo)).ffn.size(), 2u);
}

TEST(Deployment, WhatDoesNotGoTogetherIsSaid) {
  EXPECT_EQ(
      error_in(with(kTwoByTwo, "experts = 2", "experts = 3")),
      "d.toml: split is 3 groups of experts by 1 parts of their width, which is 3 FFN workers; there are 2 without "
      "replicas");
  EXPECT_THAT(error_in(with(kTwoByTwo, "experts = 2", "experts = 1\nwidth = 3")),
              HasSubstr("split.width is 3, has to be 1, 2, 4 or 8"));
  EXPECT_EQ(error_in(with(kTwoByTwo, "rank = 3", "rank = 4")),
            "d.toml: FFN worker on 127.0.0.1:7003 has rank 4, expected 3");
  EXPECT_EQ(error_in(with(kTwoByTwo, "7001", "7000")), "d.toml: rank 0 and rank 1 both have port 7000 of 127.0.0.1");
  EXPECT_EQ(error_in(with(kTwoByTwo, "7001", "8000")), "d.toml: the front and rank 1 both have port 8000 of 127.0.0.1");
  EXPECT_EQ(
      error_in(with(kTwoByTwo, "host = \"127.0.0.1\"", "host = \"10.0.0.1\"")),
      "d.toml: rank 0 is on 10.0.0.1, which is not this machine: trust needs secret_file or certificates, or insecure "
      "= true");
  EXPECT_THAT(
      error_in(with(kTwoByTwo, "[split]", "[front]\nhost = \"0.0.0.0\"\nport = 80\ncontrol_port = 81\n[split]")),
      HasSubstr("front.control_port is on 0.0.0.0, which is not this machine alone"));
  EXPECT_THAT(
      error_in(with(kTwoByTwo, "[split]", "[front]\nhost = \"127.0.0.1\"\nport = 80\ncontrol_port = 7002\n[split]")),
      HasSubstr("the front's control and rank 2 both have port 7002"));
  EXPECT_EQ(error_in(with(kTwoByTwo, "[split]", "kv_dtype = \"fp8\"\n[split]")),
            "d.toml: engine.kv_dtype is fp8, which cpu does not have");
  EXPECT_EQ(error_in(with(kTwoByTwo, "[split]", "[link]\nlost_after_ms = 100\n[split]")),
            "d.toml: link.lost_after_ms is 100, has to be more than heartbeat_ms, 500");
  EXPECT_EQ(error_in(with(kTwoByTwo, "[split]", "[link]\nencrypt = true\n[split]")),
            "d.toml: link.encrypt needs trust.secret_file or certificates");
  EXPECT_EQ(error_in(with(kTwoByTwo, "[split]", "[trust]\nkey_file = \"k\"\n[split]")),
            "d.toml: trust needs certificate_file, key_file and authority_file together");
  EXPECT_EQ(error_in(with(kTwoByTwo, "port = 7003", "port = 7003\ndevices = [0]")),
            "d.toml: rank 3 has devices, and engine.device is cpu");
  EXPECT_THAT(error_in(without(kTwoByTwo, "device = \"cpu\"")),
              HasSubstr("rank 0 has no devices, and engine.device is cuda"));
}

TEST(Deployment, ACommandLineAddsToIt) {
  const std::string far = with(kTwoByTwo, "host = \"127.0.0.1\"", "host = \"10.0.0.1\"");
  EXPECT_TRUE(parse_deployment(far, "d.toml", {.insecure = true}).trust.insecure);
  EXPECT_EQ(error_of([&] { parse_deployment(kTwoByTwo, "d.toml", {.encrypt = true}); }).message(),
            "d.toml: link.encrypt needs trust.secret_file or certificates");
  const std::string trusted = with(kTwoByTwo, "[split]", "[trust]\nsecret_file = \"s\"\n[split]");
  const Deployment d = parse_deployment(trusted, "d.toml", {.insecure = true, .encrypt = true});
  EXPECT_TRUE(d.link.encrypt);
  EXPECT_FALSE(d.trust.insecure);  // it has what is better
}

TEST(Deployment, ReplicasAreOfWorkersThatAreThere) {
  Deployment d = deployment_of(1, 1, 1);
  d.ffn.push_back({.rank = 2, .host = "localhost", .port = 7100, .devices = {}, .replica_of = 0});
  EXPECT_THAT(find_faults(d),
              testing::ElementsAre("FFN worker 2 is a replica of 0, which is no FFN worker of its own"));
  d.ffn.back().replica_of = 1;
  EXPECT_THAT(find_faults(d), testing::IsEmpty());
  d.ffn.push_back({.rank = 3, .host = "localhost", .port = 7101, .devices = {}, .replica_of = 2});
  EXPECT_THAT(find_faults(d),
              testing::ElementsAre("FFN worker 3 is a replica of 2, which is no FFN worker of its own"));
}

TEST(Deployment, ManyFaultsAreCounted) {
  Deployment d = deployment_of(40, 1, 1);
  for (WorkerPlace& w : d.attention) w.rank = 100;
  const std::vector<std::string> faults = find_faults(d);
  ASSERT_EQ(faults.size(), 21u);
  EXPECT_EQ(faults.back(), "and 20 more");
}

TEST(Deployment, WithoutWorkersThereIsNone) {
  EXPECT_THAT(
      find_faults({.name = "d", .model = "m"}),
      testing::IsSupersetOf({"there is no attention worker ([[attention]])", "there is no FFN worker ([[ffn]])"}));
}

// What deploy/kubernetes gives its pods: the lines below "fleet.toml: |", which stand further to the right.
std::string fleet_of(const std::string& manifest) {
  const std::string indentation = "    ", key = "  fleet.toml: |\n";
  std::istringstream lines(manifest.substr(manifest.find(key) + key.size()));
  std::string fleet, line;
  while (std::getline(lines, line) && (line.empty() || line.starts_with(indentation)))
    fleet += line.substr(std::min(line.size(), indentation.size())) + "\n";
  return fleet;
}

// A pod's name ends with its ordinal, and that is the rank it is started with.
TEST(Deployment, OfTheKubernetesManifestNamesEachPodByItsRank) {
  const std::string manifest = read_file_start("deploy/kubernetes/tandem.yaml", 1 << 20);
  const Deployment deployment = parse_deployment(fleet_of(manifest), "tandem.yaml");
  EXPECT_EQ(deployment.attention.size(), 2);
  EXPECT_EQ(deployment.ffn.size(), 2);
  for (const WorkerPlace& place : deployment.attention)
    EXPECT_EQ(place.host, format("tandem-attention-{}.tandem-workers", place.rank));
  for (const WorkerPlace& place : deployment.ffn)
    EXPECT_EQ(place.host, format("tandem-ffn-{}.tandem-workers", place.rank));
  EXPECT_THAT(manifest, HasSubstr(format("ordinals: {{start: {}}}", deployment.ffn.front().rank)));
  EXPECT_TRUE(deployment.trust.given());
}

}  // namespace
}  // namespace tandem
