// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "model/share.h"

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "ops/weight.h"

namespace tandem {

FfnShare ffn_share(std::int32_t index, const FfnSplit& split, std::int32_t experts) {
  const std::int32_t count = split.workers();
  TANDEM_CHECK(index >= 0 && index < count, "an FFN worker outside the layout");
  FfnShare share;
  const std::int32_t group = index / split.width;
  share.expert_begin = static_cast<std::int32_t>(static_cast<std::int64_t>(experts) * group / split.experts);
  share.expert_end = static_cast<std::int32_t>(static_cast<std::int64_t>(experts) * (group + 1) / split.experts);
  share.width_count = KSlices::kCountMax / split.width;
  share.width_first = index % split.width * share.width_count;
  std::vector<std::int32_t> parts{KSlices::kCountMax};
  while (static_cast<std::int32_t>(parts.size()) < std::min<std::int32_t>(count, KSlices::kCountMax)) {
    const auto largest = std::max_element(parts.rbegin(), parts.rend());
    *largest /= 2;
    parts.insert(largest.base(), *largest);
  }
  share.slice_first = 0;
  share.slice_count = 0;
  if (index < static_cast<std::int32_t>(parts.size())) {
    for (std::int32_t i = 0; i < index; ++i) share.slice_first += parts[i];
    share.slice_count = parts[index];
  }
  return share;
}

FfnShare ffn_share(std::int32_t index, std::int32_t count, std::int32_t experts) {
  return ffn_share(index, FfnSplit{.experts = count, .width = 1}, experts);
}

}  // namespace tandem
