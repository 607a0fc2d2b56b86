// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What --version tells: the facts of this build, and which of its kernels the machine can run.
#pragma once

#include <string>

namespace tandem {

std::string version_text();

}  // namespace tandem
