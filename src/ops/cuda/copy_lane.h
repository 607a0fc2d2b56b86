// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// A CopyLane of a stream (tensor/copy_lane.h): points are events, copies are the copy engine's, on a stream beside it.
// Between GPUs that reach each other bytes go over NVLink or PCIe directly, else CUDA takes them through the host.
#pragma once

#include <memory>

#include "ops/cuda/stream.h"
#include "tensor/copy_lane.h"

namespace tandem::cuda {

// Of a stream of the device. The stream has to live as long as points are made and followed.
std::unique_ptr<CopyLane> make_copy_lane(int device, Stream stream);

}  // namespace tandem::cuda
