// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The options of every command that draws tokens.
#pragma once

#include "session/text_session.h"

namespace CLI {
class App;
}

namespace tandem {

// Into request, whose values are the defaults that --help shows; it must live until the command line has been read.
void declare_sampling_options(CLI::App& app, TextRequest& request);

}  // namespace tandem
