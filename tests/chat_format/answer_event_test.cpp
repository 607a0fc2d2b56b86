// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "chat_format/answer_event.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

using Kind = AnswerEvent::Kind;

TEST(AnswerEvent, joins_text_of_one_kind_and_one_call) {
  AnswerEvents events;
  add_event(events, Kind::kContent, "a");
  add_event(events, Kind::kContent, "");
  add_event(events, Kind::kContent, "b");
  add_event(events, Kind::kCallBegin, "f", 0);
  add_event(events, Kind::kArguments, "{", 0);
  add_event(events, Kind::kArguments, "}", 0);
  add_event(events, Kind::kArguments, "{}", 1);
  add_event(events, Kind::kCallEnd, "", 1);
  add_event(events, Kind::kCallEnd, "", 1);
  EXPECT_EQ(events, (AnswerEvents{{Kind::kContent, 0, "ab"},
                                  {Kind::kCallBegin, 0, "f"},
                                  {Kind::kArguments, 0, "{}"},
                                  {Kind::kArguments, 1, "{}"},
                                  {Kind::kCallEnd, 1, ""},
                                  {Kind::kCallEnd, 1, ""}}));
}

}  // namespace
}  // namespace tandem
