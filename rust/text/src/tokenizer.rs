// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

//! Tokenizers: from a checked tokenizer.json to ids and back.
//!
//! A tokenizer has ordinary added tokens (runs of spaces, say) and control tokens (turn markers). Text that a user typed
//! is encoded with the ordinary ones only, so that it can never forge a turn.

use std::collections::HashSet;

use serde::Deserialize;
use tokenizers::{
    AddedVocabulary, Model, OffsetType, PostProcessor, PreTokenizedString, PreTokenizer, Token, Tokenizer,
};

use crate::border::{answer, bytes_of, text_of, Failure, Outcome, TandemBuffer, TandemStatus};

/// tandem_tokenizer_encode: apply the template of the model (usually: begin with the bos token).
pub const TANDEM_ENCODE_ADD_SPECIAL: u32 = 1;
/// tandem_tokenizer_encode: text that spells a control token becomes that token.
pub const TANDEM_ENCODE_PARSE_SPECIAL: u32 = 2;

/// Flags in the table of tandem_tokenizer_table.
pub const TANDEM_TOKEN_PRESENT: u8 = 1;
pub const TANDEM_TOKEN_SPECIAL: u8 = 2;
pub const TANDEM_TOKEN_CONTROL: u8 = 4;

/// Ids above this are refused: tables are indexed by id.
pub const TANDEM_TOKEN_ID_MAX: u32 = (1 << 22) - 1;

pub struct TandemTokenizer {
    inner: Tokenizer,
    ordinary: AddedVocabulary,
    control: HashSet<u32>,
    id_max: u32,
}

/// The part of a tokenizer.json that says which id every added token should have. The library gives ids by its own count.
#[derive(Deserialize)]
struct AddedTokens {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

fn check_added_ids(json: &[u8], tokenizer: &Tokenizer) -> Outcome<()> {
    let wanted: AddedTokens = serde_json::from_slice(json).map_err(Failure::invalid_data)?;
    for AddedToken { id, content } in wanted.added_tokens {
        if tokenizer.token_to_id(&content) != Some(id) {
            return Err(Failure::invalid_data(format!("added token {content:?} cannot have id {id}")));
        }
    }
    Ok(())
}

/// A control token is special, or is matched raw and can be seen. Runs of white space are ordinary text.
fn is_control(token: &tokenizers::AddedToken) -> bool {
    let visible = token.content.chars().any(|c| !c.is_whitespace() && c != '\u{2581}');
    token.special || (!token.normalized && visible)
}

impl TandemTokenizer {
    fn load(json: &[u8]) -> Outcome<Self> {
        let inner = Tokenizer::from_bytes(json).map_err(Failure::invalid_data)?;
        check_added_ids(json, &inner)?;
        let mut ids = HashSet::new();
        for (content, id) in inner.get_vocab(true) {
            if id > TANDEM_TOKEN_ID_MAX {
                return Err(Failure::invalid_data(format!(
                    "token {content:?} has id {id}, limit is {TANDEM_TOKEN_ID_MAX}"
                )));
            }
            if !ids.insert(id) {
                return Err(Failure::invalid_data(format!("two tokens have id {id}, one is {content:?}")));
            }
        }
        let id_max = ids.into_iter().max().ok_or_else(|| Failure::invalid_data("the vocabulary is empty"))?;
        let mut control = HashSet::new();
        let mut plain: Vec<_> = Vec::new();
        for (id, token) in inner.get_added_vocabulary().get_added_tokens_decoder() {
            if is_control(token) {
                control.insert(*id);
            } else {
                plain.push((*id, token.clone()));
            }
        }
        plain.sort_by_key(|(id, _)| *id);
        let mut ordinary = AddedVocabulary::new();
        let ids_wanted: Vec<u32> = plain.iter().map(|(id, _)| *id).collect();
        // Only those that the model itself knows keep their id in a second vocabulary; the rest are left out there.
        let known = plain
            .into_iter()
            .map(|(_, token)| token)
            .zip(ids_wanted)
            .filter(|(token, id)| inner.get_model().token_to_id(&token.content) == Some(*id))
            .map(|(token, _)| token);
        ordinary.add_tokens(known, inner.get_model(), inner.get_normalizer()).map_err(Failure::invalid_data)?;
        Ok(TandemTokenizer { inner, ordinary, control, id_max })
    }

    /// The model's tokens of one piece; if a control token came out, the piece is spelled character by character.
    fn plain_tokens(&self, piece: &str) -> tokenizers::Result<Vec<Token>> {
        let model = self.inner.get_model();
        let tokens = model.tokenize(piece)?;
        if !tokens.iter().any(|token| self.control.contains(&token.id)) {
            return Ok(tokens);
        }
        let mut spelled = Vec::new();
        let mut utf8 = [0u8; 4];
        for c in piece.chars() {
            let tokens = model.tokenize(c.encode_utf8(&mut utf8))?;
            spelled.extend(tokens.into_iter().filter(|token| !self.control.contains(&token.id)));
        }
        Ok(spelled)
    }

