// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A certificate made for a test, which is its own authority.
#pragma once

#include <string>

namespace tandem {

// Writes PEM files: a certificate of this host and its key.
void write_certificate(const std::string& host, const std::string& certificate_file, const std::string& key_file);

}  // namespace tandem
