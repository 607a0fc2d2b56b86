// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Any bytes to either end of a session, in two pieces: alone, or in place of a part of a real handshake. Nobody is ever
// taken for a peer and nothing of what came is handed on.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "trust/credentials.h"

using namespace tandem;

namespace {

const Credentials& secret() {
  static const std::shared_ptr<const Credentials> credentials = Credentials::of_secret(SecretKey{});
  return *credentials;
}

// Its first flight.
std::vector<std::byte> begin_of_front() {
  const std::unique_ptr<TlsSession> front = secret().begin(TlsSide::kFront, "");
  std::vector<std::byte> out;
  front->take_out(out);
  return out;
}

void feed(TlsSide side, std::span<const std::byte> first, std::span<const std::byte> second) {
  const std::unique_ptr<TlsSession> session = secret().begin(side, "");
  std::vector<std::byte> plain, out;
  session->take_out(out);
  for (const std::span<const std::byte> piece : {first, second}) {
    const Status status = session->receive(piece, plain);
    session->take_out(out);
    if (!status) {
      TANDEM_CHECK(!status.error().message().empty(), "a refusal says why");
      break;
    }
  }
  TANDEM_CHECK(!session->established(), "nobody without the secret is a peer");
  TANDEM_CHECK(plain.empty(), "nothing of a stranger is handed on");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data + 3, size - 3));
  const std::size_t cut = data[0] % (bytes.size() + 1);
  feed(TlsSide::kFront, bytes.first(cut), bytes.subspan(cut));
  feed(TlsSide::kWorker, bytes.first(cut), bytes.subspan(cut));
  // A real beginning, from somewhere on replaced: the worker reads on into what is not the front's.
  std::vector<std::byte> hello = begin_of_front();
  const std::size_t at = (data[1] + data[2] * 256u) % hello.size();
  std::copy_n(bytes.begin(), std::min(bytes.size(), hello.size() - at),
              hello.begin() + static_cast<std::ptrdiff_t>(at));
  feed(TlsSide::kWorker, hello, bytes);
  return 0;
}
