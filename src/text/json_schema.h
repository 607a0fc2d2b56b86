// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// JSON schemas in the words that grammars know. Keywords that the grammar compiler lacks are said by others where that
// means exactly the same: oneOf whose options can be shown to exclude each other is anyOf, not of a bound is the other
// bound, names of properties become the properties themselves. Whatever has no such form is refused by name: an answer
// that keeps to a weaker schema would be a wrong one.
#pragma once

#include "base/json.h"

namespace tandem {

// Throws Error{kUnsupported} with the place and the keyword. What is no schema at all is left for the compiler to name.
OrderedJson enforceable_schema(OrderedJson schema);

}  // namespace tandem
