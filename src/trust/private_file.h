// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Files with secrets in them: made for their owner alone, and not read when others could.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tandem {

// Makes a file that did not exist, mode 0600. Throws Error: kInvalidArgument for one that exists, which is never
// overwritten, kPermissionDenied for a folder that cannot be written.
void write_private_file(const std::string& path, std::string_view text);

// Throws Error: kNotFound, kInvalidData for a file that is longer, kPermissionDenied for one that users who are neither
// its owner nor in its group may read.
std::string read_private_file(const std::string& path, std::size_t bytes_max);

}  // namespace tandem
