// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// An authority for one deployment and the certificates that it signs: ECDSA on P-256, PEM. For deployments without a
// public-key infrastructure of their own; whoever has one takes that.
#pragma once

#include <cstdint>
#include <string>

namespace tandem {

struct Pem {
  std::string certificate;
  std::string key;
};

// Signs for nobody but servers and clients, and makes no further authorities.
Pem make_authority(const std::string& name, std::int32_t days);
// For a host as the deployment file names it: an address, with or without brackets, or a name. Throws
// Error{kInvalidData} for an authority that is none.
Pem make_certificate(const Pem& authority, const std::string& host, std::int32_t days);

}  // namespace tandem
