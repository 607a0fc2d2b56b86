// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Sampling: one kernel for all rows (sampling/sample_rows.h). What rows ask lies in pinned memory, where the kernel
// reads it over the bus, once; what it found lies behind, eight bytes a row and what is asked in log-probabilities. The
// host waits for an event behind the kernel, once, unless a row goes by the definition (sample_row): its logits are
// then copied and drawn from here.
#include <algorithm>
#include <memory>
#include <vector>

#include "ops/backend.h"
#include "ops/cuda/machine.cuh"
#include "ops/cuda/sampling/sample_orders.h"

namespace tandem::cuda {

namespace {

// The pinned memory of one Sample, in this order.
struct Exchange {
  std::span<SampleOrder> orders;
  std::span<SampledRow> found;
  std::span<TokenLogprob> logprobs;
  std::span<std::uint32_t> words;
};

template <class T>
std::span<T> take(std::byte*& at, std::size_t count) {
  const std::span<T> taken(reinterpret_cast<T*>(at), count);
  at += taken.size_bytes();
  return taken;
}

// Grows by half at least: the answers that penalties look at grow with every step.
Exchange make_exchange(Buffer& buffer, std::size_t rows, const SampleNeeds& needs) {
  static_assert(sizeof(SampleOrder) % 8 == 0 && sizeof(SampledRow) == 8 && sizeof(TokenLogprob) == 8);
  const std::size_t bytes = rows * (sizeof(SampleOrder) + sizeof(SampledRow)) + needs.logprobs * sizeof(TokenLogprob) +
                            needs.words * sizeof(std::uint32_t);
  if (buffer.bytes() < bytes) buffer = allocate_pinned(bytes + bytes / 2);
  std::byte* at = buffer.bytes_data();
  Exchange exchange;
  exchange.orders = take<SampleOrder>(at, rows);
  exchange.found = take<SampledRow>(at, rows);
  exchange.logprobs = take<TokenLogprob>(at, needs.logprobs);
  exchange.words = take<std::uint32_t>(at, needs.words);
  return exchange;
}

// Rows whose edited copies fit into scratch memory go together: 55 of a vocabulary of 150,000, and any that need none.
void launch(Machine& machine, const Sample& op, const Exchange& exchange, bool plain, std::int32_t work_rows,
            std::int32_t* ids) {
  SampleRows kernel{.logits = nullptr,
                    .stride = op.logits.row_stride,
                    .rows = 0,
                    .vocab = static_cast<std::int32_t>(op.logits.shape[1]),
                    .orders = nullptr,
                    .lists = exchange.words.data(),
                    .work = static_cast<float*>(machine.scratch.data()),
                    .found = nullptr,
                    .logprobs = exchange.logprobs.data()};
  for (std::size_t begin = 0; begin < op.rows.size();) {
    const std::size_t end = plain ? op.rows.size() : launch_end(exchange.orders, begin, work_rows);
    kernel.logits = op.logits.row<float>(static_cast<std::int64_t>(begin));
    kernel.rows = static_cast<std::int32_t>(end - begin);
    if (!plain) kernel.orders = &exchange.orders[begin];
    kernel.found = &exchange.found[begin];
    kernel.ids = ids ? ids + begin : nullptr;
    run(kernel, machine.stream);
    begin = end;
  }
}

SampledToken token_of(const SampleOrder& order, const SampledRow& found, std::int64_t vocab,
                      std::span<const TokenLogprob> logprobs) {
  SampledToken token;
  token.failed = found.outcome == SampleOutcome::kFailed;
  token.id = found.id;
  if (token.failed || order.logprobs < 0) return token;
  token.logprob = logprobs[order.first_logprob].logprob;
  const auto likeliest = static_cast<std::size_t>(std::min<std::int64_t>(order.logprobs, vocab));
  for (const TokenLogprob& entry : logprobs.subspan(order.first_logprob + 1, likeliest))
    token.top_logprobs.emplace_back(entry.id, entry.logprob);
  return token;
}

SampledToken sample_by_definition(Machine& machine, const Sample& op, std::size_t row) {
  std::vector<float> logits(static_cast<std::size_t>(op.logits.shape[1])), scratch;
  need(cudaMemcpyAsync(logits.data(), op.logits.row<float>(static_cast<std::int64_t>(row)),
                       logits.size() * sizeof(float), cudaMemcpyDefault, machine.stream),
       "copying logits");
  need(cudaStreamSynchronize(machine.stream), "copying logits");
  return sample_row(op.rows[row], logits, scratch);
}

class Event {
 public:
  Event() { need(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "sampling"); }
  ~Event() { (void)cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(cudaStream_t stream) { need(cudaEventRecord(event_, stream), "sampling"); }
  cudaError_t wait() { return cudaEventSynchronize(event_); }

 private:
  cudaEvent_t event_ = nullptr;
};

// What the kernel reads and writes is the machine's, which is why its end waits.
class CudaDraw final : public Draw {
 public:
  CudaDraw(Machine& machine, const Sample& op, std::int32_t* ids)
      : out_(op.out),
        vocab_(static_cast<std::int32_t>(op.logits.shape[1])),
        plain_(std::ranges::all_of(op.rows, is_plain)) {
    const SampleNeeds needs = plain_ ? SampleNeeds{} : needs_of(op.rows, vocab_);
    exchange_ = make_exchange(machine.sampling, op.rows.size(), needs);
    const auto work_rows =
        static_cast<std::int32_t>(machine.scratch_floats() / (std::size_t{2} * static_cast<std::size_t>(vocab_)));
    if (!plain_) write_orders(op.rows, vocab_, work_rows, exchange_.orders, exchange_.words);
    for (std::size_t i = 0; i < op.rows.size(); ++i)
      if (why_by_definition(op.rows[i], work_rows) != nullptr) by_definition_.push_back(i);
    launch(machine, op, exchange_, plain_, work_rows, ids);
    drawn_.record(machine.stream);
  }
  ~CudaDraw() override { (void)drawn_.wait(); }
  CudaDraw(const CudaDraw&) = delete;
  CudaDraw& operator=(const CudaDraw&) = delete;

  std::vector<std::size_t> finish() override {
    need(drawn_.wait(), "sampling");
    static const SampleOrder kPlain;
    std::vector<std::size_t> left_out;
    for (std::size_t i = 0; i < out_.size(); ++i) {
      const SampledRow& found = exchange_.found[i];
      if (found.outcome == SampleOutcome::kUnusual || std::ranges::binary_search(by_definition_, i))
        left_out.push_back(i);
      else
        out_[i] = token_of(plain_ ? kPlain : exchange_.orders[i], found, vocab_, exchange_.logprobs);
    }
    return left_out;
  }

 private:
  std::span<SampledToken> out_;
  std::int32_t vocab_;
  bool plain_;
  Exchange exchange_;
  std::vector<std::size_t> by_definition_;
  Event drawn_;
};

}  // namespace

void run(Machine& machine, const Sample& op) {
  if (op.rows.empty()) return;
  for (const std::size_t row : CudaDraw(machine, op, nullptr).finish())
    op.out[row] = sample_by_definition(machine, op, row);
}

std::unique_ptr<Draw> begin(Machine& machine, const Sample& op, const Tensor& ids) {
  return std::make_unique<CudaDraw>(machine, op, ids.as<std::int32_t>());
}

}  // namespace tandem::cuda
