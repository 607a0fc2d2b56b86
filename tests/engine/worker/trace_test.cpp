// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/worker/trace.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

#include "base/json.h"
#include "tests/checkpoint/temporary_folder.h"
#include "tests/engine/recording_engine.h"

namespace tandem {
namespace {

Json written(const Trace& trace) {
  const TemporaryFolder folder;
  const std::string path = folder.path("trace.json");
  EXPECT_TRUE(trace.write(path));
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return parse_json(text.str(), path);
}

TEST(Trace, WritesSpansInMicrosecondsSinceTheFirst) {
  Trace trace;
  TraceTrack* a = trace.add_track("A0 \"odd\" name");
  TraceTrack* f = trace.add_track("F0");
  f->record({"experts", 5'000'000, 5'002'500, 3, 1, 2, 17});
  a->record({"attention", 4'999'000, 5'000'000, 3, 1, 2, 17});
  const Json events = written(trace).at("traceEvents");
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].at("args").at("name"), "A0 \"odd\" name");
  EXPECT_EQ(events[1].at("name"), "attention m2");
  EXPECT_EQ(events[1].at("ts"), 0);
  EXPECT_EQ(events[1].at("dur"), 1);
  EXPECT_EQ(events[3].at("cat"), "experts");
  EXPECT_EQ(events[3].at("tid"), 1);
  EXPECT_EQ(events[3].at("ts"), 1);
  EXPECT_EQ(events[3].at("dur"), 2.5);
  EXPECT_EQ(events[3].at("args"), (Json{{"step", 3}, {"layer", 1}, {"micro_batch", 2}, {"rows", 17}}));
}

TEST(Trace, WithoutSpansIsStillAFile) {
  EXPECT_TRUE(written(Trace()).at("traceEvents").empty());
}

TEST(TraceTrack, CountsWhatDoesNotFit) {
  TraceTrack track("A0", 2);
  for (int i = 0; i < 5; ++i) track.record({"attention", i, i + 1, 0, 0, 0, 1});
  EXPECT_EQ(track.spans().size(), 2u);
  EXPECT_EQ(track.dropped(), 3u);
}

TEST(Trace, NamesThePathThatCannotBeWritten) {
  const Status status = Trace().write("/no/such/folder/trace.json");
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message().find("/no/such/folder/trace.json"), std::string::npos);
}

TEST(Trace, OfAnEngineShowsEveryLayerAndMicroBatch) {
  Trace trace;
  EngineConfig config = small_engine("2A1F", 2);
  config.trace = &trace;
  const auto checkpoint = Checkpoint::open("tests/goldens/step3_text_bf16");
  {
    RecordingEngine engine(*checkpoint, config);
    std::vector<Request> requests(4);
    for (Request& request : requests) {
      request.prompt = random_prompt(10, 1);
      request.new_tokens_max = 100;  // long enough that those of one worker meet
    }
    engine.run(requests);
  }
  std::map<int, std::string> tracks;
  std::map<std::string, std::set<std::tuple<std::string, int, int>>> seen;  // by track: kind, layer, micro-batch
  const Json file = written(trace);
  for (const Json& event : file.at("traceEvents")) {
    if (event.at("ph") == "M")
      tracks[event.at("tid")] = event.at("args").at("name");
    else
      seen[tracks.at(event.at("tid"))].emplace(event.at("cat"), event.at("args").at("layer"),
                                               event.at("args").at("micro_batch"));
  }
  for (int layer = 0; layer < 4; ++layer) {
    for (int m = 0; m < 2; ++m) {
      EXPECT_TRUE(seen["A0"].contains({"attention", layer, m}));
      EXPECT_TRUE(seen["A1"].contains({"attention", layer, m}));
      EXPECT_TRUE(seen["F0"].contains({"experts", layer, m}));
    }
  }
  EXPECT_TRUE(seen["A0"].contains({"head", 0, 1}));
  EXPECT_TRUE(seen["A0"].contains({"embed", 0, 1}));
}

}  // namespace
}  // namespace tandem
