// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

//! Tokenizers, chat templates and grammars behind a C interface. The C++ side (src/text) is the only caller and the only place
//! that knows this header; it checks sizes and allowed parts of a tokenizer.json before the bytes come here.

pub mod border;
mod grammar;
mod growth;
mod strftime;
mod template;
mod tokenizer;

pub use border::*;
pub use grammar::*;
pub use template::*;
pub use tokenizer::*;
