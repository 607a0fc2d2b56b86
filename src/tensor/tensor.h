// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A non-owning view of memory with a type and a shape, and the buffer that owns such memory.
//
// A Tensor is row-major and dense but for the distance between rows of its first axis (row_stride, in elements), so
// that a column range of a fused projection is a view too. Quantised data is never seen through a Tensor: weights have
// a type of their own (ops/backend.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>

#include "base/check.h"
#include "tensor/dtype.h"

namespace tandem {

// Up to four dimensions; unused ones are 1.
struct Shape {
  std::array<std::int64_t, 4> dims{1, 1, 1, 1};
  int rank = 0;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> list) {
    TANDEM_CHECK(list.size() <= 4, "at most four dimensions");
    for (std::int64_t d : list) dims[rank++] = d;
  }
  std::int64_t operator[](int axis) const { return dims[axis]; }
  std::int64_t elements() const { return dims[0] * dims[1] * dims[2] * dims[3]; }
  // Elements of one row of the first axis.
  std::int64_t row_elements() const { return dims[1] * dims[2] * dims[3]; }
  bool operator==(const Shape&) const = default;
};

std::string to_string(const Shape& shape);  // "[3, 576]"

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape;
  std::int64_t row_stride = 0;  // elements between rows of the first axis

  Tensor() = default;
  Tensor(void* data, DType dtype, Shape shape)
      : data(data), dtype(dtype), shape(shape), row_stride(shape.row_elements()) {}

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  // First element of row i of the first axis.
  template <class T>
  T* row(std::int64_t i) const {
    return as<T>() + i * row_stride;
  }
  float* f32() const {
    TANDEM_CHECK(dtype == DType::kF32, "tensor is not f32");
    return as<float>();
  }
  std::int64_t rows() const { return shape[0]; }
  bool is_dense() const { return row_stride == shape.row_elements(); }
  explicit operator bool() const { return data != nullptr; }

  // Rows [begin, begin + count) of the first axis.
  Tensor slice_rows(std::int64_t begin, std::int64_t count) const;
  // Columns [begin, begin + count) of a [rows, columns] tensor; keeps the row stride.
  Tensor slice_columns(std::int64_t begin, std::int64_t count) const;
};

// Memory with an owner; released by the deleter of whoever allocated it. Move-only.
class Buffer {
 public:
  using Deleter = void (*)(void*, std::size_t);
  Buffer() = default;
  Buffer(void* data, std::size_t bytes, Deleter deleter) : data_(data), bytes_(bytes), deleter_(deleter) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer old(std::move(other));
    swap(old);
    return *this;
  }
  ~Buffer() {
    if (data_) deleter_(data_, bytes_);
  }
  void* data() const { return data_; }
  std::byte* bytes_data() const { return static_cast<std::byte*>(data_); }
  std::size_t bytes() const { return bytes_; }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(deleter_, other.deleter_);
  }
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  Deleter deleter_ = nullptr;
};

// 64-byte aligned, zeroed host memory. Throws Error{kOutOfResources} with the size when the machine has none.
// Large requests are mapped, so that pages never touched cost nothing.
Buffer allocate_host(std::size_t bytes);

}  // namespace tandem
