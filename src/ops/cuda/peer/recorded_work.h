// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Work of one stream, recorded once as a CUDA graph and launched again and again.
#pragma once

#include <functional>

#include "ops/cuda/stream.h"

struct CUevent_st;
struct CUgraphExec_st;

namespace tandem::cuda {

class RecordedWork {
 public:
  RecordedWork() = default;
  // record enqueues on the stream that it is given and waits for nothing. It may fork to other streams and join them.
  RecordedWork(Stream stream, const std::function<void()>& record);
  RecordedWork(RecordedWork&& other) noexcept;
  RecordedWork& operator=(RecordedWork&& other) noexcept;
  ~RecordedWork();

  void launch(Stream stream) const;

 private:
  CUgraphExec_st* graph_ = nullptr;
};

// A place in one stream that another waits for, also while both are recorded.
class StreamPoint {
 public:
  StreamPoint();
  StreamPoint(const StreamPoint&) = delete;
  StreamPoint& operator=(const StreamPoint&) = delete;
  ~StreamPoint();

  void reach(Stream stream) const;     // behind what is in stream so far
  void wait_for(Stream stream) const;  // what comes next in stream is after the place reached last

 private:
  CUevent_st* event_ = nullptr;
};

// other goes on after what is in stream so far; and join_stream back.
void fork_stream(Stream stream, Stream other);
inline void join_stream(Stream stream, Stream other) {
  fork_stream(other, stream);
}

}  // namespace tandem::cuda
