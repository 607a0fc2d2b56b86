// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How long a message takes from one process to another over the ucx transport: two processes of this machine that send
// it to and fro.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trust/credentials.h"

namespace tandem {

struct HandOverBench {
  std::string transports = "posix,self";  // as UCX names them
  std::int64_t rounds = 1000;             // there and back, for each size and kind
  std::vector<std::int64_t> sizes;        // bytes of a message, multiples of 1024
};

struct HandOverTime {
  std::int64_t bytes = 0;
  double message_us = 0;  // one way: half of the median round
  double frame_us = 0;    // the same with the checksum made by who sends and checked by who receives
  double sealed_us = 0;   // that, sealed on the way (link.encrypt)
};

// Forks, so no thread may run. Both processes poll without sleeping. Throws Error.
std::vector<HandOverTime> measure_hand_overs(const HandOverBench& bench);

// What TLS takes of the processor for a control connection, both sides together, without a network: medians.
struct TlsTime {
  double handshake_us = 0;
  double message_us = 0;  // one of 64 tokens' news, from the front to the worker, encrypted and decrypted
};
TlsTime measure_tls(const Credentials& front, const Credentials& worker, const std::string& host, std::int64_t rounds);

// What ucx_perftest (Debian's ucx-utils) says of the same: the median one way of its active messages. 0: it is not
// installed, or does not say.
double ucx_perftest_us(const std::string& transports, std::int64_t bytes, std::int64_t rounds);

}  // namespace tandem
