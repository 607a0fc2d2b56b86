// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Text formatting. The only place that includes fmt; the rest of the code writes tandem::format("…", …). Formats are
// checked when they are compiled. What formats is compiled once, in format.cpp: fmt's own templates would cost every
// file that formats two to four seconds.
#pragma once

#if __has_include(<fmt/base.h>)  // fmt 11
#include <fmt/base.h>
#else
#include <fmt/core.h>
#endif

#include <iterator>
#include <string>
#include <string_view>
#include <type_traits>

namespace tandem {

std::string format_arguments(fmt::string_view text, fmt::format_args arguments);

// format("{} of {}", 3, "four"): numbers, characters, strings and pointers.
template <class... T>
std::string format(fmt::format_string<T...> text, T&&... values) {
  return format_arguments(text, fmt::make_format_args(values...));
}

// The values of a range as text, with a separator between them: format("{}", join(list, ", ")).
template <class Iterator>
std::string join(Iterator begin, Iterator end, std::string_view separator) {
  std::string text;
  for (Iterator value = begin; value != end; ++value) {
    if (value != begin) text += separator;
    if constexpr (std::is_convertible_v<decltype(*value), std::string_view>) {
      text += std::string_view(*value);
    } else {
      text += format("{}", *value);
    }
  }
  return text;
}
template <class Range>
std::string join(const Range& range, std::string_view separator) {
  return join(std::begin(range), std::end(range), separator);
}

}  // namespace tandem
