// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/peer/bulk_copies.h"

#include <gtest/gtest.h>

#include <random>

#include "ops/cuda/device_memory.h"
#include "ops/cuda/peer/devices.h"
#include "tests/ops/cuda/gpu_test.h"

namespace tandem::cuda {
namespace {

using Words = std::vector<std::uint32_t>;

class BulkCopiesTest : public GpuTest {
 protected:
  // The second GPU where there is one, else the first again.
  int other() const { return device_count() > 1 ? 1 : 0; }

  static Words random_words(std::size_t bytes) {
    std::mt19937 random(static_cast<unsigned>(bytes));
    Words words(bytes / 4);
    for (std::uint32_t& word : words) word = random();
    return words;
  }
};

// Both directions between two GPUs and one within: a single access, a part of a block, more blocks than warps.
TEST_F(BulkCopiesTest, EveryByteArrivesAndNoneBeyond) {
  connect_devices(0, other());
  for (const std::size_t bytes : {std::size_t{16}, std::size_t{8'208}, std::size_t{9} << 20}) {
    const Words here = random_words(bytes), there = random_words(bytes + 4096);
    const DeviceMemory from = DeviceMemory::of(here);
    DeviceMemory to(bytes + 256), within(bytes + 256), far_from, far_to;
    to.fill(0x55);
    within.fill(0x55);
    {
      const OnDevice on(other());
      far_from = DeviceMemory::of(there);
      far_to = DeviceMemory(bytes + 256);
      far_to.fill(0x55);
      synchronise_device();
    }
    synchronise_device();
    const auto size = static_cast<std::int64_t>(bytes);
    BulkCopies op;
    op.pieces[0] = {far_to.as<std::byte>(), from.as<std::byte>(), size};
    op.pieces[1] = {to.as<std::byte>(), far_from.as<std::byte>(), size};
    op.pieces[2] = {within.as<std::byte>(), from.as<std::byte>(), size};
    run(op, nullptr);
    synchronise();
    const auto expect = [&](const DeviceMemory& memory, const Words& words) {
      const Words found = memory.download<std::uint32_t>();
      EXPECT_TRUE(std::equal(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(bytes / 4), words.begin()))
          << bytes;
      for (std::size_t i = bytes / 4; i < found.size(); ++i) ASSERT_EQ(found[i], 0x55555555u) << bytes;
    };
    expect(far_to, here);
    expect(to, there);
    expect(within, here);
  }
}

TEST_F(BulkCopiesTest, NothingIsNoLaunch) {
  run(BulkCopies{}, nullptr);
  synchronise();
}

}  // namespace
}  // namespace tandem::cuda
