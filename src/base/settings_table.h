// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Strict access to a table of settings that a person wrote: every value has a type and a range, a key that nobody asked
// for is an error that names the nearest one that somebody did. Messages begin with the path of the value:
//   "fleet.toml: attention[1].port is 70000, has to be between 1 and 65535"
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace tandem {

class SettingsTable {
 public:
  // where is what messages call the table: the file for the outermost, "file: key" below. The object has to outlive it.
  // Throws Error{kInvalidData} when it is no object.
  SettingsTable(const Json& object, std::string where);

  bool has(const std::string& key) const { return object_.contains(key); }

  // Each throws Error{kInvalidData} when the key is missing, of another type, or out of range.
  std::string text(const std::string& key);
  std::int64_t integer(const std::string& key, std::int64_t low, std::int64_t high);
  double number(const std::string& key, double low, double high);
  std::vector<std::int64_t> integers(const std::string& key, std::int64_t low, std::int64_t high);
  std::vector<std::string> texts(const std::string& key);
  SettingsTable table(const std::string& key);
  // An array of tables; empty where the key is missing.
  std::vector<SettingsTable> tables(const std::string& key);
  // One of the words.
  std::string word(const std::string& key, const std::vector<std::string>& words);

  // The same with a value for a missing key.
  SettingsTable table_or(const std::string& key, const Json& fallback);
  std::string text_or(const std::string& key, const std::string& fallback);
  std::int64_t integer_or(const std::string& key, std::int64_t fallback, std::int64_t low, std::int64_t high);
  double number_or(const std::string& key, double fallback, double low, double high);
  bool boolean_or(const std::string& key, bool fallback);
  std::string word_or(const std::string& key, const std::string& fallback, const std::vector<std::string>& words);

  // Throws Error{kInvalidData} for the first key that no call has asked for. Of this table alone.
  void finish() const;
  // Throws Error{kInvalidData}: the value of this key is wrong for a reason that the caller knows.
  [[noreturn]] void refuse(const std::string& key, const std::string& why) const;
  // The path of a key in messages.
  std::string path(const std::string& key) const;

 private:
  const Json& at(const std::string& key);
  std::int64_t integer_of(const Json& value, const std::string& key, std::int64_t low, std::int64_t high) const;

  const Json& object_;
  std::string where_;
  bool outermost_ = true;
  std::vector<std::string> asked_;
};

// The candidate that takes the fewest letters inserted, removed, replaced or exchanged to become word; empty when that
// is more than a third of its letters, or two.
std::string nearest_word(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace tandem
