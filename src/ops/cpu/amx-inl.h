// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Tiles of AMX: eight registers, each up to 16 rows of 64 bytes, and the product of two that is added to a third.
// Included by the file for AMX only. Registers are template arguments, for compilers' own functions take nothing but a
// written number.
//
// A tile of x has a row of rows and k along it; one of a weight has in each row four bytes of k of each column, which
// is how panels lie in memory; their product has a row for each of x and 32 bits for each column.

namespace tandem::cpu::HWY_NAMESPACE {

// What a thread's registers hold; the processor reads it in this form.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};

  void set(int tile, int tile_rows, int tile_row_bytes) {
    rows[tile] = static_cast<std::uint8_t>(tile_rows);
    row_bytes[tile] = static_cast<std::uint16_t>(tile_row_bytes);
  }
};

// Gives the calling thread's registers shapes, until it ends: other code pays nothing for them on a change of threads.
class TileSession {
 public:
  TileSession() = default;
  ~TileSession() { asm volatile("tilerelease"); }
  TileSession(const TileSession&) = delete;
  TileSession& operator=(const TileSession&) = delete;

  // What registers held is lost.
  HWY_INLINE void use(const TileShapes& shapes) { asm volatile("ldtilecfg %0" : : "m"(shapes)); }
};

template <int kTile_>
struct Register {
  static constexpr int kTile = kTile_;
};

// Rows are row_bytes apart.
template <int kTile>
HWY_INLINE void load_tile(const void* p, std::int64_t row_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(row_bytes), "i"(kTile) : "memory");
}
template <int kTile>
HWY_INLINE void store_tile(void* p, std::int64_t row_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(row_bytes), "i"(kTile) : "memory");
}
template <int kTile>
HWY_INLINE void clear_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
// sums += x · w, of bytes with a sign.
template <int kSums, int kX, int kW>
HWY_INLINE void multiply_byte_tiles() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kX), "i"(kW));
}
// sums += x · w, of pairs of bf16, in f32: successive pairs' first and second products are two chains of fused
// multiply-adds, and both chains' ends are added to the sum. Subnormal numbers count as zero.
template <int kSums, int kX, int kW>
HWY_INLINE void multiply_bf16_tiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kX), "i"(kW));
}

}  // namespace tandem::cpu::HWY_NAMESPACE
