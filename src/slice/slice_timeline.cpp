// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/slice_timeline.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <limits>
#include <vector>

#include "base/errno_text.h"
#include "base/error.h"
#include "base/format.h"

namespace tandem {

namespace {

enum Process : int { kAttention = 1, kFfn = 2, kLinks = 3 };
constexpr const char* kFfnRows[] = {"gather", "products", "sums"};

class Timeline {
 public:
  Timeline(const SliceTrace& trace, std::int32_t first)
      : trace_(trace), first_(first), origin_(std::numeric_limits<double>::max()) {
    for (std::int32_t step = first; step < trace.steps; ++step)
      for (std::int32_t m = 0; m < trace.micro_batches; ++m) {
        const LayerTimes& t = trace.at(step, 0, m);
        origin_ = std::min(origin_, trace.attention ? t.returned : t.seen);
      }
  }

  std::string text() {
    name_rows();
    for (std::int32_t step = first_; step < trace_.steps; ++step)
      for (std::int32_t layer = 0; layer < trace_.layers; ++layer)
        for (std::int32_t m = 0; m < trace_.micro_batches; ++m) add_layer(step, layer, m);
    return "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n" + events_ + "\n]}\n";
  }

 private:
  void add(const std::string& event) { events_ += (events_.empty() ? "" : ",\n") + event; }

  void name(Process process, int row, const std::string& text) {
    add(format("{{\"ph\":\"M\",\"pid\":{},\"tid\":{},\"name\":\"{}\",\"args\":{{\"name\":\"{}\"}}}}",
               static_cast<int>(process), std::max(row, 0), row < 0 ? "process_name" : "thread_name", text));
  }

  void name_rows() {
    if (trace_.attention) name(kAttention, -1, "attention GPU");
    if (trace_.ffn) name(kFfn, -1, "FFN GPU");
    const bool links = trace_.attention && trace_.ffn;
    if (links) name(kLinks, -1, "links");
    for (std::int32_t m = 0; m < trace_.micro_batches; ++m) {
      if (trace_.attention) name(kAttention, m, format("micro-batch {}", m));
      if (links) name(kLinks, m, format("micro-batch {}", m));
    }
    if (trace_.ffn)
      for (int row = 0; row < 3; ++row) name(kFfn, row, kFfnRows[row]);
  }

  struct Span {
    Process process;
    int row;
    const char* name;
    double begin, end;
  };

  void add_layer(std::int32_t step, std::int32_t layer, std::int32_t m) {
    const LayerTimes& t = trace_.at(step, layer, m);
    std::vector<Span> spans;
    if (trace_.attention) spans.push_back({kAttention, m, "attention", t.returned, t.handed_over});
    if (trace_.ffn) {
      spans.push_back({kFfn, 0, "gather", t.seen, t.gathered});
      spans.push_back({kFfn, 1, "products", t.begun, t.multiplied});
      spans.push_back({kFfn, 2, "sums", t.multiplied, t.sent});
    }
    if (trace_.attention && trace_.ffn) {
      spans.push_back({kLinks, m, "to the FFN", t.handed_over, t.seen});
      if (const double back = returned_after(step, layer, m); back > 0)
        spans.push_back({kLinks, m, "to attention", t.sent, back});
    }
    for (const Span& s : spans)
      add(format(
          "{{\"ph\":\"X\",\"pid\":{},\"tid\":{},\"name\":\"{} m{}\",\"cat\":\"{}\",\"ts\":{:.3f},\"dur\":{:.3f},"
          "\"args\":{{\"step\":{},\"layer\":{},\"micro_batch\":{}}}}}",
          static_cast<int>(s.process), s.row, s.name, m, s.name, s.begin - origin_, s.end - s.begin, step, layer, m));
  }

  // 0: after the end of the trace.
  double returned_after(std::int32_t step, std::int32_t layer, std::int32_t m) const {
    if (layer + 1 < trace_.layers) return trace_.at(step, layer + 1, m).returned;
    return step + 1 < trace_.steps ? trace_.at(step + 1, 0, m).returned : 0;
  }

  const SliceTrace& trace_;
  std::int32_t first_;
  double origin_;
  std::string events_;
};

}  // namespace

std::string slice_timeline(const SliceTrace& trace, std::int32_t steps) {
  return Timeline(trace, std::max(0, trace.steps - steps)).text();
}

void write_slice_timeline(const SliceTrace& trace, std::int32_t steps, const std::string& path) {
  std::ofstream file(path);
  file << slice_timeline(trace, steps);
  file.close();
  if (!file)
    throw Error(ErrorCode::kInvalidArgument, format("cannot write the timeline to {}: {}", path, errno_text(errno)));
}

}  // namespace tandem
