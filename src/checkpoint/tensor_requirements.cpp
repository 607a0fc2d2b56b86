// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "checkpoint/tensor_requirements.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

constexpr std::size_t kListedMax = 20;

// One kind of fault: the first few, and how many there are.
class FaultList {
 public:
  explicit FaultList(std::string_view title) : title_(title) {}
  void add(std::string fault) {
    if (count_ < kListedMax) faults_.push_back(std::move(fault));
    ++count_;
  }
  bool is_empty() const { return count_ == 0; }
  void append_to(std::string& text) const {
    if (count_ == 0) return;
    text += format("\n  {} ({}): {}", title_, count_, join(faults_, ", "));
    if (count_ > faults_.size()) text += format(" and {} more", count_ - faults_.size());
  }

 private:
  std::string_view title_;
  std::vector<std::string> faults_;
  std::size_t count_ = 0;
};

std::string to_list(const std::vector<DType>& dtypes) {
  std::string text;
  for (const DType dtype : dtypes) text += format("{}{}", text.empty() ? "" : " or ", name(dtype));
  return text;
}

}  // namespace

bool matches(std::string_view pattern, std::string_view text) {
  // Greedy with one step back: the last star seen takes one character more whenever the rest does not fit.
  std::size_t p = 0, t = 0, star = std::string_view::npos, star_text = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_text = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p, ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

void check_tensors(const TensorRequirements& requirements, std::span<const TensorInfo> tensors, std::string_view what) {
  std::unordered_map<std::string_view, const TensorInfo*> present;
  for (const TensorInfo& info : tensors) present.emplace(info.name, &info);

  FaultList missing("missing"), unexpected("unexpected"), shape("wrong shape"), dtype("wrong type"),
      unsupported("unsupported type");
  std::unordered_set<std::string_view> wanted;
  for (const RequiredTensor& need : requirements.required) {
    wanted.insert(need.name);
    const auto found = present.find(need.name);
    if (found == present.end()) {
      missing.add(need.name);
      continue;
    }
    const TensorInfo& info = *found->second;
    if (info.shape != need.shape)
      shape.add(format("{} is {}, expected {}", need.name, to_string(info.shape), to_string(need.shape)));
    if (!info.dtype) {
      unsupported.add(format("{} {}", info.type_name, need.name));
    } else if (std::ranges::find(need.dtypes, *info.dtype) == need.dtypes.end()) {
      dtype.add(format("{} is {}, expected {}", need.name, name(*info.dtype), to_list(need.dtypes)));
    }
  }
  for (const TensorInfo& info : tensors) {
    const auto ignores = [&](const std::string& pattern) { return matches(pattern, info.name); };
    if (!wanted.contains(info.name) && std::ranges::none_of(requirements.ignored, ignores))
      unexpected.add(printable(info.name));
  }

  std::string text;
  for (const FaultList* list : {&missing, &unexpected, &shape, &dtype, &unsupported}) list->append_to(text);
  if (text.empty()) return;
  const bool only_unsupported = missing.is_empty() && unexpected.is_empty() && shape.is_empty() && dtype.is_empty();
  throw Error(only_unsupported ? ErrorCode::kUnsupported : ErrorCode::kInvalidData,
              format("{}: the tensors do not fit the model:{}", what, text));
}

}  // namespace tandem
