// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/settings_table.h"

#include <algorithm>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

constexpr std::size_t kShownMax = 80;  // letters of a wrong value that a message repeats

std::string shown(const Json& value) {
  std::string text = to_line(value);
  if (text.size() > kShownMax) text = text.substr(0, kShownMax) + "…";
  return text;
}

// Levenshtein's distance, with two neighbours exchanged as one change.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> cost(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) {
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = i + j;
        continue;
      }
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
    }
  }
  return cost[a.size()][b.size()];
}

}  // namespace

std::string nearest_word(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  std::size_t least = std::max<std::size_t>(2, word.size() / 3) + 1;
  if (word.size() > kShownMax) return best;
  for (const std::string& candidate : candidates) {
    const std::size_t changes = distance(word, candidate);
    if (changes < least) {
      least = changes;
      best = candidate;
    }
  }
  return best;
}

SettingsTable::SettingsTable(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object()) throw Error(ErrorCode::kInvalidData, format("{} is no table", where_));
}

std::string SettingsTable::path(const std::string& key) const {
  return format("{}{}{}", where_, outermost_ ? ": " : ".", key);
}

void SettingsTable::refuse(const std::string& key, const std::string& why) const {
  throw Error(ErrorCode::kInvalidData, format("{} {}", path(key), why));
}

const Json& SettingsTable::at(const std::string& key) {
  asked_.push_back(key);
  if (!has(key)) refuse(key, "is missing");
  return object_[key];
}

std::int64_t SettingsTable::integer_of(const Json& value, const std::string& key, std::int64_t low,
                                       std::int64_t high) const {
  const bool fits = value.is_number_integer() && (!value.is_number_unsigned() ||
                                                  value.get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX));
  if (!fits || value.get<std::int64_t>() < low || value.get<std::int64_t>() > high)
    refuse(key, format("is {}, has to be a whole number between {} and {}", shown(value), low, high));
  return value.get<std::int64_t>();
}

std::string SettingsTable::text(const std::string& key) {
  const Json& value = at(key);
  if (!value.is_string() || value.get_ref<const std::string&>().empty())
    refuse(key, format("is {}, has to be a text", shown(value)));
  return value.get<std::string>();
}

std::int64_t SettingsTable::integer(const std::string& key, std::int64_t low, std::int64_t high) {
  return integer_of(at(key), key, low, high);
}

double SettingsTable::number(const std::string& key, double low, double high) {
  const Json& value = at(key);
  if (!value.is_number() || !(value.get<double>() >= low && value.get<double>() <= high))
    refuse(key, format("is {}, has to be a number between {} and {}", shown(value), low, high));
  return value.get<double>();
}

std::vector<std::int64_t> SettingsTable::integers(const std::string& key, std::int64_t low, std::int64_t high) {
  const Json& value = at(key);
  if (!value.is_array()) refuse(key, format("is {}, has to be a list", shown(value)));
  std::vector<std::int64_t> out;
  out.reserve(value.size());
  for (std::size_t i = 0; i < value.size(); ++i)
    out.push_back(integer_of(value[i], format("{}[{}]", key, i), low, high));
  return out;
}

std::vector<std::string> SettingsTable::texts(const std::string& key) {
  const Json& value = at(key);
  if (!value.is_array()) refuse(key, format("is {}, has to be a list", shown(value)));
  std::vector<std::string> out;
  out.reserve(value.size());
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (!value[i].is_string() || value[i].get_ref<const std::string&>().empty())
      refuse(format("{}[{}]", key, i), format("is {}, has to be a text", shown(value[i])));
    out.push_back(value[i].get<std::string>());
  }
  return out;
}

SettingsTable SettingsTable::table_or(const std::string& key, const Json& fallback) {
  asked_.push_back(key);
  if (has(key)) return table(key);
  SettingsTable inner(fallback, path(key));
  inner.outermost_ = false;
  return inner;
}

SettingsTable SettingsTable::table(const std::string& key) {
  SettingsTable inner(at(key), path(key));
  inner.outermost_ = false;
  return inner;
}

std::vector<SettingsTable> SettingsTable::tables(const std::string& key) {
  std::vector<SettingsTable> out;
  asked_.push_back(key);
  if (!has(key)) return out;
  const Json& list = object_[key];
  if (!list.is_array()) refuse(key, format("is {}, has to be a list of tables ([[{}]])", shown(list), key));
  for (std::size_t i = 0; i < list.size(); ++i) {
    out.emplace_back(list[i], path(format("{}[{}]", key, i)));
    out.back().outermost_ = false;
  }
  return out;
}

std::string SettingsTable::word(const std::string& key, const std::vector<std::string>& words) {
  const std::string value = text(key);
  if (std::ranges::find(words, value) != words.end()) return value;
  const std::string nearest = nearest_word(value, words);
  refuse(key, format("is {}, has to be one of {}{}", shown(value), join(words, ", "),
                     nearest.empty() ? "" : format("; did you mean {}?", nearest)));
}

std::string SettingsTable::text_or(const std::string& key, const std::string& fallback) {
  asked_.push_back(key);
  return has(key) ? text(key) : fallback;
}

std::int64_t SettingsTable::integer_or(const std::string& key, std::int64_t fallback, std::int64_t low,
                                       std::int64_t high) {
  asked_.push_back(key);
  return has(key) ? integer(key, low, high) : fallback;
}

double SettingsTable::number_or(const std::string& key, double fallback, double low, double high) {
  asked_.push_back(key);
  return has(key) ? number(key, low, high) : fallback;
}

bool SettingsTable::boolean_or(const std::string& key, bool fallback) {
  asked_.push_back(key);
  if (!has(key)) return fallback;
  if (!object_[key].is_boolean()) refuse(key, format("is {}, has to be true or false", shown(object_[key])));
  return object_[key].get<bool>();
}

std::string SettingsTable::word_or(const std::string& key, const std::string& fallback,
                                   const std::vector<std::string>& words) {
  asked_.push_back(key);
  return has(key) ? word(key, words) : fallback;
}

void SettingsTable::finish() const {
  for (const auto& [key, value] : object_.items()) {
    if (std::ranges::find(asked_, key) != asked_.end()) continue;
    const std::string nearest = nearest_word(key, asked_);
    const std::string name = key.size() > kShownMax ? key.substr(0, kShownMax) + "…" : key;
    throw Error(ErrorCode::kInvalidData, format("{} is not a known key{}", path(name),
                                                nearest.empty() ? "" : format("; did you mean {}?", nearest)));
  }
}

}  // namespace tandem
