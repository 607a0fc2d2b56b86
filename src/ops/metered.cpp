// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "ops/metered.h"

#include <map>
#include <vector>

#include "ops/forwarding.h"

namespace tandem {

namespace {

// While it lives, whatever is thrown meanwhile.
class Recording {
 public:
  explicit Recording(bool& recording) : recording_(recording) { recording_ = true; }
  ~Recording() { recording_ = false; }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

 private:
  bool& recording_;
};

class MeteredBackend final : public ForwardingBackend {
 public:
  MeteredBackend(std::unique_ptr<Backend> inner, WorkSink sink)
      : ForwardingBackend(std::move(inner)), sink_(std::move(sink)) {}

  void run(const Operator& op) override {
    const Work done = work(op);
    step_ += done;
    if (!recording_) sink_(done);
    ForwardingBackend::run(op);
  }

  bool runs_behind() const override { return inner().runs_behind(); }
  std::unique_ptr<Draw> begin(const Sample& op, const Tensor& ids) override {
    sink_(work(op));
    return inner().begin(op, ids);
  }

  void replay(std::span<const std::int64_t> key, const std::function<void()>& record) override {
    bool recorded = false;
    step_ = {};
    inner().replay(key, [&] {
      recorded = true;
      record();
    });
    Work& of_step = steps_[std::vector(key.begin(), key.end())];
    if (recorded)
      of_step = step_;
    else
      sink_(of_step);
  }

  bool prepare(std::span<const std::int64_t> key, const std::function<void()>& record) override {
    const Recording recording(recording_);
    step_ = {};
    const bool is_new = inner().prepare(key, record);
    if (is_new) steps_[std::vector(key.begin(), key.end())] = step_;
    return is_new;
  }
  void launch(std::span<const std::int64_t> key) override {
    sink_(steps_.at(std::vector(key.begin(), key.end())));
    inner().launch(key);
  }
  std::unique_ptr<StepFlags> make_step_flags(std::int32_t count, Nanoseconds patience) override {
    return inner().make_step_flags(count, patience);
  }

 private:
  WorkSink sink_;
  Work step_;               // since it began
  bool recording_ = false;  // a step that does not run now
  std::map<std::vector<std::int64_t>, Work> steps_;
};

}  // namespace

std::unique_ptr<Backend> make_metered_backend(std::unique_ptr<Backend> inner, WorkSink sink) {
  return std::make_unique<MeteredBackend>(std::move(inner), std::move(sink));
}

}  // namespace tandem
