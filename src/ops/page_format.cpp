// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/page_format.h"

#include <cstring>

#include "base/check.h"
#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

PageHeader header_of(const KvSpec& spec) {
  PageHeader header;
  header.dtype = static_cast<std::uint16_t>(spec.dtype);
  header.layers = spec.layers;
  header.kv_heads = spec.kv_heads;
  header.k_dim = spec.k_dim;
  header.v_dim = spec.v_dim;
  header.v_in_k = spec.v_in_k;
  return header;
}

void need_equal(const char* what, std::int64_t found, std::int64_t expected) {
  if (found != expected)
    throw Error(ErrorCode::kInvalidData, format("KV page: {} is {}, this cache has {}", what, found, expected));
}

}  // namespace

void write_page_header(const KvSpec& spec, std::span<std::byte> page) {
  TANDEM_CHECK(page.size() == page_bytes(spec), "a page buffer of the wrong size");
  const PageHeader header = header_of(spec);
  std::memcpy(page.data(), &header, sizeof header);
}

void check_page_header(const KvSpec& spec, std::span<const std::byte> page) {
  need_equal("size in bytes", static_cast<std::int64_t>(page.size()), static_cast<std::int64_t>(page_bytes(spec)));
  PageHeader found;
  std::memcpy(&found, page.data(), sizeof found);
  const PageHeader expected = header_of(spec);
  need_equal("magic", found.magic, expected.magic);
  need_equal("version", found.version, expected.version);
  need_equal("dtype", found.dtype, expected.dtype);
  need_equal("layer count", found.layers, expected.layers);
  need_equal("kv head count", found.kv_heads, expected.kv_heads);
  need_equal("k width", found.k_dim, expected.k_dim);
  need_equal("v width", found.v_dim, expected.v_dim);
  need_equal("values within keys", found.v_in_k, expected.v_in_k);
  need_equal("tokens per block", found.block_tokens, expected.block_tokens);
}

}  // namespace tandem
