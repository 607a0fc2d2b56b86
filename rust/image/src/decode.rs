// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

//! Bytes from outside to 8-bit RGB. The format is what the bytes say, not what a name says. Width and height are read
//! from the header and held against the limits before memory for pixels is taken.

use std::io::Cursor;

use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, Limits};
use sha2::{Digest, Sha256};
use tandem_text::border::{answer, bytes_of, Failure, Outcome};
use tandem_text::{TandemBuffer, TandemStatus};

/// What a picture may be at most, and at least.
#[repr(C)]
pub struct TandemImageLimits {
    pub side_min: u32,
    pub side_max: u32,
    pub pixels_max: u64,
}

#[repr(C)]
pub struct TandemImageSize {
    pub width: u32,
    pub height: u32,
}

/// The widest pixel that a supported format decodes to: four channels of 16 bits.
const PIXEL_BYTES_MAX: u64 = 8;

fn failure_of(error: ImageError) -> Failure {
    match error {
        ImageError::Limits(error) => Failure::new(TandemStatus::TandemOutOfResources, error.to_string()),
        other => Failure::invalid_data(other),
    }
}

fn check_size(decoder: &impl ImageDecoder, limits: &TandemImageLimits) -> Outcome<()> {
    let (width, height) = decoder.dimensions();
    let refused = |why: String| Err(Failure::new(TandemStatus::TandemOutOfResources, why));
    if width.max(height) > limits.side_max {
        return refused(format!("it has {width}x{height} pixels, limit is {} a side", limits.side_max));
    }
    if width.min(height) < limits.side_min {
        return Err(Failure::invalid_data(format!(
            "it has {width}x{height} pixels, the least is {} a side",
            limits.side_min
        )));
    }
    if u64::from(width) * u64::from(height) > limits.pixels_max {
        return refused(format!("it has {width}x{height} pixels, limit is {} in all", limits.pixels_max));
    }
    Ok(())
}

fn pixels_of(mut decoder: impl ImageDecoder, limits: &TandemImageLimits) -> Outcome<DynamicImage> {
    check_size(&decoder, limits)?;
    let mut memory = Limits::no_limits();
    // What the decoder keeps beside the pixels is about as much again.
    memory.max_alloc = Some(limits.pixels_max.saturating_mul(2 * PIXEL_BYTES_MAX).saturating_add(1 << 20));
    decoder.set_limits(memory).map_err(failure_of)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(failure_of)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// The number of colour components that a JPEG's frame header names; the decoder would turn four of them into RGB without
/// the profile that says which inks they are. None when there is no such header.
fn jpeg_components(bytes: &[u8]) -> Option<u8> {
    let mut at = 2; // behind the start marker
    loop {
        let &[0xff, marker] = bytes.get(at..at + 2)?.first_chunk()? else { return None };
        match marker {
            0xff => at += 1, // fill byte
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => return bytes.get(at + 9).copied(),
            _ => at += 2 + usize::from(u16::from_be_bytes(*bytes.get(at + 2..)?.first_chunk()?)),
        }
    }
}

/// Transparent pixels are laid over white, as pages show them.
fn over_white(image: DynamicImage) -> (u32, u32, Vec<u8>) {
    let (width, height) = (image.width(), image.height());
    if !image.color().has_alpha() {
        return (width, height, image.into_rgb8().into_raw());
    }
    let blend = |value: u8, alpha: u8| {
        let alpha = u32::from(alpha);
        ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    let rgba = image.into_rgba8().into_raw();
    let rgb = rgba
        .chunks_exact(4)
        .flat_map(|pixel| [0, 1, 2].map(|channel| blend(pixel[channel], pixel[3])))
        .collect();
    (width, height, rgb)
}

fn decode(bytes: &[u8], limits: &TandemImageLimits) -> Outcome<DynamicImage> {
    const SUPPORTED: &str = "supported are JPEG, PNG and WebP";
    let format = image::guess_format(bytes)
        .map_err(|_| Failure::invalid_data(format!("it is no picture that this build knows, {SUPPORTED}")))?;
    let animated = || Err(Failure::invalid_data("it is animated, a picture has one frame"));
    match format {
        ImageFormat::Jpeg if jpeg_components(bytes) == Some(4) => {
            Err(Failure::invalid_data("it is in CMYK, supported are grey and RGB"))
        }
        ImageFormat::Jpeg => pixels_of(JpegDecoder::new(Cursor::new(bytes)).map_err(failure_of)?, limits),
        ImageFormat::Png => {
            let decoder = PngDecoder::new(Cursor::new(bytes)).map_err(failure_of)?;
            if decoder.is_apng().map_err(failure_of)? {
                return animated();
            }
            pixels_of(decoder, limits)
        }
        ImageFormat::WebP => {
            let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(failure_of)?;
            if decoder.has_animation() {
                return animated();
            }
            pixels_of(decoder, limits)
        }
        other => Err(Failure::invalid_data(format!("it is {other:?}, {SUPPORTED}"))),
    }
}

/// Decodes one picture to rows of 8-bit RGB, turned upright as its metadata says. Lifetime: the bytes may go when the
/// call is over. Threads: any, at once.
///
/// # Safety
/// `bytes` has `size` bytes; `limits`, `dimensions` and `pixels` are valid.
#[no_mangle]
pub unsafe extern "C" fn tandem_image_decode(
    bytes: *const u8,
    size: usize,
    limits: *const TandemImageLimits,
    dimensions: *mut TandemImageSize,
    pixels: *mut TandemBuffer,
) -> TandemStatus {
    if limits.is_null() || dimensions.is_null() {
        return TandemStatus::TandemInvalidArgument;
    }
    let (limits, dimensions) = (&*limits, &mut *dimensions);
    answer(pixels, || {
        let (width, height, rgb) = over_white(decode(bytes_of(bytes, size), limits)?);
        *dimensions = TandemImageSize { width, height };
        Ok(rgb)
    })
}

/// The SHA-256 of some bytes: 32 bytes. Threads: any, at once.
///
/// # Safety
/// `bytes` has `size` bytes; `digest` is valid.
#[no_mangle]
pub unsafe extern "C" fn tandem_image_digest(bytes: *const u8, size: usize, digest: *mut TandemBuffer) -> TandemStatus {
    answer(digest, || Ok(Sha256::digest(bytes_of(bytes, size)).to_vec()))
}
