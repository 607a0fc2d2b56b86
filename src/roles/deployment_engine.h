// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A deployment file as the engine's own settings, and what of such a file this version does not do.
#pragma once

#include <memory>
#include <string>

#include "deploy/deployment.h"
#include "engine/settings/engine_config.h"
#include "roles/control_message.h"
#include "transport/ucx/ucx.h"
#include "trust/credentials.h"

namespace tandem {

class Checkpoint;

// insecure: as the command line says, beside the file's own trust.insecure. Throws Error: kUnsupported naming what is
// not done yet, kPermissionDenied for workers elsewhere where there is neither trust nor insecure.
void check_supported(const Deployment& deployment, bool insecure);

// What the processes show each other; null where the deployment has no trust. Reads files. Throws Error naming them.
std::shared_ptr<const Credentials> credentials_of(const Deployment& deployment);

Layout layout_of(const Deployment& deployment);
// "A0", "F1", "F1r1" of the first replica of F1: as traces and metrics call it.
std::string worker_name(const Deployment& deployment, std::int32_t rank);

// Of a worker with this rank; threads are its share of those of its host. For resolve().
EngineConfig engine_config(const Deployment& deployment, std::int32_t rank);
// Of the front, which sees pictures: its share of this machine's, beside workers of the same host.
std::int32_t front_threads(const Deployment& deployment);

// What the processes of a deployment compare. The fingerprint of a model is made of its configuration, its tensors'
// names, types and shapes, and a few bytes of some of them: no weights are read for it.
Identity identity_of(const Deployment& deployment, const Checkpoint& checkpoint);
// What differs first, in words: "layout is 2A1F, the other has 1A1F"; empty: nothing.
std::string difference(const Identity& mine, const Identity& other);

// config and model as the workers have them.
UcxConfig ucx_config(const Deployment& deployment, std::int32_t rank, const EngineConfig& config,
                     const ModelConfig& model);

}  // namespace tandem
