// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "roles/control_message.h"

#include <bit>
#include <cstring>
#include <iterator>
#include <type_traits>
#include <utility>

#include "base/format.h"

namespace tandem {
namespace {

static_assert(std::endian::native == std::endian::little, "messages are little-endian");

constexpr std::uint32_t kMagic = 0x43545454;  // "TTTC"

struct Header {
  std::uint32_t magic = kMagic;
  std::uint32_t kind = 0;
  std::uint64_t bytes = 0;  // that follow
};
static_assert(sizeof(Header) == kControlHeaderBytes);

template <class T>
concept Number = std::is_arithmetic_v<T> && !std::is_same_v<T, bool>;

// An array's length is known to both sides.
template <class List>
inline constexpr bool kHasLength = requires { typename List::allocator_type; };

class Writer {
 public:
  static constexpr bool kReads = false;

  template <Number T>
  void operator()(const T& value) {
    append(&value, sizeof value);
  }
  void operator()(const bool& value) { (*this)(static_cast<std::uint8_t>(value)); }
  void operator()(const std::byte& value) { bytes_.push_back(value); }
  template <class E>
    requires std::is_enum_v<E>
  void operator()(const E& value, E) {
    (*this)(static_cast<std::uint8_t>(value));
  }
  template <class List>
  void length(const List& list, std::size_t) {
    (*this)(static_cast<std::uint64_t>(list.size()));
  }
  // Of a list of numbers or bytes, its length and its elements; of an array, these alone.
  template <class List>
  void elements(const List& list) {
    if constexpr (kHasLength<List>) length(list, 1);
    append(std::data(list), std::size(list) * sizeof(*std::data(list)));
  }
  void text(const std::string& text) { elements(text); }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  void append(const void* from, std::size_t count) {
    const std::size_t had = bytes_.size();
    bytes_.resize(had + count);
    if (count > 0) std::memcpy(bytes_.data() + had, from, count);
  }

  std::vector<std::byte> bytes_;
};

// Once something is wrong nothing more is read.
class Reader {
 public:
  static constexpr bool kReads = true;

  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <Number T>
  void operator()(T& value) {
    if (failed_ || rest_.size() < sizeof value) return fail();
    std::memcpy(&value, rest_.data(), sizeof value);
    rest_ = rest_.subspan(sizeof value);
  }
  void operator()(bool& value) {
    std::uint8_t byte = 0;
    (*this)(byte);
    if (byte > 1) return fail();
    value = byte == 1;
  }
  void operator()(std::byte& value) {
    std::uint8_t byte = 0;
    (*this)(byte);
    value = std::byte{byte};
  }
  template <class E>
    requires std::is_enum_v<E>
  void operator()(E& value, E last) {
    std::uint8_t byte = 0;
    (*this)(byte);
    if (byte > static_cast<std::uint8_t>(last)) return fail();
    value = static_cast<E>(byte);
  }
  // Every element takes so many bytes at least, so a list is never longer than what is left.
  template <class List>
  void length(List& list, std::size_t element_bytes) {
    std::uint64_t count = 0;
    (*this)(count);
    if (failed_ || count > rest_.size() / element_bytes) return fail();
    list.resize(static_cast<std::size_t>(count));
  }
  template <class List>
  void elements(List& list) {
    constexpr std::size_t kElement = sizeof(*std::data(list));
    if constexpr (kHasLength<List>) length(list, kElement);
    const std::size_t bytes = std::size(list) * kElement;
    if (failed_ || rest_.size() < bytes) return fail();
    if (bytes > 0) std::memcpy(std::data(list), rest_.data(), bytes);
    rest_ = rest_.subspan(bytes);
  }
  void text(std::string& text) { elements(text); }
  void skip_rest() { rest_ = {}; }
  bool done() const { return !failed_ && rest_.empty(); }
  bool failed() const { return failed_; }

 private:
  void fail() { failed_ = true; }

