// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

//! Pictures behind a C interface: decoding in bounded memory, and resizing. The C++ side (src/image) is the only caller
//! and the only place that knows this header. Statuses and buffers are those of tandem-text.

mod decode;
mod resize;

pub use decode::*;
pub use resize::*;
