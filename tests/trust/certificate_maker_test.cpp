// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// That the certificates do what they are for is tests/trust/credentials_test.cpp.
#include "trust/certificate_maker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/base/error_of.h"

namespace tandem {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST(CertificateMaker, MakesPem) {
  const Pem authority = make_authority("fleet", 1), leaf = make_certificate(authority, "10.0.0.1", 1);
  for (const Pem& pem : {authority, leaf}) {
    EXPECT_THAT(pem.certificate, StartsWith("-----BEGIN CERTIFICATE-----\n"));
    EXPECT_THAT(pem.key, StartsWith("-----BEGIN PRIVATE KEY-----\n"));
  }
  EXPECT_NE(make_certificate(authority, "10.0.0.1", 1).key, leaf.key);
}

TEST(CertificateMaker, NamesOfHostsCannotSayMore) {
  const Pem authority = make_authority("fleet", 1);
  for (const char* host : {"", "a,DNS:b", "a b", "a\nb", "@section", "email:x", "ä"})
    EXPECT_THAT(error_of([&] { make_certificate(authority, host, 1); }).message(),
                HasSubstr("is neither an address nor a host's name"))
        << host;
  make_certificate(authority, std::string(200, 'a') + ".example", 1);  // longer than a common name may be
}

TEST(CertificateMaker, AnAuthorityThatIsNoneIsRefused) {
  const Pem one = make_authority("one", 1), two = make_authority("two", 1);
  EXPECT_EQ(error_of([&] { make_certificate({one.certificate, two.key}, "a", 1); }).code(), ErrorCode::kInvalidData);
  EXPECT_EQ(error_of([&] { make_certificate({"", ""}, "a", 1); }).code(), ErrorCode::kInvalidData);
}

}  // namespace
}  // namespace tandem
