// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

//! Grammars for answers: a JSON schema, a regular expression or a Lark grammar becomes a matcher, which says after
//! every token which ones may come next.
//!
//! A grammar is text from outside, and its compiler recurses: it runs on a thread of its own with a stack made for the
//! longest source. Fuel bounds what it may build, and the caller says how long it waits; a compiler that is not done
//! then goes on to the end of its fuel with nobody listening, and few of those may be under way. What a step may cost is
//! bounded as well; beyond, the matcher ends in an error, which concerns its own request only.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{sync_channel, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use llguidance::{Matcher, ParserFactory};

use crate::border::{answer, bytes_of, caught, text_of, Failure, Outcome, TandemBuffer, TandemStatus};

/// The most that limits may allow.
pub const TANDEM_GRAMMAR_BYTES_MAX: usize = 256 << 10;
pub const TANDEM_GRAMMAR_DEPTH_MAX: usize = 128;
/// Each byte of a source costs one level of recursion at most, and each level so much stack.
const STACK_BYTES: usize = TANDEM_GRAMMAR_BYTES_MAX * 2048;
/// Work on the lexer of one grammar (50000 are about a millisecond) and on one mask (14000).
const COMPILE_FUEL: u64 = 1_000_000;
const STEP_FUEL: u64 = 100_000;
const STEP_ITEMS_MAX: usize = 50_000;
const LEXER_STATES_MAX: usize = 20_000; // about a kilobyte each
const GRAMMAR_SYMBOLS_MAX: usize = 200_000;
/// Compilers that nobody waits for any more.
const LATE_COMPILERS_MAX: usize = 4;

/// What a grammar's source is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TandemGrammarKind {
    TandemGrammarJsonSchema = 0,
    TandemGrammarRegex = 1,
    TandemGrammarLark = 2,
}

/// What one grammar may be.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TandemGrammarLimits {
    /// Length of its source.
    pub bytes_max: usize,
    /// Brackets within brackets in it.
    pub depth_max: usize,
    /// Time to compile it.
    pub ms_max: u64,
}

/// The bytes of a model's tokens, and from the first grammar on the form in which grammars look at them: making that
/// takes a tenth of a second, which a model's start does without.
pub struct TandemVocabulary {
    form: Mutex<Form>,
    late: Arc<AtomicUsize>,
}

enum Form {
    Tokens(Tokens),
    Factory(Arc<ParserFactory>),
    Lost,
}

struct Tokens {
    words: Vec<Vec<u8>>,
    end_ids: Vec<u32>,
}

/// One answer's place in its grammar.
pub struct TandemGrammar {
    matcher: Matcher,
}

struct Vocabulary {
    trie: TokTrie,
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }
    fn tokenize_bytes(&self, text: &[u8]) -> Vec<TokenId> {
        self.trie.greedy_tokenize(text)
    }
    /// The model chooses how text is cut into tokens: nothing is forced.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

fn grammar_error(error: impl std::fmt::Display) -> Failure {
    Failure::invalid_data(error)
}

impl Tokens {
    fn into_factory(self) -> Outcome<ParserFactory> {
        let Tokens { words, end_ids } = self;
        // A grammar needs some token that ends it; one that no text spells does no harm.
        let end = end_ids.first().copied().unwrap_or(0);
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
        let trie = if end_ids.is_empty() { trie } else { trie.with_eos_tokens(&end_ids) };
        let environment: TokEnv = Arc::new(Vocabulary { trie });
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
            .map_err(grammar_error)?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.initial_lexer_fuel = COMPILE_FUEL;
        limits.step_lexer_fuel = STEP_FUEL;
        limits.step_max_items = STEP_ITEMS_MAX;
        limits.max_lexer_states = LEXER_STATES_MAX;
        limits.max_grammar_size = GRAMMAR_SYMBOLS_MAX;
        limits.verbose_errors = false;
        Ok(factory)
    }
}

impl TandemVocabulary {
    fn new(words: Vec<Vec<u8>>, end_ids: &[u32]) -> Self {
        let known = |id: &&u32| (**id as usize) < words.len();
        let end_ids = end_ids.iter().filter(known).copied().collect();
        TandemVocabulary {
            form: Mutex::new(Form::Tokens(Tokens { words, end_ids })),
            late: Arc::default(),
        }
    }

    /// Made by whoever asks first; others wait for it.
    fn factory(&self) -> Outcome<Arc<ParserFactory>> {
        let mut form = self.form.lock().unwrap_or_else(PoisonError::into_inner);
        let factory = match std::mem::replace(&mut *form, Form::Lost) {
            Form::Tokens(tokens) => Arc::new(tokens.into_factory()?),
            Form::Factory(factory) => factory,
            Form::Lost => {
                let message = "the vocabulary could not be made for grammars before";
                return Err(Failure::new(TandemStatus::TandemPanicked, message));
            }
        };
        *form = Form::Factory(factory.clone());
        Ok(factory)
    }

