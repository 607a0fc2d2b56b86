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
 * The most that limits may allow.
 */
#define TANDEM_GRAMMAR_BYTES_MAX (256 << 10)

#define TANDEM_GRAMMAR_DEPTH_MAX 128

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
  /**
   * Not now: others must end first.
   */
  TandemUnavailable = 5,
} TandemStatus;

/**
 * What a grammar's source is.
 */
typedef enum TandemGrammarKind {
  TandemGrammarJsonSchema = 0,
  TandemGrammarRegex = 1,
  TandemGrammarLark = 2,
} TandemGrammarKind;

/**
 * One answer's place in its grammar.
 */
typedef struct TandemGrammar TandemGrammar;

typedef struct TandemTemplate TandemTemplate;

typedef struct TandemTokenizer TandemTokenizer;

/**
 * The bytes of a model's tokens, and from the first grammar on the form in which grammars look at them: making that
 * takes a tenth of a second, which a model's start does without.
 */
typedef struct TandemVocabulary TandemVocabulary;

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

/**
 * What one grammar may be.
 */
typedef struct TandemGrammarLimits {
  /**
   * Length of its source.
   */
  size_t bytes_max;
  /**
   * Brackets within brackets in it.
   */
  size_t depth_max;
  /**
   * Time to compile it.
   */
  uint64_t ms_max;
} TandemGrammarLimits;

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

/**
 * Makes a vocabulary of `count` tokens, whose bytes stand one after the other in `bytes`, as long as `lengths` says.
 * A token that is written, not spelled (a control token), begins with 0xFF; one without bytes never comes.
 * Lifetime: the inputs are copied, the handle lives until tandem_vocabulary_free. Threads: any.
 *
 * # Safety
 * `bytes` has `size` bytes, `lengths` has `count` values, `end_ids` has `end_count`; `handle` and `out` are writable.
 */
enum TandemStatus tandem_vocabulary_new(const uint8_t *bytes,
                                        size_t size,
                                        const uint32_t *lengths,
                                        size_t count,
                                        const uint32_t *end_ids,
                                        size_t end_count,
                                        struct TandemVocabulary **handle,
                                        struct TandemBuffer *out);

/**
 * Ends a handle. Lifetime: no call may use it any more, grammars made of it live on; null is allowed. Threads: one,
 * after all others are done.
 *
 * # Safety
 * `handle` is null or came from tandem_vocabulary_new.
 */
void tandem_vocabulary_free(struct TandemVocabulary *handle);

/**
 * Compiles a grammar into a new handle, at its beginning. Lifetime: the source is copied, the handle lives until
 * tandem_grammar_free. Threads: many at once on one vocabulary.
 *
 * # Safety
 * `vocabulary` is live, `source` has `size` bytes; `handle` and `out` are writable.
 */
enum TandemStatus tandem_grammar_compile(const struct TandemVocabulary *vocabulary,
                                         enum TandemGrammarKind kind,
                                         const uint8_t *source,
                                         size_t size,
                                         struct TandemGrammarLimits limits,
                                         struct TandemGrammar **handle,
                                         struct TandemBuffer *out);

/**
 * A second handle in the state of the first; neither knows of the other. Lifetime: until tandem_grammar_free.
 * Threads: many at once on one grammar that nobody advances.
 *
 * # Safety
 * `grammar` is live; `handle` and `out` are writable.
 */
enum TandemStatus tandem_grammar_clone(const struct TandemGrammar *grammar,
                                       struct TandemGrammar **handle,
                                       struct TandemBuffer *out);

/**
 * Ends a handle. Lifetime: no call may use it any more; null is allowed. Threads: one.
 *
 * # Safety
 * `handle` is null or came from tandem_grammar_compile or tandem_grammar_clone.
 */
void tandem_grammar_free(struct TandemGrammar *handle);

/**
 * Which tokens may come after those accepted and then `after`: bit i of `words` is token i. The state stays as it is.
 * Lifetime: the inputs are read during the call. Threads: one at a time.
 *
 * # Safety
 * `grammar` is live, `after` has `after_count` values, `words` has `word_count`; `out` is writable.
 */
enum TandemStatus tandem_grammar_mask(struct TandemGrammar *grammar,
                                      const uint32_t *after,
                                      size_t after_count,
                                      uint32_t *words,
                                      size_t word_count,
                                      struct TandemBuffer *out);

/**
 * Takes a token that has come. `complete`: nothing may follow it. Lifetime: none. Threads: one at a time.
 *
 * # Safety
 * `grammar` is live; `complete` and `out` are writable.
 */
enum TandemStatus tandem_grammar_accept(struct TandemGrammar *grammar,
                                        uint32_t token,
                                        bool *complete,
                                        struct TandemBuffer *out);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus
