// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

//! Chat templates: Jinja with the settings that model authors test with (trim_blocks, lstrip_blocks, Python's string
//! methods, tojson that escapes neither HTML nor other scripts).
//!
//! A template is code from outside. Fuel bounds its steps, `growth` bounds what it makes on its way, every filter that
//! can make much from little is bounded or missing, and it runs on a thread of its own whose stack is made for the
//! deepest value that the fuel can build (values nest as deep as a template likes, and dropping them recurses).

use std::io::{self, Write};
use std::sync::Arc;

use minijinja::machinery::{self, CodeGenerator, Instructions};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State};
use serde::Serialize;

use crate::border::{answer, bytes_of, caught, text_of, Failure, Outcome, TandemBuffer, TandemStatus};
use crate::growth::{add_counters, check_constants, count_growth, make, Blocks};
use crate::strftime::strftime;

pub const TANDEM_TEMPLATE_BYTES_MAX: usize = 256 << 10;
pub const TANDEM_PROMPT_BYTES_MAX: usize = 16 << 20;
/// Steps of a template: a conversation of 1000 messages needs about 100000.
pub const TANDEM_TEMPLATE_STEPS_MAX: u64 = 500_000;
/// Deepest nesting of macros and blocks.
const RECURSION_MAX: usize = 100;
/// One level of nesting costs about four steps to build and under 1 KiB of stack to print or drop.
const STACK_BYTES: usize = TANDEM_TEMPLATE_STEPS_MAX as usize * 512;
/// What one filter may produce.
const FILTER_BYTES_MAX: usize = TANDEM_PROMPT_BYTES_MAX;

const NAME: &str = "chat";

pub struct TandemTemplate {
    environment: Environment<'static>,
    // These point into source, which stays where it is: they are declared, and dropped, before it.
    instructions: Instructions<'static>,
    blocks: Blocks,
    #[allow(dead_code)]
    source: Arc<str>,
}

/// The inputs of a rendering, each JSON text: `messages` an array, `tools` an array or null, `variables` an object.
#[repr(C)]
pub struct TandemConversation {
    pub messages: *const u8,
    pub messages_size: usize,
    pub tools: *const u8,
    pub tools_size: usize,
    pub variables: *const u8,
    pub variables_size: usize,
    /// What strftime_now tells, in UTC.
    pub unix_seconds: i64,
}

fn too_large(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{what}: result is over {FILTER_BYTES_MAX} bytes"))
}

/// Python's json.dumps separators, or one value per line with an indent.
struct PythonStyle {
    indent: usize,
    depth: usize,
    has_value: bool,
}

impl PythonStyle {
    fn new_line<W: ?Sized + Write>(&self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| writer.write_all(&b"                "[..self.indent]))
    }
    fn begin<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.has_value = false;
        writer.write_all(bracket)
    }
    fn end<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.has_value && self.indent > 0 {
            self.new_line(writer)?;
        }
        self.has_value = true;
        writer.write_all(bracket)
    }
    fn element<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        match (first, self.indent > 0) {
            (true, false) => Ok(()),
            (false, false) => writer.write_all(b", "),
            (true, true) => self.new_line(writer),
            (false, true) => writer.write_all(b",").and_then(|_| self.new_line(writer)),
        }
    }
}

impl serde_json::ser::Formatter for PythonStyle {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, b"[")
    }
    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b"]")
    }
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.element(writer, first)
    }
    fn end_array_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_value = true;
        Ok(())
    }
    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, b"{")
    }
    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b"}")
    }
    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.element(writer, first)
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_value = true;
        Ok(())
    }
}

/// A byte sink with an end.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl Bounded {
    fn new(limit: usize) -> Self {
        Bounded { bytes: Vec::new(), limit }
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            return Err(io::Error::other("output is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tojson(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => indent,
        None => options.get::<Option<Value>>("indent")?.unwrap_or(Value::from(())),
    };
    let indent = if indent.is_none() { 0 } else { usize::try_from(indent)? };
    if indent > 16 {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: indent is {indent}, limit is 16")));
    }
    // Accepted for templates that say what is the case anyway.
    for name in ["ensure_ascii", "sort_keys", "separators"] {
        let _ = options.get::<Option<Value>>(name)?;
    }
    options.assert_all_used()?;
    let style = PythonStyle { indent, depth: 0, has_value: false };
    let mut serializer = serde_json::Serializer::with_formatter(Bounded::new(FILTER_BYTES_MAX), style);
    value
        .serialize(&mut serializer)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("tojson: {error}")))?;
    let json = String::from_utf8(serializer.into_inner().bytes).expect("JSON is UTF-8");
    make(json.len())?;
    Ok(Value::from(json))
}

