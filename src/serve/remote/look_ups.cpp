// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "serve/remote/look_ups.h"

namespace tandem {

LookUps::LookUps(LookUp look_up) : look_up_(std::move(look_up)), thread_([this] { run(); }) {}

LookUps::~LookUps() {
  stop();
  thread_.join();
}

void LookUps::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  asked_.notify_all();
  answered_.notify_all();
}

std::optional<std::vector<IpAddress>> LookUps::find(const std::string& name,
                                                    std::chrono::steady_clock::time_point end) {
  const auto question = std::make_shared<Question>(Question{.name = name, .end = end, .answer = {}});
  std::unique_lock lock(mutex_);
  questions_.push_back(question);
  asked_.notify_one();
  answered_.wait_until(lock, end, [&] { return stopping_ || question->answer.has_value(); });
  return question->answer;
}

void LookUps::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    asked_.wait(lock, [this] { return stopping_ || !questions_.empty(); });
    if (stopping_) return;
    const std::shared_ptr<Question> question = questions_.front();
    questions_.pop_front();
    if (question->end <= std::chrono::steady_clock::now()) continue;  // nobody waits for it any more
    lock.unlock();
    std::vector<IpAddress> answer = look_up_(question->name);
    lock.lock();
    question->answer = std::move(answer);
    answered_.notify_all();
  }
}

}  // namespace tandem