  std::span<const std::byte> rest_;
  bool failed_ = false;
};

// One description of each structure, for both ways.
template <class Io, class T>
using Field = std::conditional_t<Io::kReads, T, const T>;

template <class Io, class List, class Each>
void list(Io& io, List& items, std::size_t element_bytes, Each each) {
  io.length(items, element_bytes);
  for (auto& item : items) {
    if constexpr (Io::kReads)
      if (io.failed()) return;
    each(item);
  }
}

template <class Io, class Introductions>
void introductions_of(Io& io, Introductions& introductions) {
  list(io, introductions, 2 * sizeof(std::uint64_t), [&](auto& introduction) {
    io.elements(introduction.hello);
    io.elements(introduction.key_share);
  });
}

// False: what follows is of another version, and was skipped.
template <class Io>
bool fields(Io& io, Field<Io, Identity>& i) {
  io(i.version);
  if constexpr (Io::kReads) {
    if (!io.failed() && i.version != kControlVersion) {
      io.skip_rest();
      return false;
    }
  }
  io.text(i.deployment);
  io.text(i.layout);
  io.text(i.numbers);
  io.text(i.links);
  io(i.settings);
  io(i.model);
  return true;
}

template <class Io>
void fields(Io& io, Field<Io, SamplingParams>& s) {
  io(s.temperature);
  io(s.top_k);
  io(s.top_p);
  io(s.min_p);
  io(s.repetition_penalty);
  io(s.presence_penalty);
  io(s.frequency_penalty);
  io(s.seed);
  io(s.logprobs);
  list(io, s.logit_bias, 8, [&](auto& entry) { io(entry.first), io(entry.second); });
}

// Without its rows, which have messages of their own.
template <class Io>
void fields(Io& io, Field<Io, EmbeddedSpan>& s) {
  io(s.position);
  io(s.count);
  io(s.first_row);
}

template <class Io>
void fields(Io& io, Field<Io, Request>& r) {
  io(r.id);
  io.elements(r.prompt);
  io.elements(r.answer);
  io(r.new_tokens_max);
  io.elements(r.stop_ids);
  fields(io, r.sampling);
  io(r.cache_salt);
  io(r.prompt_logits);
  list(io, r.embedded, 3 * sizeof(std::int64_t), [&](auto& span) { fields(io, span); });
}

template <class Io>
void fields(Io& io, Field<Io, SampledToken>& t) {
  io(t.id);
  io(t.logprob);
  list(io, t.top_logprobs, 8, [&](auto& entry) { io(entry.first), io(entry.second); });
  io(t.failed);
}

template <class Io>
void fields(Io& io, Field<Io, Refusal>& r) {
  io(r.code, ErrorCode::kInternal);
  io.text(r.why);
}

// A status as an error that there may be none of.
template <class Io>
void status(Io& io, Field<Io, Status>& status) {
  Refusal error;
  bool ok = true;
  if constexpr (!Io::kReads) {
    ok = status.is_ok();
    if (!ok) error = {status.error().code(), status.error().message()};
  }
  io(ok);
  if (ok) return;
  fields(io, error);
  if constexpr (Io::kReads) status = Status(error.code, std::move(error.why));
}

template <class Io>
void fields(Io& io, Field<Io, RequestEvent>& e) {
  io(e.id);
  list(io, e.tokens, 17, [&](auto& token) { fields(io, token); });
  io(e.finish, FinishReason::kError);
  status(io, e.status);
  io(e.prompt_tokens);
  io(e.cached_tokens);
  io(e.preemptions);
}

template <class Io>
void fields(Io& io, Field<Io, Greeting>& g) {
  if (!fields(io, g.identity)) return;
  io(g.rank);
}

template <class Io>
void fields(Io& io, Field<Io, Welcome>& w) {
  if (!fields(io, w.identity)) return;
  io(w.rank);
  io(w.process);
  io(w.weight_bytes);
  io(w.kv_tokens);
  io.text(w.backend);
}

template <class Io>
void fields(Io& io, Field<Io, Prepare>& p) {
  io(p.epoch);
  io(p.session);
  io.elements(p.present);
}

template <class Io>
void fields(Io& io, Field<Io, Addresses>& a) {
  io(a.epoch);
  introductions_of(io, a.introductions);
}

template <class Io>
void fields(Io& io, Field<Io, Connect>& c) {
  io(c.epoch);
  introductions_of(io, c.introductions);
}

template <class Io>
void fields(Io& io, Field<Io, Ready>& r) {
  io(r.epoch);
}

template <class Io>
void fields(Io&, Field<Io, Dissolve>&) {}

template <class Io>
void fields(Io& io, Field<Io, ConstraintRecipe>& r) {
  io(r.kind);
  io(r.start);
  io.text(r.source);
}

template <class Io>
void fields(Io& io, Field<Io, Submit>& s) {
  fields(io, s.request);
  io.elements(s.contents);
  bool constrained = s.constraint.has_value();
  io(constrained);
  if (!constrained) return;
  if constexpr (Io::kReads) s.constraint.emplace();
  fields(io, *s.constraint);
}

template <class Io>
void fields(Io& io, Field<Io, Rows>& r) {
  io(r.begins);
  io.elements(r.digest);
  io(r.hidden);
  io.elements(r.values);
}

template <class Io>
void fields(Io& io, Field<Io, Cancel>& c) {
  io(c.id);
}

template <class Io>
void fields(Io& io, Field<Io, News>& n) {
  io(n.epoch);
  fields(io, n.event);
}

template <class Io>
void fields(Io& io, Field<Io, Yield>& y) {
  io(y.id);
}

template <class Io>
void fields(Io& io, Field<Io, Page>& p) {
  io(p.epoch);
  io(p.id);
  io(p.index);
  io(p.last);
  io.elements(p.bytes);
}

template <class Io>
void fields(Io& io, Field<Io, Yielded>& y) {
  io(y.epoch);
  io(y.id);
}

template <class Io>
void fields(Io& io, Field<Io, Report>& r) {
  auto& load = r.load;
  auto& kv = load.kv;
  for (auto* value : {&r.steps, &r.rows, &r.busy_ns, &r.wait_ns, &r.resends, &r.frames_refused, &load.waiting,
                      &load.running, &load.preemptions, &kv.blocks, &kv.held, &kv.cached, &kv.window_blocks,
                      &kv.window_held, &kv.lookup_tokens, &kv.hit_tokens})
    io(*value);
}

template <class Io>
void fields(Io&, Field<Io, Beat>&) {}

template <class Io>
void fields(Io& io, Field<Io, Order>& o) {
  io(o.version);
  if constexpr (Io::kReads)
    if (!io.failed() && o.version != kControlVersion) return io.skip_rest();
  io.text(o.deployment);
  io(o.kind, OrderKind::kAdd);
  io(o.rank);
}

template <class Io>
void fields(Io& io, Field<Io, Told>& t) {
  io.text(t.json);
}

template <std::size_t... kKind>
bool read_kind(std::uint32_t kind, Reader& reader, ControlMessage& message, std::index_sequence<kKind...>) {
  const auto read = [&]<std::size_t kThis>() {
    if (kind != kThis) return false;
    fields(reader, message.emplace<kThis>());
    return true;
  };
  return (read.template operator()<kKind>() || ...);
}

std::string refused(const std::string& why) {
  return "control message: " + why;
}

}  // namespace

std::vector<std::byte> to_bytes(const ControlMessage& message) {
  Writer writer;
  const Header empty;
  writer(empty.magic), writer(empty.kind), writer(empty.bytes);
  std::visit([&](const auto& kind) { fields(writer, kind); }, message);
  std::vector<std::byte> bytes = writer.take();
  const Header header = {.kind = static_cast<std::uint32_t>(message.index()), .bytes = bytes.size() - sizeof(Header)};
  std::memcpy(bytes.data(), &header, sizeof header);
  return bytes;
}

Result<std::size_t> control_message_bytes(std::span<const std::byte> bytes, std::size_t bytes_max) {
  Header header;
  if (bytes.size() < sizeof header) return std::size_t{0};
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != kMagic)
    return {ErrorCode::kInvalidData, refused(format("magic is {:#x}, ours is {:#x}", header.magic, kMagic))};
  if (header.bytes > bytes_max)
    return {ErrorCode::kInvalidData, refused(format("{} bytes, limit is {}", header.bytes, bytes_max))};
  return sizeof header + static_cast<std::size_t>(header.bytes);
}

Result<ControlMessage> parse_control(std::span<const std::byte> bytes) {
  Result<std::size_t> length = control_message_bytes(bytes);
  if (!length) return {length.error().code(), length.error().message()};
  if (length.value() == 0 || length.value() != bytes.size())
    return {ErrorCode::kInvalidData, refused(format("{} bytes of {}", bytes.size(), length.value()))};
  Header header;
  std::memcpy(&header, bytes.data(), sizeof header);
  Reader reader(bytes.subspan(sizeof header));
  ControlMessage message;
  constexpr std::size_t kKinds = std::variant_size_v<ControlMessage>;
  if (!read_kind(header.kind, reader, message, std::make_index_sequence<kKinds>()))
    return {ErrorCode::kInvalidData, refused(format("kind is {}, there are {}", header.kind, kKinds))};
  if (!reader.done())
    return {ErrorCode::kInvalidData, refused(format("{} bytes do not fit kind {}", header.bytes, header.kind))};
  return message;
}

}  // namespace tandem
