// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "tensor/tensor.h"

#include <sys/mman.h>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (int i = 0; i < shape.rank; ++i) text += format("{}{}", i ? ", " : "", shape[i]);
  return text + "]";
}

Tensor Tensor::slice_rows(std::int64_t begin, std::int64_t count) const {
  TANDEM_CHECK(begin >= 0 && count >= 0 && begin + count <= shape[0], "row slice outside the tensor");
  Tensor part = *this;
  part.data = as<std::byte>() + row_bytes(dtype, static_cast<std::size_t>(begin * row_stride));
  part.shape.dims[0] = count;
  return part;
}

Tensor Tensor::slice_columns(std::int64_t begin, std::int64_t count) const {
  TANDEM_CHECK(shape.rank == 2 && begin >= 0 && count >= 0 && begin + count <= shape[1],
               "column slice outside the tensor");
  Tensor part = *this;
  part.data = as<std::byte>() + row_bytes(dtype, static_cast<std::size_t>(begin));
  part.shape.dims[1] = count;
  return part;
}

Buffer allocate_host(std::size_t bytes) {
  if (bytes == 0) return {};
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED)
    throw Error(ErrorCode::kOutOfResources, format("the machine has no {} MiB of memory to give", bytes >> 20));
#ifdef MADV_HUGEPAGE
  // A cache is read a few lines from each of thousands of pages: with large ones their addresses are at hand. Where the
  // system has none to give, small ones do.
  constexpr std::size_t kLargePage = 2 << 20;
  if (bytes >= 2 * kLargePage) madvise(data, bytes, MADV_HUGEPAGE);
#endif
  return Buffer(data, bytes, [](void* p, std::size_t n) { munmap(p, n); });
}

}  // namespace tandem
