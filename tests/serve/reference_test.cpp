// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/reference.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace tandem {
namespace {

TEST(Reference, the_page_of_docs_says_what_the_tables_say) {
  std::stringstream page;
  page << std::ifstream("docs/serving.md").rdbuf();
  const std::string text = page.str();
  const std::size_t mark = text.find(kReferenceMark);
  ASSERT_NE(mark, std::string::npos);
  EXPECT_EQ(text.substr(mark), serving_reference())
      << "replace the second half of docs/serving.md by what `tandem serve --reference` prints";
}

}  // namespace
}  // namespace tandem
