// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "cli/command.h"
#include "tests/checkpoint/temporary_folder.h"
#include "tests/cli/program.h"
#include "trust/credentials.h"

namespace tandem {
namespace {

using testing::HasSubstr;

unsigned mode_of(const std::string& path) {
  struct stat about = {};
  EXPECT_EQ(stat(path.c_str(), &about), 0) << path;
  return about.st_mode & 07777u;
}

TEST(Keys, ASecretIsMadeOnceAndForItsOwner) {
  const TemporaryFolder folder;
  const std::string path = folder.path("secret");
  const ProgramResult made = run_program({"keys", "secret", path});
  EXPECT_EQ(made.status, 0) << made.err;
  EXPECT_EQ(mode_of(path), 0600u);
  const SecretKey secret = read_secret(path);
  EXPECT_THAT(made.out, HasSubstr("number " + secret_number(secret)));
  EXPECT_THAT(made.out, HasSubstr("secret_file = \"" + path + "\""));
  const ProgramResult again = run_program({"keys", "secret", path});
  EXPECT_EQ(again.status, 1);
  EXPECT_THAT(again.err, HasSubstr("exists, and secrets are not overwritten"));
  EXPECT_EQ(read_secret(path), secret);
}

TEST(Keys, CertificatesAreMadeForEachHostAndLaterForMore) {
  const TemporaryFolder folder;
  const std::string keys = folder.path("keys");
  EXPECT_EQ(run_program({"keys", "certificates", keys, "127.0.0.1", "a.example"}).status, 0);
  EXPECT_EQ(run_program({"keys", "certificates", keys, "b.example", "--days", "7"}).status, 0);
  for (const char* host : {"127.0.0.1", "a.example", "b.example"}) {
    const std::string own = keys + "/" + host;
    EXPECT_EQ(mode_of(own + "/key.pem"), 0600u);
    EXPECT_NE(Credentials::of_certificates({own + "/certificate.pem", own + "/key.pem", own + "/authority.pem"}),
              nullptr);
  }
  EXPECT_EQ(mode_of(keys + "/authority.key"), 0600u);
  EXPECT_THAT(run_program({"keys", "certificates", keys, "a.example"}).err, HasSubstr("secrets are not overwritten"));
  EXPECT_THAT(run_program({"keys", "certificates", keys, "a,b"}).err,
              HasSubstr("neither an address nor a host's name"));
}

}  // namespace
}  // namespace tandem
