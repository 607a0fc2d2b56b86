// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// cudaStream_t for headers that do not see CUDA.
#pragma once

struct CUstream_st;

namespace tandem::cuda {
using Stream = CUstream_st*;
}
