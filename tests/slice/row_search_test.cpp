// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/row_search.h"

#include <gtest/gtest.h>

#include <vector>

namespace tandem {
namespace {

using Time = std::optional<double>;

constexpr std::int32_t kStep = 8;

struct Search {
  std::vector<std::int32_t> tried;
  std::int32_t found = 0;

  template <class TimeOf>
  Search(std::int32_t first, double most, TimeOf time_of) {
    found = most_rows({.first = first, .step = kStep}, most, [&](std::int32_t rows) -> Time {
      tried.push_back(rows);
      return time_of(rows);
    });
  }
};

TEST(RowSearch, FindsTheLastMultipleThatKeepsTheTime) {
  // 10 ms and 0.25 ms a row: 160 rows are 50 ms.
  for (const std::int32_t first : {8, 128, 160, 168, 400}) {
    const Search search(first, 50'000, [](std::int32_t rows) -> Time { return 10'000 + 250. * rows; });
    EXPECT_GE(search.found, 144) << first;
    EXPECT_LE(search.found, 160) << first;
    EXPECT_LE(search.tried.size(), static_cast<std::size_t>(kRowTriesMax));
    for (const std::int32_t rows : search.tried) EXPECT_EQ(rows % kStep, 0);
  }
}

// 2.3 ms a row: 21 rows are 48.3 ms.
TEST(RowSearch, WhereRowsAreFewItCountsThemSinglyThere) {
  const RowGrid grid{.first = 16, .step = 1};
  EXPECT_EQ(most_rows(grid, 50'000, [](std::int32_t rows) -> Time { return 2'300. * rows; }), 21);
}

// As tiles of products do: 42 ms up to 17 rows, 49 up to 25, then 60.
TEST(RowSearch, GoesOverAStairWhoseStepsAreFlat) {
  const RowGrid grid{.first = 16, .step = 1};
  EXPECT_EQ(most_rows(grid, 50'000,
                      [](std::int32_t rows) -> Time { return rows <= 17   ? 42'000
                                                             : rows <= 25 ? 49'000
                                                                          : 60'000; }),
            25);
}

// Weights bound it: 60 ms however few rows there are, down to a number where it falls at once.
TEST(RowSearch, GoesDownWhereTimeHardlyFalls) {
  for (const std::int32_t most : {6, 12, 30, 48, 78}) {
    int tries = 0;
    const RowGrid grid{.first = 96, .step = 6};
    const std::int32_t found = most_rows(grid, 50'000, [&](std::int32_t rows) -> Time {
      ++tries;
      return rows > most ? 60'000 : 20'000;
    });
    EXPECT_GE(found, most / 2) << most;
    EXPECT_LE(found, most) << most;
    EXPECT_LE(tries, kRowTriesMax) << most;
  }
}

TEST(RowSearch, SaysNoneOnlyWhenOneStepWasTried) {
  const Search slow(1024, 50'000, [](std::int32_t rows) -> Time { return 55'000. + rows; });
  EXPECT_EQ(slow.found, 0);
  EXPECT_EQ(slow.tried.size(), static_cast<std::size_t>(kRowTriesMax));
  EXPECT_EQ(slow.tried.back(), kStep);
  EXPECT_EQ(Search(1024, 50'000, [](std::int32_t rows) -> Time { return rows > kStep ? 60'000 : 20'000; }).found,
            kStep);
}

TEST(RowSearch, TriesNothingTwice) {
  const Search search(128, 50'000, [](std::int32_t rows) -> Time { return 49'000 + 9. * rows; });
  for (std::size_t i = 0; i < search.tried.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(search.tried[i], search.tried[j]);
}

TEST(RowSearch, WhatHasNoRoomIsTooMany) {
  const Search search(512, 50'000, [](std::int32_t rows) -> Time {
    if (rows > 100) return std::nullopt;
    return 100. * rows;
  });
  EXPECT_GE(search.found, 64);
  EXPECT_LE(search.found, 100);
}

TEST(RowSearch, NoneWhereEvenTheFewestAreTooSlow) {
  const Search search(64, 50'000, [](std::int32_t) -> Time { return 60'000; });
  EXPECT_EQ(search.found, 0);
  EXPECT_EQ(Search(1, 50'000, [](std::int32_t) -> Time { return std::nullopt; }).found, 0);
}

}  // namespace
}  // namespace tandem
