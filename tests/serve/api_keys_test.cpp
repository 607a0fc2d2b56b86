// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/api_keys.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

TEST(ApiKeys, finds_the_place_of_a_key) {
  const ApiKeys keys({"first-key", "second-key"});
  EXPECT_EQ(keys.find("Bearer first-key"), 1U);
  EXPECT_EQ(keys.find("bearer second-key"), 2U);
  for (const char* wrong : {"", "Bearer", "Bearer ", "Bearer first-ke", "Bearer first-keyy", "Bearer  first-key",
                            "Basic first-key", "first-key"})
    EXPECT_FALSE(keys.find(wrong)) << wrong;
  EXPECT_TRUE(ApiKeys({}).none());
}

TEST(ApiKeys, digest_is_sha_256) {
  const Digest empty = digest("");
  EXPECT_EQ(empty[0], 0xe3);
  EXPECT_EQ(empty[31], 0x55);
}

TEST(CacheSalts, belong_to_a_key_and_a_salt) {
  const CacheSalts salts, others;
  EXPECT_EQ(salts.salt(0, ""), 0U);
  EXPECT_EQ(salts.salt(1, "a"), salts.salt(1, "a"));
  EXPECT_NE(salts.salt(1, "a"), salts.salt(2, "a"));
  EXPECT_NE(salts.salt(1, "a"), salts.salt(1, "b"));
  EXPECT_NE(salts.salt(1, ""), salts.salt(0, ""));
  EXPECT_NE(salts.salt(1, "a"), others.salt(1, "a")) << "each process has a secret of its own";
  EXPECT_EQ(random_hex(12).size(), 24U);
  EXPECT_NE(random_hex(12), random_hex(12));
}

}  // namespace
}  // namespace tandem
