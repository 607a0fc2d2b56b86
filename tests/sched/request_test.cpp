// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "sched/request.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

TEST(Request, FinishReasonsHaveTheNamesThatClientsSee) {
  EXPECT_EQ(name(FinishReason::kNone), "none");
  EXPECT_EQ(name(FinishReason::kStop), "stop");
  EXPECT_EQ(name(FinishReason::kLength), "length");
  EXPECT_EQ(name(FinishReason::kCancelled), "cancelled");
  EXPECT_EQ(name(FinishReason::kError), "error");
}

}  // namespace
}  // namespace tandem
