// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/cuda/device.h"

#include <gtest/gtest.h>

namespace tandem::cuda {
namespace {

DeviceFacts hopper() {
  return {.built = true, .driver_version = 13000, .devices = 1, .error = {}, .name = "H100", .major = 9, .minor = 0};
}

TEST(CudaDevice, AHopperGpuWithACurrentDriverIsUsable) {
  EXPECT_EQ(why_unusable(hopper()), "");
  DeviceFacts newer = hopper();
  newer.driver_version = 14020;
  EXPECT_EQ(why_unusable(newer), "");
}

TEST(CudaDevice, NamesWhatIsMissing) {
  DeviceFacts facts;
  EXPECT_EQ(why_unusable(facts), "this program was built without CUDA (cmake preset cuda, or ./dev build cuda)");
  facts.built = true;
  EXPECT_EQ(why_unusable(facts), "there is no NVIDIA driver on this machine");
  facts.driver_version = 12080;
  EXPECT_EQ(why_unusable(facts), "the NVIDIA driver serves CUDA 12.8, this program needs 13.0 or newer");
  facts.driver_version = 13010;
  EXPECT_EQ(why_unusable(facts), "the NVIDIA driver sees no GPU");
  facts.error = "system not yet initialized";
  EXPECT_EQ(why_unusable(facts), "CUDA says: system not yet initialized");
  facts = hopper();
  facts.name = "A100";
  facts.major = 8;
  EXPECT_EQ(why_unusable(facts), "A100 has compute capability 8.0, the kernels are for 9.0 (H100, H200)");
}

TEST(CudaDevice, AGpuThatIsNotThereIsToldWithHowManyThereAre) {
  DeviceFacts facts = hopper();
  facts.devices = 2;
  facts.device = 1;
  EXPECT_EQ(why_unusable(facts), "");
  facts.device = 2;
  EXPECT_EQ(why_unusable(facts), "there is no GPU 2, this machine has 2, numbered from 0 (--gpu-a, --gpu-f, devices)");
  const DeviceFacts far = look_at_device(1000);
  EXPECT_EQ(far.bytes_free, 0u);
  EXPECT_FALSE(why_unusable(far).empty());
}

TEST(CudaDevice, LookingNeverFails) {
  const DeviceFacts facts = look_at_device();
  EXPECT_EQ(why_unusable(facts).empty(), facts.built && facts.devices > 0 && facts.major == 9 && facts.error.empty());
}

}  // namespace
}  // namespace tandem::cuda
