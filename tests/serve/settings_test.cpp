// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/settings.h"

#include <gmock/gmock.h>

#include <cstdio>
#include <fstream>
#include <set>

#include "tests/base/error_of.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

std::string problem(const ServeSettings& settings) {
  return error_of([&] {
           ServeSettings copy = settings;
           finish_settings(copy);
         })
      .message();
}

TEST(Settings, the_table_is_whole) {
  ServeSettings settings;
  std::set<std::string_view> names;
  for (const SettingRow& row : setting_rows()) {
    EXPECT_TRUE(names.insert(row.name).second) << row.name << " is there twice";
    EXPECT_FALSE(row.doc.empty()) << row.name;
    const SettingRow::Place place = row.place(settings);
    if (const auto* number = std::get_if<std::int64_t*>(&place)) {
      EXPECT_GE(**number, row.min) << row.name;
      EXPECT_LE(**number, row.max) << row.name;
    }
  }
  EXPECT_NO_THROW(finish_settings(settings)) << "the defaults are good";
  EXPECT_EQ(environment_name("head-ms-max"), "TANDEM_HEAD_MS_MAX");
}

TEST(Settings, numbers_outside_their_range_are_named) {
  for (const SettingRow& row : setting_rows())
    for (const bool above : {false, true}) {
      ServeSettings settings;
      const SettingRow::Place place = row.place(settings);
      const auto* number = std::get_if<std::int64_t*>(&place);
      if (!number) continue;
      **number = above ? row.max + 1 : row.min - 1;
      EXPECT_THAT(problem(settings), HasSubstr("--" + std::string(row.name)));
    }
}

TEST(Settings, hosts_of_pictures_are_names) {
  ServeSettings settings;
  settings.limits.remote.hosts = {"pictures.example", "other.example:8080"};
  EXPECT_NO_THROW(finish_settings(settings));
  settings.limits.remote.hosts.push_back("169.254.169.254");
  EXPECT_THAT(problem(settings), HasSubstr("--allow-remote-images has 169.254.169.254, must be HOST or HOST:PORT"));
}

TEST(Settings, an_address_that_others_reach_wants_a_key) {
  ServeSettings settings;
  settings.http.host = "0.0.0.0";
  EXPECT_THAT(problem(settings), HasSubstr("--no-auth"));
  settings.no_auth = true;
  EXPECT_NO_THROW(finish_settings(settings));
  settings.no_auth = false;
  settings.api_keys = {"0123456789"};
  EXPECT_NO_THROW(finish_settings(settings));
  settings.api_keys = {"short"};
  EXPECT_THAT(problem(settings), HasSubstr("5 bytes"));
}

TEST(Settings, keys_come_from_a_file) {
  ServeSettings settings;
  settings.api_key_file = ::testing::TempDir() + "tandem_settings_test_keys";
  std::remove(settings.api_key_file.c_str());  // an earlier run's
  EXPECT_THAT(problem(settings), HasSubstr("cannot be read"));
  std::ofstream(settings.api_key_file) << "# ours\n\nfirst-key-of-file\nsecond-key-of-file \r\n";
  finish_settings(settings);
  EXPECT_EQ(settings.api_keys, (std::vector<std::string>{"first-key-of-file", "second-key-of-file"}));
  std::ofstream(settings.api_key_file) << "# none\n";
  settings.api_keys.clear();
  EXPECT_THAT(problem(settings), HasSubstr("has no key"));
}

TEST(Settings, what_belongs_together) {
  ServeSettings settings;
  settings.http.tls_key = "key.pem";
  EXPECT_THAT(problem(settings), HasSubstr("go together"));
  settings = {};
  settings.log_format = "xml";
  EXPECT_THAT(problem(settings), HasSubstr("--log-format"));
}

}  // namespace
}  // namespace tandem
