// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Files that a person wrote, read as a whole.
#pragma once

#include <cstddef>
#include <string>

namespace tandem {

// The first bytes of a file, at most bytes_max + 1: one more shows that there are more. Throws Error{kNotFound}.
std::string read_file_start(const std::string& path, std::size_t bytes_max);

}  // namespace tandem