    fn compile(&self, kind: TandemGrammarKind, source: String, ms_max: u64) -> Outcome<TandemGrammar> {
        if self.late.load(Ordering::Relaxed) >= LATE_COMPILERS_MAX {
            let message = "grammars that took too long are still at work; try again";
            return Err(Failure::new(TandemStatus::TandemUnavailable, message));
        }
        let factory = self.factory()?; // before the time of the grammar itself
        // Without room in the channel the compiler learns whether somebody took its grammar.
        let (sender, receiver) = sync_channel(0);
        let late = self.late.clone();
        let work = move || {
            let compiled = caught(|| TandemGrammar::compile(&factory, kind, &source));
            if sender.send(compiled).is_err() {
                late.fetch_sub(1, Ordering::Relaxed);
            }
        };
        let thread = std::thread::Builder::new().name("grammar".into()).stack_size(STACK_BYTES).spawn(work);
        thread.map_err(|error| Failure::new(TandemStatus::TandemOutOfResources, error.to_string()))?;
        match receiver.recv_timeout(Duration::from_millis(ms_max)) {
            Ok(compiled) => compiled,
            Err(RecvTimeoutError::Timeout) => {
                self.late.fetch_add(1, Ordering::Relaxed); // before the receiver goes
                Err(out_of_resources(format!("not compiled within {ms_max} ms")))
            }
            Err(RecvTimeoutError::Disconnected) => Err(Failure::new(TandemStatus::TandemPanicked, "compiler")),
        }
    }
}

fn out_of_resources(message: String) -> Failure {
    Failure::new(TandemStatus::TandemOutOfResources, message)
}

fn check_source(source: &str, limits: &TandemGrammarLimits) -> Outcome<()> {
    let bytes_max = limits.bytes_max.min(TANDEM_GRAMMAR_BYTES_MAX);
    if source.len() > bytes_max {
        return Err(out_of_resources(format!("{} bytes, limit is {bytes_max}", source.len())));
    }
    let (mut depth, mut deepest) = (0usize, 0usize);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    let depth_max = limits.depth_max.min(TANDEM_GRAMMAR_DEPTH_MAX);
    if deepest > depth_max {
        return Err(out_of_resources(format!("brackets {deepest} deep, limit is {depth_max}")));
    }
    Ok(())
}

fn grammar_of(kind: TandemGrammarKind, source: &str) -> Outcome<TopLevelGrammar> {
    Ok(match kind {
        TandemGrammarKind::TandemGrammarJsonSchema => {
            TopLevelGrammar::from_json_schema(serde_json::from_str(source).map_err(grammar_error)?)
        }
        TandemGrammarKind::TandemGrammarRegex => TopLevelGrammar::from_regex(source),
        TandemGrammarKind::TandemGrammarLark => TopLevelGrammar::from_lark(source.to_string()),
    })
}

impl TandemGrammar {
    /// Also looks at what may come first: that finds grammars that nothing satisfies, and work done here is not done
    /// between two tokens.
    fn compile(factory: &ParserFactory, kind: TandemGrammarKind, source: &str) -> Outcome<Self> {
        let parser = factory.create_parser(grammar_of(kind, source)?).map_err(grammar_error)?;
        let mut matcher = Matcher::new(Ok(parser));
        let first = matcher.compute_mask_or_eos().map_err(grammar_error)?;
        if first.is_zero() {
            return Err(grammar_error("no text satisfies it"));
        }
        Ok(TandemGrammar { matcher })
    }

    fn mask(&mut self, after: &[u32], words: &mut [u32]) -> Outcome<()> {
        if !after.is_empty() {
            self.matcher.consume_tokens(after).map_err(grammar_error)?;
        }
        let mask = self.matcher.compute_mask_or_eos().map_err(grammar_error)?;
        let known = mask.as_slice();
        let count = known.len().min(words.len());
        words[..count].copy_from_slice(&known[..count]);
        words[count..].fill(0);
        if !after.is_empty() {
            self.matcher.rollback(after.len()).map_err(grammar_error)?;
        }
        Ok(())
    }
}

/// Makes a vocabulary of `count` tokens, whose bytes stand one after the other in `bytes`, as long as `lengths` says.
/// A token that is written, not spelled (a control token), begins with 0xFF; one without bytes never comes.
/// Lifetime: the inputs are copied, the handle lives until tandem_vocabulary_free. Threads: any.
///
/// # Safety
/// `bytes` has `size` bytes, `lengths` has `count` values, `end_ids` has `end_count`; `handle` and `out` are writable.
#[no_mangle]
pub unsafe extern "C" fn tandem_vocabulary_new(
    bytes: *const u8,
    size: usize,
    lengths: *const u32,
    count: usize,
    end_ids: *const u32,
    end_count: usize,
    handle: *mut *mut TandemVocabulary,
    out: *mut TandemBuffer,
) -> TandemStatus {
    answer(out, || {
        let mut rest = bytes_of(bytes, size);
        let mut words = Vec::with_capacity(count);
        for length in ids_of(lengths, count) {
            let cut = || Failure::new(TandemStatus::TandemInvalidArgument, "tokens are longer than their bytes");
            let (word, after) = rest.split_at_checked(*length as usize).ok_or_else(cut)?;
            words.push(word.to_vec());
            rest = after;
        }
        let vocabulary = TandemVocabulary::new(words, ids_of(end_ids, end_count));
        *handle = Box::into_raw(Box::new(vocabulary));
        Ok(Vec::new())
    })
}

