// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The header of a canonical page: written by every backend's export_page, checked by every import_page.
#pragma once

#include <span>

#include "ops/kv_cache.h"

namespace tandem {

// Writes the header of spec's pages at the start of page, which must have page_bytes(spec) bytes.
void write_page_header(const KvSpec& spec, std::span<std::byte> page);
// Throws Error{kInvalidData} naming what differs when page is not a page of such a cache.
void check_page_header(const KvSpec& spec, std::span<const std::byte> page);

}  // namespace tandem
