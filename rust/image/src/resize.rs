// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

//! Resizing with a triangle filter that widens as the picture shrinks ("bilinear with antialias"): on bytes as PIL does
//! it, rounded after each direction, and on f32.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use tandem_text::border::{answer, Failure, Outcome};
use tandem_text::{TandemBuffer, TandemStatus};

use crate::TandemImageSize;

fn bytes_in(size: &TandemImageSize, pixel: PixelType) -> Outcome<usize> {
    (size.width as usize)
        .checked_mul(size.height as usize)
        .and_then(|pixels| pixels.checked_mul(pixel.size()))
        .filter(|&bytes| bytes > 0 && bytes <= isize::MAX as usize)
        .ok_or_else(|| {
            Failure::new(TandemStatus::TandemInvalidArgument, format!("{}x{} pixels", size.width, size.height))
        })
}

unsafe fn resize(
    pixel: PixelType,
    from: *const u8,
    from_size: &TandemImageSize,
    to: *mut u8,
    to_size: &TandemImageSize,
) -> Outcome<Vec<u8>> {
    let source = std::slice::from_raw_parts(from, bytes_in(from_size, pixel)?);
    let target = std::slice::from_raw_parts_mut(to, bytes_in(to_size, pixel)?);
    let source = ImageRef::new(from_size.width, from_size.height, source, pixel).map_err(Failure::invalid_data)?;
    let mut target =
        Image::from_slice_u8(to_size.width, to_size.height, target, pixel).map_err(Failure::invalid_data)?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
    Resizer::new().resize(&source, &mut target, &options).map_err(Failure::invalid_data)?;
    Ok(Vec::new())
}

/// Resizes rows of 8-bit RGB. `failure` holds the message when the status is not ok. Threads: any, at once.
///
/// # Safety
/// `from` and `to` have the bytes that their sizes say and do not overlap; all pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn tandem_image_resize_rgb8(
    from: *const u8,
    from_size: *const TandemImageSize,
    to: *mut u8,
    to_size: *const TandemImageSize,
    failure: *mut TandemBuffer,
) -> TandemStatus {
    if from.is_null() || from_size.is_null() || to.is_null() || to_size.is_null() {
        return TandemStatus::TandemInvalidArgument;
    }
    answer(failure, || resize(PixelType::U8x3, from, &*from_size, to, &*to_size))
}

/// Resizes rows of RGB in f32. `failure` holds the message when the status is not ok. Threads: any, at once.
///
/// # Safety
/// `from` and `to` have the values that their sizes say and do not overlap; all pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn tandem_image_resize_rgb32f(
    from: *const f32,
    from_size: *const TandemImageSize,
    to: *mut f32,
    to_size: *const TandemImageSize,
    failure: *mut TandemBuffer,
) -> TandemStatus {
    if from.is_null() || from_size.is_null() || to.is_null() || to_size.is_null() {
        return TandemStatus::TandemInvalidArgument;
    }
    answer(failure, || resize(PixelType::F32x3, from.cast(), &*from_size, to.cast(), &*to_size))
}
