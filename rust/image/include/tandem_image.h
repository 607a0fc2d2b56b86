// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The C border of rust/image, generated from its sources by rust/header; do not edit.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "tandem_text.h"

/**
 * What a picture may be at most, and at least.
 */
typedef struct TandemImageLimits {
  uint32_t side_min;
  uint32_t side_max;
  uint64_t pixels_max;
} TandemImageLimits;

typedef struct TandemImageSize {
  uint32_t width;
  uint32_t height;
} TandemImageSize;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Decodes one picture to rows of 8-bit RGB, turned upright as its metadata says. Lifetime: the bytes may go when the
 * call is over. Threads: any, at once.
 *
 * # Safety
 * `bytes` has `size` bytes; `limits`, `dimensions` and `pixels` are valid.
 */
TandemStatus tandem_image_decode(const uint8_t *bytes,
                                 size_t size,
                                 const struct TandemImageLimits *limits,
                                 struct TandemImageSize *dimensions,
                                 TandemBuffer *pixels);

/**
 * The SHA-256 of some bytes: 32 bytes. Threads: any, at once.
 *
 * # Safety
 * `bytes` has `size` bytes; `digest` is valid.
 */
TandemStatus tandem_image_digest(const uint8_t *bytes, size_t size, TandemBuffer *digest);

/**
 * Resizes rows of 8-bit RGB. `failure` holds the message when the status is not ok. Threads: any, at once.
 *
 * # Safety
 * `from` and `to` have the bytes that their sizes say and do not overlap; all pointers are valid.
 */
TandemStatus tandem_image_resize_rgb8(const uint8_t *from,
                                      const struct TandemImageSize *from_size,
                                      uint8_t *to,
                                      const struct TandemImageSize *to_size,
                                      TandemBuffer *failure);

/**
 * Resizes rows of RGB in f32. `failure` holds the message when the status is not ok. Threads: any, at once.
 *
 * # Safety
 * `from` and `to` have the values that their sizes say and do not overlap; all pointers are valid.
 */
TandemStatus tandem_image_resize_rgb32f(const float *from,
                                        const struct TandemImageSize *from_size,
                                        float *to,
                                        const struct TandemImageSize *to_size,
                                        TandemBuffer *failure);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus
