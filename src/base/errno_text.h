// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <string>

namespace tandem {

// What the system says of a call that failed with this errno.
std::string errno_text(int error);

}  // namespace tandem
