// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The C border of rust/text, generated from its sources by rust/header; do not edit.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * tandem_tokenizer_encode: apply the template of the model (usually: begin with the bos token).
 */
#define TANDEM_ENCODE_ADD_SPECIAL 1

/**
 * tandem_tokenizer_encode: text that spells a control token becomes that token.
 */
#define TANDEM_ENCODE_PARSE_SPECIAL 2

/**
 * Flags in the table of tandem_tokenizer_table.
 */
#define TANDEM_TOKEN_PRESENT 1

#define TANDEM_TOKEN_SPECIAL 2

#define TANDEM_TOKEN_CONTROL 4

/**
 * Ids above this are refused: tables are indexed by id.
 */
#define TANDEM_TOKEN_ID_MAX ((1 << 22) - 1)

#define TANDEM_TEMPLATE_BYTES_MAX (256 << 10)

#define TANDEM_PROMPT_BYTES_MAX (16 << 20)

/**
 * Steps of a template: a conversation of 1000 messages needs about 100000.
 */
#define TANDEM_TEMPLATE_STEPS_MAX 500000

/**
 * The outcome of every call. On anything but TandemOk the buffer of the call holds a message in UTF-8.
 */
typedef enum TandemStatus {
  TandemOk = 0,
  /**
   * The caller's value is wrong.
   */
  TandemInvalidArgument = 1,
  /**
   * Bytes from outside do not hold together, or a template raised an error.
   */
  TandemInvalidData = 2,
  /**
   * A named maximum is reached.
   */
  TandemOutOfResources = 3,
  /**
   * A panic was caught: a bug here or in a library.
   */
  TandemPanicked = 4,
} TandemStatus;

typedef struct TandemTemplate TandemTemplate;

typedef struct TandemTokenizer TandemTokenizer;

/**
 * Bytes owned by this library. Given out filled, given back once to tandem_buffer_free.
 */
typedef struct TandemBuffer {
  uint8_t *data;
  size_t size;
} TandemBuffer;

/**
 * The inputs of a rendering, each JSON text: `messages` an array, `tools` an array or null, `variables` an object.
 */
typedef struct TandemConversation {
  const uint8_t *messages;
  size_t messages_size;
  const uint8_t *tools;
  size_t tools_size;
  const uint8_t *variables;
  size_t variables_size;
  /**
   * What strftime_now tells, in UTC.
   */
  int64_t unix_seconds;
} TandemConversation;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Frees what a call put into a buffer. Lifetime: the bytes end here; an already empty buffer is left alone. Threads:
 * any thread may free, one at a time.
 *
 * # Safety
 * `buffer` is null or was filled by this library and not copied.
 */
void tandem_buffer_free(struct TandemBuffer *buffer);

/**
 * Reads a tokenizer.json into a new handle. Lifetime: the input is copied, the handle lives until
 * tandem_tokenizer_free. Threads: any.
 *
 * # Safety
 * `json` has `size` bytes; `handle` and `out` are writable.
 */
enum TandemStatus tandem_tokenizer_load(const uint8_t *json,
                                        size_t size,
                                        struct TandemTokenizer **handle,
                                        struct TandemBuffer *out);

/**
 * Ends a handle. Lifetime: no call may use it any more; null is allowed. Threads: one, after all others are done.
 *
 * # Safety
 * `handle` is null or came from tandem_tokenizer_load.
 */
void tandem_tokenizer_free(struct TandemTokenizer *handle);

/**
 * Text to ids, as 32-bit little-endian integers in `out`. Lifetime: the text is read during the call. Threads: many
 * at once on one handle.
 *
 * # Safety
 * `handle` is live, `text` has `size` bytes, `out` is writable.
 */
enum TandemStatus tandem_tokenizer_encode(const struct TandemTokenizer *handle,
                                          const uint8_t *text,
                                          size_t size,
                                          uint32_t flags,
                                          struct TandemBuffer *out);

/**
 * Ids to text in UTF-8; ids without a token are passed over. Lifetime: the ids are read during the call. Threads:
 * many at once on one handle.
 *
 * # Safety
 * `handle` is live, `ids` has `count` values, `out` is writable.
 */
enum TandemStatus tandem_tokenizer_decode(const struct TandemTokenizer *handle,
                                          const uint32_t *ids,
                                          size_t count,
                                          bool skip_special,
                                          struct TandemBuffer *out);

/**
 * The token of every id from 0 on: one byte of flags, 32 bits of length (little-endian), the token's bytes as they
 * enter the decoder. Lifetime: a copy. Threads: many at once on one handle.
 *
 * # Safety
 * `handle` is live, `out` is writable.
 */
enum TandemStatus tandem_tokenizer_table(const struct TandemTokenizer *handle, struct TandemBuffer *out);

/**
 * Compiles a Jinja source into a new handle. Lifetime: the source is copied, the handle lives until
 * tandem_template_free. Threads: any.
 *
 * # Safety
 * `source` has `size` bytes; `handle` and `out` are writable.
 */
enum TandemStatus tandem_template_compile(const uint8_t *source,
                                          size_t size,
                                          struct TandemTemplate **handle,
                                          struct TandemBuffer *out);

/**
 * Ends a handle. Lifetime: no call may use it any more; null is allowed. Threads: one, after all others are done.
 *
 * # Safety
 * `handle` is null or came from tandem_template_compile.
 */
void tandem_template_free(struct TandemTemplate *handle);

/**
 * Renders a conversation to the prompt in `out`. Lifetime: the inputs are read during the call. Threads: many at once
 * on one handle.
 *
 * # Safety
 * `handle` is live, the pointers of `conversation` have their sizes, `out` is writable.
 */
enum TandemStatus tandem_template_render(const struct TandemTemplate *handle,
                                         const struct TandemConversation *conversation,
                                         struct TandemBuffer *out);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus
