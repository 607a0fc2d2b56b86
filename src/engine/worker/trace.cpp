// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "engine/worker/trace.h"

#include <cerrno>
#include <fstream>

#include "base/errno_text.h"
#include "base/format.h"
#include "base/json.h"

namespace tandem {

TraceTrack* Trace::add_track(const std::string& name) {
  tracks_.push_back(std::make_unique<TraceTrack>(name, kSpansMax));
  return tracks_.back().get();
}

Status Trace::write(const std::string& path) const {
  std::ofstream file(path);
  Nanoseconds origin = 0;
  for (const auto& track : tracks_)
    if (!track->spans().empty() && (origin == 0 || track->spans().front().begin < origin))
      origin = track->spans().front().begin;
  file << "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n";
  for (std::size_t t = 0; t < tracks_.size(); ++t) {
    const TraceTrack& track = *tracks_[t];
    file << format("{}{{\"ph\":\"M\",\"pid\":1,\"tid\":{},\"name\":\"thread_name\",\"args\":{{\"name\":{}}}}}",
                   t ? ",\n" : "", t, to_line(Json(track.name())));
    for (const TraceTrack::Span& s : track.spans())
      file << format(
          ",\n{{\"ph\":\"X\",\"pid\":1,\"tid\":{},\"name\":\"{} "
          "m{}\",\"cat\":\"{}\",\"ts\":{:.3f},\"dur\":{:.3f},\"args\":{{\"step\":{},"
          "\"layer\":{},\"micro_batch\":{},\"rows\":{}}}}}",
          t, s.name, s.micro_batch, s.name, static_cast<double>(s.begin - origin) / 1e3,
          static_cast<double>(s.end - s.begin) / 1e3, s.step, s.layer, s.micro_batch, s.rows);
    if (track.dropped())
      file << format(
          ",\n{{\"ph\":\"I\",\"pid\":1,\"tid\":{},\"name\":\"{} more spans did not fit\",\"ts\":0,\"s\":\"t\"}}", t,
          track.dropped());
  }
  file << "\n]}\n";
  file.close();
  if (!file)
    return Status(ErrorCode::kInvalidArgument, format("cannot write the trace to {}: {}", path, errno_text(errno)));
  return Status::ok();
}

}  // namespace tandem
