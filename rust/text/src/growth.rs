// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

//! What a template may make on its way. Fuel bounds its steps, but one step can double a value: `x ~ x`, `x * 1000`, text
//! that a macro or a block set gathers. Each such instruction of a compiled template is replaced by a call to a filter
//! that counts what comes of it, and what is emitted is counted by the formatter.
//!
//! The counter belongs to the thread: a rendering has one of its own. Sizes are added up, never taken back, so a loop
//! that makes the same thing again and again ends, too.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use minijinja::machinery::{tokenize, Instruction, Instructions, Token};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{context, Environment, Error, ErrorKind, Expression, Output, State};

/// All values and texts that one rendering may make, in bytes: several times the longest prompt.
const MADE_BYTES_MAX: usize = 64 << 20;
/// Items of a list that an operator may make; the language's own range() ends there, too.
const ITEMS_MAX: usize = 100_000;
/// `*` in one template. Between constants it is computed while compiling, uncounted, to as much as 100 MB each.
const MULTIPLICATIONS_MAX: usize = 8;
/// Raw text shorter than this is emitted uncounted: fuel bounds how often.
const RAW_UNCOUNTED_MAX: usize = 64;
const NO_CACHE: u8 = !0;

const CONCAT: &str = "_tandem_concat";
const ADD: &str = "_tandem_add";
const MULTIPLY: &str = "_tandem_multiply";

pub type Blocks = BTreeMap<&'static str, Instructions<'static>>;

thread_local! {
    static MADE_BYTES: Cell<usize> = const { Cell::new(0) };
}

/// Counts bytes about to be made.
pub fn make(bytes: usize) -> Result<(), Error> {
    let sum = MADE_BYTES.get().saturating_add(bytes);
    MADE_BYTES.set(sum);
    if sum > MADE_BYTES_MAX {
        let message = format!("makes more than {MADE_BYTES_MAX} bytes on its way");
        return Err(Error::new(ErrorKind::OutOfFuel, message));
    }
    Ok(())
}

fn make_items(items: Option<usize>) -> Result<(), Error> {
    match items {
        Some(items) if items <= ITEMS_MAX => make(items.saturating_mul(size_of::<Value>())),
        _ => Err(Error::new(ErrorKind::InvalidOperation, format!("a list of more than {ITEMS_MAX} items"))),
    }
}

/// A text that counts as it grows.
struct Counted(String);

impl std::fmt::Write for Counted {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        make(text.len()).map_err(|_| std::fmt::Error)?;
        self.0.push_str(text);
        Ok(())
    }
}

fn concat(left: &Value, right: &Value) -> Result<Value, Error> {
    let mut text = Counted(String::new());
    match write!(text, "{left}{right}") {
        Ok(()) => Ok(Value::from(text.0)),
        Err(_) => Err(make(0).err().unwrap_or_else(|| Error::from(ErrorKind::BadSerialization))),
    }
}

/// Operators as the language has them: they are not part of its library's interface, expressions are.
static PLAIN: LazyLock<Environment<'static>> = LazyLock::new(Environment::new);
static SUM: LazyLock<Expression<'static, 'static>> = LazyLock::new(|| plain("left + right"));
static PRODUCT: LazyLock<Expression<'static, 'static>> = LazyLock::new(|| plain("left * right"));

