// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The seam between models and machines: a backend owns memory and runs operators in the order they are given.
//
// A device's memory is not the host's. What allocate() gives is for operators; the host looks into it only where
// host_memory() says so, and moves data with copy() elsewhere. What both need in place comes from allocate_shared().
//
// Steps that repeat themselves are given by replay(), which a device turns into one launch. Where it computes beside
// the host (runs_behind), the next step can be given before the host has heard what this one drew (begin). A step whose
// halves two backends compute is recorded by each before either runs (prepare, launch), with flags between the two.
//
// One backend object belongs to one worker thread (it may have a team of its own behind it). Weights are immutable and
// may be shared between backends of the same kind. Nothing is allocated inside run(). Decorators wrap a backend:
// checked.h validates every operator, traced.h times it.
#pragma once

#include <cstddef>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "ops/kv_cache.h"
#include "ops/operators.h"
#include "ops/weight.h"
#include "tensor/copy_lane.h"
#include "tensor/step_flags.h"
#include "tensor/tensor.h"

namespace tandem {

// A Sample under way, see Backend::begin.
class Draw {
 public:
  virtual ~Draw() = default;
  // Waits until its out is filled, and for nothing that was given after it. Returns the rows that are left out, in
  // ascending order: drawing them takes the host, run(Sample) does it.
  virtual std::vector<std::size_t> finish() = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;
  // "reference", or the kind with the variant that was chosen: "cpu/avx2, 2 threads".
  virtual std::string describe() const = 0;

  // Zeroed memory that operators can use. Throws Error{kOutOfResources}.
  virtual Buffer allocate(std::size_t bytes) = 0;
  // Zeroed memory that operators and the host can use: what the host wrote before run() is seen by the operator, what
  // operators wrote is seen after synchronise(). On a device slower for operators than allocate().
  virtual Buffer allocate_shared(std::size_t bytes) { return allocate(bytes); }
  // Whether the host can read and write what allocate() gives.
  virtual bool host_memory() const { return true; }
  // Copies between any memory of this backend or the host, in order with run(). Until synchronise() returns, a source
  // in host memory stays as it is and a target is not read.
  virtual void copy(void* to, const void* from, std::size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);  // of nothing, there may be no place
  }
  // Packs a weight. Throws Error{kUnsupported} for a type it cannot hold.
  virtual std::unique_ptr<Weight> pack(const WeightSource& source) = 0;
  // How many weights GroupedMatMul, Fp8Experts and ProjectHeads can have. Whoever packs them asks first.
  virtual std::int64_t weights_max() const { return std::numeric_limits<std::int64_t>::max(); }

  // Whether Fp8MatMul and Fp8Experts run with this weight. Others round with QuantiseRows and multiply in f32.
  virtual bool has_fp8_products([[maybe_unused]] const Weight& weight) const { return false; }
  // Whether Int8MatMul and Int8GroupedMatMul run with this weight.
  virtual bool has_int8_products([[maybe_unused]] const Weight& weight) const { return false; }

  virtual std::unique_ptr<KvCache> make_kv_cache(const KvSpec& spec) = 0;
  // A block is zeroed when it is handed out, so that what an earlier owner left reaches nobody.
  virtual void zero_block(KvCache& cache, std::int32_t block) = 0;
  // page has page_bytes(spec) bytes. import fails, touching nothing, when the header is not this cache's.
  virtual void export_page(const KvCache& cache, std::int32_t block, std::span<std::byte> page) = 0;
  virtual void import_page(KvCache& cache, std::int32_t block, std::span<const std::byte> page) = 0;

  virtual void run(const Operator& op) = 0;
  // Runs the operators that record gives to run() of this backend; none of them is a Sample. By the same key the caller
  // promises the same operators on the same memory, of which only the contents differ, so a device may start them all
  // at once without asking record again.
  virtual void replay([[maybe_unused]] std::span<const std::int64_t> key, const std::function<void()>& record) {
    record();
  }
  // A step whose work waits for another backend's, by flags of make_step_flags(), is prepared first and then launched
  // as often as it comes, since what is allocated or loaded on the way may wait for all that a device does. prepare()
  // records what record gives to this backend and to the flags, and runs none of it; the same operators have been run
  // before. False where the key, which promises what it does in replay(), is prepared already; those that were used
  // longest ago may go when others come. Only where make_step_flags() gives some.
  virtual bool prepare(std::span<const std::int64_t> key, const std::function<void()>& record);
  virtual void launch(std::span<const std::int64_t> key);
  // This side's flags of such steps, count of them each way, for whoever waits no longer than patience. Used no longer
  // than the backend lives; the object itself may go later. Null where it has none.
  virtual std::unique_ptr<StepFlags> make_step_flags([[maybe_unused]] std::int32_t count,
                                                     [[maybe_unused]] Nanoseconds patience) {
    return nullptr;
  }
  // Whether operators are computed while the host goes on.
  virtual bool runs_behind() const { return false; }
  // Begins op, one at a time. What is run next finds the drawn ids in ids, i32 [rows] of memory from allocate(); of a
  // row that fails or is left out, some id of the vocabulary. op.out stays in place until finish(); what op.rows names
  // may go at once, and what is run next may write to op.logits.
  virtual std::unique_ptr<Draw> begin(const Sample& op, const Tensor& ids);
  // Returns when everything given to run() so far is done.
  virtual void synchronise() {}
  // As synchronise(), before memory goes: a device that fails does nothing more, so that is an end, too.
  void come_to_rest() noexcept;
  // Copies between what allocate() gave here and in another backend of the kind, in the order of what both are given.
  // Points are made and followed no longer than the backend lives; the lane itself may go later. Null where it has
  // none.
  virtual std::unique_ptr<CopyLane> make_copy_lane() { return nullptr; }
};

}  // namespace tandem
