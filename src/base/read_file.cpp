// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "base/read_file.h"

#include <fstream>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

std::string read_file_start(const std::string& path, std::size_t bytes_max) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorCode::kNotFound, format("{}: cannot be opened", path));
  std::string text(bytes_max + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) throw Error(ErrorCode::kNotFound, format("{}: cannot be read", path));
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

}  // namespace tandem
