// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes as what a client sends, in pieces as they would come: an HttpError, a request within the limits, or a wait
// for more. The first byte chooses the pieces; whatever it chooses, the same bytes are the same requests.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/rng.h"
#include "serve/http/request_reader.h"

namespace {

using namespace tandem;
using State = RequestReader::State;

constexpr RequestReader::Limits kLimits = {.header_bytes_max = 1024, .headers_max = 8, .body_bytes_max = 512};

// What a stream of bytes came to: the requests that were whole, and the error that ended it.
struct Outcome {
  std::vector<HttpRequest> requests;
  bool refused = false;
};

void check_head(const HttpRequest& request) {
  std::size_t bytes = 0;
  for (const auto& [name, value] : request.headers) {
    TANDEM_CHECK(!name.empty(), "a header without a name");
    for (const char c : name + value) TANDEM_CHECK(c != '\r' && c != '\n' && c != '\0', "a header holds a line end");
    for (const char c : name) TANDEM_CHECK(c < 'A' || c > 'Z', "names are in small letters");
    bytes += name.size() + value.size();
  }
  TANDEM_CHECK(!request.method.empty() && request.path.find('?') == std::string::npos, "a request without its line");
  TANDEM_CHECK(bytes <= kLimits.header_bytes_max && request.headers.size() <= kLimits.headers_max,
               "headers over their limits");
}

// Feeds as a connection does: what a reader leaves stays, and the next request gets a reader of its own.
class Stream {
 public:
  void add(std::string_view bytes) {
    if (outcome_.refused) return;
    pending_ += bytes;
    try {
      while (!pending_.empty() && step()) {
      }
    } catch (const HttpError& error) {
      TANDEM_CHECK(error.status() == 400 || error.status() == 413 || error.status() == 431, "another status");
      TANDEM_CHECK(!error.message().empty(), "a refusal says why");
      outcome_.refused = true;
    }
    TANDEM_CHECK(pending_.size() <= kLimits.header_bytes_max + 4096 || outcome_.refused, "bytes pile up");
  }
  Outcome& outcome() { return outcome_; }

 private:
  bool step() {
    if (!reader_) reader_.emplace(kLimits);
    const State before = reader_->state();
    const std::size_t used = reader_->feed(pending_);
    TANDEM_CHECK(used <= pending_.size(), "more bytes are used than there are");
    pending_.erase(0, used);
    if (before == State::kHead && reader_->state() != State::kHead) check_head(reader_->request());
    if (reader_->state() != State::kWhole) return used > 0;
    TANDEM_CHECK(reader_->request().body.size() <= kLimits.body_bytes_max, "a body over its limit");
    outcome_.requests.push_back(reader_->request());
    reader_.reset();
    return true;
  }

  std::optional<RequestReader> reader_;
  std::string pending_;
  Outcome outcome_;
};

Outcome read_whole(std::string_view text) {
  Stream stream;
  stream.add(text);
  return std::move(stream.outcome());
}

Outcome read_in_pieces(std::string_view text, std::uint64_t seed) {
  Stream stream;
  Rng rng(seed);
  while (!text.empty()) {
    const std::size_t size = std::min<std::size_t>(text.size(), 1 + rng.below(1ULL << rng.below(9)));
    stream.add(text.substr(0, size));
    text.remove_prefix(size);
  }
  return std::move(stream.outcome());
}

void check_same(const Outcome& left, const Outcome& right) {
  TANDEM_CHECK(left.requests.size() == right.requests.size(), "pieces change how many requests there are");
  for (std::size_t i = 0; i < left.requests.size(); ++i) {
    const HttpRequest &a = left.requests[i], &b = right.requests[i];
    TANDEM_CHECK(a.method == b.method && a.path == b.path && a.body == b.body && a.headers == b.headers,
                 "pieces change a request");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  check_same(read_whole(text), read_in_pieces(text, data[0]));
  return 0;
}