    fn encode_plain(&self, text: &str, add_special: bool) -> tokenizers::Result<Vec<u32>> {
        let mut pieces: PreTokenizedString = self.ordinary.extract_and_normalize(self.inner.get_normalizer(), text);
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|piece| self.plain_tokens(piece.get()))?;
        let encoding = pieces.into_encoding(None, 0, OffsetType::None)?;
        let encoding = match self.inner.get_post_processor() {
            Some(processor) => processor.process(encoding, None, add_special)?,
            None => encoding,
        };
        Ok(encoding.get_ids().to_vec())
    }

    fn encode(&self, text: &str, flags: u32) -> tokenizers::Result<Vec<u32>> {
        let add_special = flags & TANDEM_ENCODE_ADD_SPECIAL != 0;
        if flags & TANDEM_ENCODE_PARSE_SPECIAL == 0 {
            return self.encode_plain(text, add_special);
        }
        Ok(self.inner.encode_fast(text, add_special)?.get_ids().to_vec())
    }

    fn table(&self) -> Vec<u8> {
        let added = self.inner.get_added_vocabulary();
        let mut bytes = Vec::new();
        for id in 0..=self.id_max {
            let token = added.simple_id_to_token(id).or_else(|| self.inner.get_model().id_to_token(id));
            let mut flags = 0;
            if let Some(token) = &token {
                flags |= TANDEM_TOKEN_PRESENT;
                flags |= if added.is_special_token(token) { TANDEM_TOKEN_SPECIAL } else { 0 };
                flags |= if self.control.contains(&id) { TANDEM_TOKEN_CONTROL } else { 0 };
            }
            let token = token.unwrap_or_default();
            bytes.push(flags);
            bytes.extend((token.len() as u32).to_le_bytes());
            bytes.extend(token.as_bytes());
        }
        bytes
    }
}

/// Reads a tokenizer.json into a new handle. Lifetime: the input is copied, the handle lives until
/// tandem_tokenizer_free. Threads: any.
///
/// # Safety
/// `json` has `size` bytes; `handle` and `out` are writable.
#[no_mangle]
pub unsafe extern "C" fn tandem_tokenizer_load(
    json: *const u8,
    size: usize,
    handle: *mut *mut TandemTokenizer,
    out: *mut TandemBuffer,
) -> TandemStatus {
    answer(out, || {
        let tokenizer = TandemTokenizer::load(bytes_of(json, size))?;
        *handle = Box::into_raw(Box::new(tokenizer));
        Ok(Vec::new())
    })
}

/// Ends a handle. Lifetime: no call may use it any more; null is allowed. Threads: one, after all others are done.
///
/// # Safety
/// `handle` is null or came from tandem_tokenizer_load.
#[no_mangle]
pub unsafe extern "C" fn tandem_tokenizer_free(handle: *mut TandemTokenizer) {
    if !handle.is_null() {
        drop(Box::from_raw(handle));
    }
}

/// Text to ids, as 32-bit little-endian integers in `out`. Lifetime: the text is read during the call. Threads: many
/// at once on one handle.
///
/// # Safety
/// `handle` is live, `text` has `size` bytes, `out` is writable.
#[no_mangle]
pub unsafe extern "C" fn tandem_tokenizer_encode(
    handle: *const TandemTokenizer,
    text: *const u8,
    size: usize,
    flags: u32,
    out: *mut TandemBuffer,
) -> TandemStatus {
    answer(out, || {
        let tokenizer = &*handle;
        let ids = tokenizer.encode(text_of(text, size, "text")?, flags).map_err(Failure::invalid_data)?;
        Ok(ids.iter().flat_map(|id| id.to_le_bytes()).collect())
    })
}

/// Ids to text in UTF-8; ids without a token are passed over. Lifetime: the ids are read during the call. Threads:
/// many at once on one handle.
///
/// # Safety
/// `handle` is live, `ids` has `count` values, `out` is writable.
#[no_mangle]
pub unsafe extern "C" fn tandem_tokenizer_decode(
    handle: *const TandemTokenizer,
    ids: *const u32,
    count: usize,
    skip_special: bool,
    out: *mut TandemBuffer,
) -> TandemStatus {
    answer(out, || {
        let tokenizer = &*handle;
        let ids = if count == 0 { &[] } else { std::slice::from_raw_parts(ids, count) };
        Ok(tokenizer.inner.decode(ids, skip_special).map_err(Failure::invalid_data)?.into_bytes())
    })
}

/// The token of every id from 0 on: one byte of flags, 32 bits of length (little-endian), the token's bytes as they
/// enter the decoder. Lifetime: a copy. Threads: many at once on one handle.
///
/// # Safety
/// `handle` is live, `out` is writable.
#[no_mangle]
pub unsafe extern "C" fn tandem_tokenizer_table(
    handle: *const TandemTokenizer,
    out: *mut TandemBuffer,
) -> TandemStatus {
    answer(out, || {
        let tokenizer = &*handle;
        Ok(tokenizer.table())
    })
}
