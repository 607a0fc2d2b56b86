// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Rows of logits in a file, as role_program leaves them for the test that has started it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace tandem {

struct LogitRecordHeader {
  std::uint64_t request = 0;
  std::int64_t position = 0;
  std::uint64_t count = 0;
};

inline std::size_t logit_record_bytes(std::size_t count) {
  return sizeof(LogitRecordHeader) + count * sizeof(float);
}

inline std::vector<char> logit_record(std::uint64_t request, std::int64_t position, std::span<const float> logits) {
  const LogitRecordHeader header{request, position, logits.size()};
  std::vector<char> record(logit_record_bytes(logits.size()));
  std::memcpy(record.data(), &header, sizeof header);
  std::memcpy(record.data() + sizeof header, logits.data(), logits.size_bytes());
  return record;
}

// By request and position; the last of several for the same place.
using LogitRows = std::map<std::pair<std::uint64_t, std::int64_t>, std::vector<float>>;

inline void read_logits(const std::string& path, LogitRows& rows) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  for (std::size_t at = 0; bytes.size() - at >= sizeof(LogitRecordHeader);) {
    LogitRecordHeader header;
    std::memcpy(&header, bytes.data() + at, sizeof header);
    if (bytes.size() - at < logit_record_bytes(header.count)) return;
    std::vector<float>& row = rows[{header.request, header.position}];
    row.resize(header.count);
    std::memcpy(row.data(), bytes.data() + at + sizeof header, header.count * sizeof(float));
    at += logit_record_bytes(header.count);
  }
}

}  // namespace tandem
