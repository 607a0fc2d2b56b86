// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Copies between the memories of two devices of one process, beside the work of both and without the host: what it
// arranges is an order, and it waits for nothing unless told to.
//
// A lane belongs to one device's work, which is done in the order it is given. A point is a place in that order, or the
// end of a copy. Whoever waits for a point waits for work that has been given already, so nobody waits for a peer that
// has gone, and two who wait for each other cannot be.
#pragma once

#include <cstddef>
#include <memory>

namespace tandem {

class CopyPoint {
 public:
  virtual ~CopyPoint() = default;
};
using CopyPointPtr = std::shared_ptr<const CopyPoint>;

// Lanes that copy for each other are of one kind, and so are their points. Throws Error{kInternal} when a device fails.
class CopyLane {
 public:
  virtual ~CopyLane() = default;

  // Once for each pair, before the first copy: opens the direct way between the two memories, where there is one.
  virtual void reach(const CopyLane& other) = 0;
  // Behind the work given so far. The thread that gives the work.
  virtual CopyPointPtr point() = 0;
  // From this lane's memory to a peer's, after both points; returns the copy's end. Any thread.
  virtual CopyPointPtr copy(void* to, const void* from, std::size_t bytes, const CopyPoint& from_ready,
                            const CopyPoint& to_ready) = 0;
  // Work that is given from now on comes after the point. The thread that gives the work.
  virtual void follow(const CopyPoint& point) = 0;
  // Returns when the point is reached. Any thread.
  virtual void wait(const CopyPoint& point) = 0;
};

}  // namespace tandem