unsafe fn ids_of<'a>(ids: *const u32, count: usize) -> &'a [u32] {
    if count == 0 {
        &[]
    } else {
        std::slice::from_raw_parts(ids, count)
    }
}

/// Ends a handle. Lifetime: no call may use it any more, grammars made of it live on; null is allowed. Threads: one,
/// after all others are done.
///
/// # Safety
/// `handle` is null or came from tandem_vocabulary_new.
#[no_mangle]
pub unsafe extern "C" fn tandem_vocabulary_free(handle: *mut TandemVocabulary) {
    if !handle.is_null() {
        drop(Box::from_raw(handle));
    }
}

/// Compiles a grammar into a new handle, at its beginning. Lifetime: the source is copied, the handle lives until
/// tandem_grammar_free. Threads: many at once on one vocabulary.
///
/// # Safety
/// `vocabulary` is live, `source` has `size` bytes; `handle` and `out` are writable.
#[no_mangle]
pub unsafe extern "C" fn tandem_grammar_compile(
    vocabulary: *const TandemVocabulary,
    kind: TandemGrammarKind,
    source: *const u8,
    size: usize,
    limits: TandemGrammarLimits,
    handle: *mut *mut TandemGrammar,
    out: *mut TandemBuffer,
) -> TandemStatus {
    answer(out, || {
        let source = text_of(source, size, "grammar")?;
        check_source(source, &limits)?;
        let compiled = (*vocabulary).compile(kind, source.to_string(), limits.ms_max)?;
        *handle = Box::into_raw(Box::new(compiled));
        Ok(Vec::new())
    })
}

/// A second handle in the state of the first; neither knows of the other. Lifetime: until tandem_grammar_free.
/// Threads: many at once on one grammar that nobody advances.
///
/// # Safety
/// `grammar` is live; `handle` and `out` are writable.
#[no_mangle]
pub unsafe extern "C" fn tandem_grammar_clone(
    grammar: *const TandemGrammar,
    handle: *mut *mut TandemGrammar,
    out: *mut TandemBuffer,
) -> TandemStatus {
    answer(out, || {
        let grammar = &*grammar;
        *handle = Box::into_raw(Box::new(TandemGrammar { matcher: grammar.matcher.deep_clone() }));
        Ok(Vec::new())
    })
}

/// Ends a handle. Lifetime: no call may use it any more; null is allowed. Threads: one.
///
/// # Safety
/// `handle` is null or came from tandem_grammar_compile or tandem_grammar_clone.
#[no_mangle]
pub unsafe extern "C" fn tandem_grammar_free(handle: *mut TandemGrammar) {
    if !handle.is_null() {
        drop(Box::from_raw(handle));
    }
}

/// Which tokens may come after those accepted and then `after`: bit i of `words` is token i. The state stays as it is.
/// Lifetime: the inputs are read during the call. Threads: one at a time.
///
/// # Safety
/// `grammar` is live, `after` has `after_count` values, `words` has `word_count`; `out` is writable.
#[no_mangle]
pub unsafe extern "C" fn tandem_grammar_mask(
    grammar: *mut TandemGrammar,
    after: *const u32,
    after_count: usize,
    words: *mut u32,
    word_count: usize,
    out: *mut TandemBuffer,
) -> TandemStatus {
    answer(out, || {
        let grammar = &mut *grammar;
        let words = if word_count == 0 { &mut [] } else { std::slice::from_raw_parts_mut(words, word_count) };
        grammar.mask(ids_of(after, after_count), words)?;
        Ok(Vec::new())
    })
}

/// Takes a token that has come. `complete`: nothing may follow it. Lifetime: none. Threads: one at a time.
///
/// # Safety
/// `grammar` is live; `complete` and `out` are writable.
#[no_mangle]
pub unsafe extern "C" fn tandem_grammar_accept(
    grammar: *mut TandemGrammar,
    token: u32,
    complete: *mut bool,
    out: *mut TandemBuffer,
) -> TandemStatus {
    answer(out, || {
        let grammar = &mut *grammar;
        grammar.matcher.consume_token(token).map_err(grammar_error)?;
        *complete = grammar.matcher.is_stopped();
        Ok(Vec::new())
    })
}
