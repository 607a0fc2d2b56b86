// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "trust/secret.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <vector>

#include "tests/base/error_of.h"
#include "tests/checkpoint/temporary_folder.h"

namespace tandem {
namespace {

using testing::HasSubstr;

constexpr const char* kText = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

TEST(Secret, WhatIsMadeIsReadAndNeverTwiceTheSame) {
  const std::string text = make_secret_text(), other = make_secret_text();
  EXPECT_NE(text, other);
  EXPECT_NE(parse_secret(text, "s"), parse_secret(other, "s"));
  const SecretKey known = parse_secret(std::string(kText) + "\r\n", "s");
  for (std::size_t i = 0; i < known.size(); ++i) EXPECT_EQ(known[i], std::byte(i));
}

TEST(Secret, WhatIsNoneIsRefused) {
  const std::string text = kText;
  for (const std::string& wrong : {std::string(), std::string("hunter2"), text.substr(1), text + "00",
                                   "g" + text.substr(1), "-" + text.substr(1), " " + text.substr(1)}) {
    const Error error = error_of([&] { parse_secret(wrong, "the file"); });
    EXPECT_EQ(error.code(), ErrorCode::kInvalidData);
    EXPECT_THAT(error.message(), HasSubstr("the file is no secret: 64 hexadecimal digits"));
    EXPECT_TRUE(wrong.empty() || error.message().find(wrong) == std::string::npos);
  }
}

// RFC 5869, case A.3, which has neither salt nor info: the first 32 of its 42 bytes.
TEST(Secret, KeysAreDerivedAsTheStandardSays) {
  const std::vector<std::byte> material(22, std::byte{0x0b});
  const SecretKey expected =
      parse_secret("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d", "RFC 5869, A.3");
  EXPECT_EQ(derive_key(material, ""), expected);
  EXPECT_NE(derive_key(material, "a"), derive_key(material, "b"));
}

TEST(Secret, ItsNumberTellsSecretsApartAndIsNoPartOfThem) {
  const SecretKey secret = parse_secret(kText, "s");
  const std::string number = secret_number(secret);
  EXPECT_EQ(number.size(), 16u);
  EXPECT_EQ(number, secret_number(secret));
  SecretKey other = secret;
  other[31] ^= std::byte{1};
  EXPECT_NE(number, secret_number(other));
  EXPECT_THAT(std::string(kText), testing::Not(HasSubstr(number)));
}

TEST(Secret, FilesAreReadWhenOthersCannot) {
  const TemporaryFolder folder;
  const std::string path = folder.write("secret", kText);
  chmod(path.c_str(), 0644);
  const Error error = error_of([&] { read_secret(path); });
  EXPECT_EQ(error.code(), ErrorCode::kPermissionDenied);
  EXPECT_THAT(error.message(), HasSubstr("mode 0644: other users can read or write it"));
  chmod(path.c_str(), 0640);
  EXPECT_EQ(read_secret(path)[1], std::byte{1});
  EXPECT_EQ(error_of([&] { read_secret(folder.path() + "/none"); }).code(), ErrorCode::kNotFound);
}

TEST(Secret, WhatIsWipedIsGone) {
  SecretKey secret = parse_secret(kText, "s");
  wipe(secret);
  EXPECT_TRUE(std::ranges::all_of(secret, [](std::byte b) { return b == std::byte{0}; }));
}

}  // namespace
}  // namespace tandem
