// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

//! The border itself: status values, the one buffer type, and the guard that turns a panic into a status. Other crates
//! with functions of the border use it too.

use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

/// The outcome of every call. On anything but TandemOk the buffer of the call holds a message in UTF-8.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TandemStatus {
    TandemOk = 0,
    /// The caller's value is wrong.
    TandemInvalidArgument = 1,
    /// Bytes from outside do not hold together, or a template raised an error.
    TandemInvalidData = 2,
    /// A named maximum is reached.
    TandemOutOfResources = 3,
    /// A panic was caught: a bug here or in a library.
    TandemPanicked = 4,
    /// Not now: others must end first.
    TandemUnavailable = 5,
}

/// Bytes owned by this library. Given out filled, given back once to tandem_buffer_free.
#[repr(C)]
pub struct TandemBuffer {
    pub data: *mut u8,
    pub size: usize,
}

impl TandemBuffer {
    fn from_vec(bytes: Vec<u8>) -> Self {
        let bytes = Box::leak(bytes.into_boxed_slice());
        TandemBuffer { data: bytes.as_mut_ptr(), size: bytes.len() }
    }
}

/// Frees what a call put into a buffer. Lifetime: the bytes end here; an already empty buffer is left alone. Threads:
/// any thread may free, one at a time.
///
/// # Safety
/// `buffer` is null or was filled by this library and not copied.
#[no_mangle]
pub unsafe extern "C" fn tandem_buffer_free(buffer: *mut TandemBuffer) {
    if let Some(buffer) = buffer.as_mut() {
        if !buffer.data.is_null() {
            drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(buffer.data, buffer.size)));
        }
        *buffer = TandemBuffer { data: std::ptr::null_mut(), size: 0 };
    }
}

pub struct Failure {
    pub status: TandemStatus,
    pub message: String,
}

impl Failure {
    pub fn new(status: TandemStatus, message: impl Into<String>) -> Self {
        Failure { status, message: message.into() }
    }
    pub fn invalid_data(message: impl ToString) -> Self {
        Failure::new(TandemStatus::TandemInvalidData, message.to_string())
    }
}

pub type Outcome<T> = Result<T, Failure>;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Panics inside the guard come back as a status, so the usual report on stderr would only confuse. Panics of other
/// threads keep the hook that was there.
fn quiet_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !INSIDE.with(Cell::get) {
                previous(info);
            }
        }));
    });
}

/// Runs `body`, and turns a panic into a Failure.
pub fn caught<T>(body: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    quiet_hook();
    let before = INSIDE.with(|inside| inside.replace(true));
    let result = catch_unwind(AssertUnwindSafe(body));
    INSIDE.with(|inside| inside.set(before));
    result.unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("panic without a message");
        Err(Failure::new(TandemStatus::TandemPanicked, message))
    })
}

/// What every function of the border does: run, fill the buffer with the result or with the message, give the status.
pub unsafe fn answer(out: *mut TandemBuffer, body: impl FnOnce() -> Outcome<Vec<u8>>) -> TandemStatus {
    if out.is_null() {
        return TandemStatus::TandemInvalidArgument;
    }
    let (status, bytes) = match caught(body) {
        Ok(bytes) => (TandemStatus::TandemOk, bytes),
        Err(failure) => (failure.status, failure.message.into_bytes()),
    };
    *out = TandemBuffer::from_vec(bytes);
    status
}

pub unsafe fn bytes_of<'a>(data: *const u8, size: usize) -> &'a [u8] {
    if data.is_null() || size == 0 {
        &[]
    } else {
        std::slice::from_raw_parts(data, size)
    }
}

pub unsafe fn text_of<'a>(data: *const u8, size: usize, what: &str) -> Outcome<&'a str> {
    std::str::from_utf8(bytes_of(data, size)).map_err(|error| {
        Failure::new(TandemStatus::TandemInvalidArgument, format!("{what}: not UTF-8 at byte {}", error.valid_up_to()))
    })
}