fn plain(expression: &'static str) -> Expression<'static, 'static> {
    PLAIN.compile_expression(expression).expect("a valid expression")
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn add(left: &Value, right: &Value) -> Result<Value, Error> {
    if let (Some(a), Some(b)) = (left.as_str(), right.as_str()) {
        make(a.len() + b.len())?;
    } else if is_list(left) && is_list(right) {
        make_items(left.len().zip(right.len()).and_then(|(a, b)| a.checked_add(b)))?;
    }
    SUM.eval(context! { left, right })
}

fn multiply(left: &Value, right: &Value) -> Result<Value, Error> {
    for (value, count) in [(left, right), (right, left)] {
        let count = count.as_usize();
        if let (Some(text), Some(count)) = (value.as_str(), count) {
            make(text.len().saturating_mul(count))?;
        } else if let (true, Some(count)) = (is_list(value), count) {
            make_items(value.len().and_then(|items| items.checked_mul(count)))?;
        }
    }
    PRODUCT.eval(context! { left, right })
}

/// A list of what a value holds; of a text its characters.
fn list(value: &Value) -> Result<Value, Error> {
    let mut items = Vec::new();
    for item in value.try_iter()? {
        make(size_of::<Value>())?;
        items.push(item);
    }
    Ok(Value::from(items))
}

fn emit(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => make(text.len())?,
        None if value.kind() == ValueKind::Number => make(RAW_UNCOUNTED_MAX)?,
        None => {
            // What a structure prints as is known only when it has been printed.
            let text = concat(value, &Value::from(""))?;
            return minijinja::escape_formatter(out, state, if value.is_none() || value.is_undefined() { value } else { &text });
        }
    }
    minijinja::escape_formatter(out, state, value)
}

/// What counts, for an environment whose templates go through `count_growth`.
pub fn add_counters(environment: &mut Environment<'static>) {
    environment.add_filter(CONCAT, concat);
    environment.add_filter(ADD, add);
    environment.add_filter(MULTIPLY, multiply);
    environment.add_filter("list", list);
    environment.set_formatter(emit);
}

/// Refuses a source whose constants could grow too much while it is compiled.
pub fn check_constants(source: &str, syntax: SyntaxConfig) -> Result<(), Error> {
    // At an error the tokenizer stays where it is and tells it again for ever; the parser then names it.
    let tokens = tokenize(source, false, syntax).map_while(Result::ok);
    let count = tokens.filter(|(token, _)| matches!(token, Token::Mul)).count();
    if count > MULTIPLICATIONS_MAX {
        let message = format!("{count} multiplications, limit is {MULTIPLICATIONS_MAX}");
        return Err(Error::new(ErrorKind::SyntaxError, message));
    }
    Ok(())
}

/// Puts the counting calls into a compiled template. A long raw text becomes a block of its own, which is called in its
/// place and emits it as a value. An error names a text that is also the name of a block.
pub fn count_growth(instructions: &mut Instructions<'static>, blocks: &mut Blocks) -> Result<(), Error> {
    let mut texts = Vec::new();
    count_in(instructions, &mut texts);
    for block in blocks.values_mut() {
        count_in(block, &mut texts);
    }
    for text in texts {
        let mut block = Instructions::new(instructions.name(), instructions.source());
        block.add(Instruction::LoadConst(Value::from(text)));
        block.add(Instruction::Emit);
        if blocks.get(text).is_some_and(|known| known.get(0).is_none_or(|first| !is_text(first, text))) {
            return Err(Error::new(ErrorKind::SyntaxError, "a text is also the name of a block"));
        }
        blocks.insert(text, block);
    }
    Ok(())
}

fn is_text(instruction: &Instruction, text: &str) -> bool {
    matches!(instruction, Instruction::LoadConst(value) if value.as_str() == Some(text))
}

fn count_in(instructions: &mut Instructions<'static>, texts: &mut Vec<&'static str>) {
    let mut index = 0;
    while let Some(instruction) = instructions.get_mut(index) {
        let counting = match instruction {
            Instruction::StringConcat => Some(CONCAT),
            Instruction::Add => Some(ADD),
            Instruction::Mul => Some(MULTIPLY),
            _ => None,
        };
        if let Some(name) = counting {
            *instruction = Instruction::ApplyFilter(name, Some(2), NO_CACHE);
        } else if let Instruction::EmitRaw(text) = *instruction {
            if text.len() > RAW_UNCOUNTED_MAX {
                texts.push(text);
                *instruction = Instruction::CallBlock(text);
            }
        }
        index += 1;
    }
}
