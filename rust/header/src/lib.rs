// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

//! No code. This package exists for its test, so that checking the header does not build the libraries themselves.