fn join(value: &Value, joiner: Option<Value>) -> Result<Value, Error> {
    let joiner = joiner.map(|joiner| joiner.to_string()).unwrap_or_default();
    let mut text = Bounded::new(FILTER_BYTES_MAX);
    for (index, item) in value.try_iter()?.enumerate() {
        let separator = if index > 0 { joiner.as_str() } else { "" };
        write!(text, "{separator}{item}").map_err(|_| too_large("join"))?;
    }
    make(text.bytes.len())?;
    Ok(Value::from(String::from_utf8(text.bytes).expect("joined text is UTF-8")))
}

fn replace(text: &str, from: &str, to: &str) -> Result<Value, Error> {
    let count = if from.is_empty() { text.len() + 1 } else { text.matches(from).count() };
    match count.checked_mul(to.len()) {
        Some(added) if added <= FILTER_BYTES_MAX => {
            make(text.len() + added)?;
            Ok(Value::from(text.replace(from, to)))
        }
        _ => Err(too_large("replace")),
    }
}

/// Python's methods, those that can make much from little in our bounded form.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if value.kind() == ValueKind::String {
        match (name, args) {
            ("join", [items]) => return join(items, Some(value.clone())),
            ("replace", [from, to]) => {
                return replace(value.as_str().unwrap_or_default(), &from.to_string(), &to.to_string())
            }
            // As many values as the text has bytes, at most.
            ("split" | "rsplit" | "splitlines", _) => {
                make(value.as_str().map_or(0, str::len).saturating_mul(size_of::<Value>()))?;
            }
            ("join" | "replace" | "format", _) => return Err(Error::from(ErrorKind::UnknownMethod)),
            _ => {}
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

fn syntax() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
}

fn new_environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_recursion_limit(RECURSION_MAX);
    environment.set_fuel(Some(TANDEM_TEMPLATE_STEPS_MAX));
    environment.set_debug(false);
    environment.set_unknown_method_callback(method);
    add_counters(&mut environment);
    for name in ["format", "batch", "slice", "indent", "pprint", "center", "wordwrap", "split", "lines"] {
        environment.remove_filter(name);
    }
    environment.add_filter("tojson", tojson);
    environment.add_filter("join", join);
    environment.add_filter("replace", replace);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |state: &State, pattern: &str| -> Result<Value, Error> {
        let now = state.lookup("_unix_seconds").and_then(|value| i64::try_from(value).ok()).unwrap_or(0);
        strftime(pattern, now).map(Value::from).ok_or_else(|| {
            Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {pattern:?} has an unknown field"))
        })
    });
    Ok(environment)
}

fn failure(error: Error) -> Failure {
    let status = match error.kind() {
        ErrorKind::OutOfFuel => TandemStatus::TandemOutOfResources,
        _ => TandemStatus::TandemInvalidData,
    };
    let place = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let message = error.detail().map(str::to_string).unwrap_or_else(|| error.kind().to_string());
    Failure::new(status, format!("chat template: {message}{place}"))
}

/// Runs `body` on a thread with the deep stack, panics caught.
fn with_deep_stack<T: Send>(body: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name(String::from("template"))
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || caught(body))
            .map_err(|error| Failure::new(TandemStatus::TandemOutOfResources, format!("chat template: {error}")))?;
        thread.join().unwrap_or_else(|_| Err(Failure::new(TandemStatus::TandemPanicked, "chat template: panic")))
    })
}

