// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

//! The one static library that C++ links. It adds nothing.

pub use tandem_image::*;
pub use tandem_text::*;