fn compile(source: &str) -> Outcome<TandemTemplate> {
    if source.len() > TANDEM_TEMPLATE_BYTES_MAX {
        let message = format!("chat template: {} bytes, limit is {TANDEM_TEMPLATE_BYTES_MAX}", source.len());
        return Err(Failure::new(TandemStatus::TandemOutOfResources, message));
    }
    with_deep_stack(|| {
        let environment = new_environment().map_err(failure)?;
        let source: Arc<str> = source.into();
        // SAFETY: the text is on the heap and is dropped after all that points to it, here and in TandemTemplate.
        let text: &'static str = unsafe { &*std::ptr::from_ref::<str>(&source) };
        check_constants(text, syntax().map_err(failure)?).map_err(failure)?;
        let tree = machinery::parse(text, NAME, syntax().map_err(failure)?).map_err(failure)?;
        let mut generator = CodeGenerator::new(NAME, text);
        generator.compile_stmt(&tree);
        let (mut instructions, mut blocks) = generator.finish();
        count_growth(&mut instructions, &mut blocks).map_err(failure)?;
        Ok(TandemTemplate { environment, instructions, blocks, source })
    })
}

fn json_of(bytes: &[u8], what: &str) -> Outcome<serde_json::Value> {
    serde_json::from_slice(bytes)
        .map_err(|error| Failure::new(TandemStatus::TandemInvalidArgument, format!("{what}: {error}")))
}

fn render(template: &TandemTemplate, parts: [&[u8]; 3], unix_seconds: i64) -> Outcome<Vec<u8>> {
    let serde_json::Value::Object(mut variables) = json_of(parts[2], "template variables")? else {
        return Err(Failure::new(TandemStatus::TandemInvalidArgument, "template variables: not an object"));
    };
    variables.insert(String::from("messages"), json_of(parts[0], "messages")?);
    variables.insert(String::from("tools"), json_of(parts[1], "tools")?);
    variables.insert(String::from("_unix_seconds"), serde_json::Value::from(unix_seconds));
    let mut prompt = String::new();
    machinery::eval(
        &template.environment,
        &template.instructions,
        Value::from(Serde(&variables)),
        &template.blocks,
        &mut machinery::make_string_output(&mut prompt),
        AutoEscape::None,
    )
    .map_err(failure)?;
    if prompt.len() > TANDEM_PROMPT_BYTES_MAX {
        let message = format!("chat template: output is over {TANDEM_PROMPT_BYTES_MAX} bytes");
        return Err(Failure::new(TandemStatus::TandemOutOfResources, message));
    }
    Ok(prompt.into_bytes())
}

/// Compiles a Jinja source into a new handle. Lifetime: the source is copied, the handle lives until
/// tandem_template_free. Threads: any.
///
/// # Safety
/// `source` has `size` bytes; `handle` and `out` are writable.
#[no_mangle]
pub unsafe extern "C" fn tandem_template_compile(
    source: *const u8,
    size: usize,
    handle: *mut *mut TandemTemplate,
    out: *mut TandemBuffer,
) -> TandemStatus {
    answer(out, || {
        let template = compile(text_of(source, size, "chat template")?)?;
        *handle = Box::into_raw(Box::new(template));
        Ok(Vec::new())
    })
}

/// Ends a handle. Lifetime: no call may use it any more; null is allowed. Threads: one, after all others are done.
///
/// # Safety
/// `handle` is null or came from tandem_template_compile.
#[no_mangle]
pub unsafe extern "C" fn tandem_template_free(handle: *mut TandemTemplate) {
    if !handle.is_null() {
        drop(Box::from_raw(handle));
    }
}

/// Renders a conversation to the prompt in `out`. Lifetime: the inputs are read during the call. Threads: many at once
/// on one handle.
///
/// # Safety
/// `handle` is live, the pointers of `conversation` have their sizes, `out` is writable.
#[no_mangle]
pub unsafe extern "C" fn tandem_template_render(
    handle: *const TandemTemplate,
    conversation: *const TandemConversation,
    out: *mut TandemBuffer,
) -> TandemStatus {
    answer(out, || {
        let (template, conversation) = (&*handle, &*conversation);
        let parts = [
            bytes_of(conversation.messages, conversation.messages_size),
            bytes_of(conversation.tools, conversation.tools_size),
            bytes_of(conversation.variables, conversation.variables_size),
        ];
        let unix_seconds = conversation.unix_seconds;
        with_deep_stack(|| render(template, parts, unix_seconds))
    })
}
