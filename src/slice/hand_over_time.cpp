// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "slice/hand_over_time.h"

#include <algorithm>

#include "base/error.h"
#include "base/format.h"
#include "ops/cuda/device.h"
#include "ops/cuda/device_memory.h"
#include "ops/cuda/peer/devices.h"
#include "ops/cuda/peer/pass_rows.h"
#include "ops/cuda/peer/recorded_work.h"
#include "ops/cuda/peer/step_clock.h"
#include "ops/cuda/peer/stream_flag.h"
#include "ops/cuda/split/decode_step.h"
#include "slice/flag_waiters.h"
#include "slice/side_memory.h"

namespace tandem {

namespace {

using cuda::DeviceMemory;
using cuda::FlagsBy;
using cuda::OnDevice;
using cuda::Stream;

constexpr std::size_t kLinkBytes = std::size_t{256} << 20;
constexpr int kLinkCopies = 8;

// What one GPU has of a game, allocated on the thread's device.
struct Player {
  Player(int gpu, std::size_t bytes, std::size_t rounds)
      : gpu(gpu),
        rows(zeros(bytes)),
        made(zeros(bytes)),
        flag(zeros(4)),
        round(zeros(4)),
        times(zeros(rounds * sizeof(std::uint64_t))) {}

  int gpu;
  DeviceMemory rows;  // that come in
  DeviceMemory made;  // where a copy engine takes them from
  DeviceMemory flag, round, times;
  cuda::WorkStream work;
  cuda::StepClock ended;
  cuda::RecordedWork launch;
};

struct Game {
  RowsBy rows;
  FlagsBy flags;
  std::int64_t bytes;
};

void record(const Game& game, Player& me, const Player& other) {
  const OnDevice on(me.gpu);
  const bool copied = game.rows == RowsBy::kCopyEngine;
  const Stream work = me.work.get();
  me.launch = cuda::RecordedWork(work, [&] {
    for (std::int32_t round = 0; round < kRoundsOfLaunch; ++round) {
      cuda::wait_and_lower_flag(me.flag.as<std::uint32_t>(), game.flags, work);
      cuda::run(cuda::PassRows{.to = (copied ? me.made : other.rows).as<std::uint32_t>(),
                               .from = me.rows.as<std::uint32_t>(),
                               .words = game.bytes / 4,
                               .times = me.times.as<std::uint64_t>(),
                               .round = me.round.as<std::uint32_t>()},
                work);
      if (copied)
        cuda::copy_between_devices(other.rows.as<std::byte>(), me.made.as<std::byte>(),
                                   static_cast<std::size_t>(game.bytes), work);
      cuda::raise_flag(other.flag.as<std::uint32_t>(), game.flags, work);
    }
  });
  cuda::synchronise_device();
}

void play(Player& first, Player& second, std::int32_t launches) {
  {
    const OnDevice on(first.gpu);
    cuda::set_word(first.flag.as<std::uint32_t>(), 1, nullptr);
    cuda::synchronise();
  }
  for (std::int32_t launch = 0; launch < launches; ++launch)
    for (Player* player : {&second, &first}) {
      const OnDevice on(player->gpu);
      player->launch.launch(player->work.get());
      if (launch == launches - 1) player->ended.mark(player->work.get());
    }
  const auto ended = [&] { return first.ended.has_passed(0) && second.ended.has_passed(0); };
  if (wait_until(ended)) return;
  const GpuFlags gpus[] = {{first.gpu, {first.flag.as<std::uint32_t>()}},
                           {second.gpu, {second.flag.as<std::uint32_t>()}}};
  (void)free_waiters(gpus, ended);
  throw Error(ErrorCode::kUnavailable, format("GPU {} and GPU {} did not see each other's flags within {} s", first.gpu,
                                              second.gpu, kFlagPatience.count()));
}

// Each launch's rounds add two to every word, one on either GPU.
void check_rows(const Game& game, const Player& first, std::int32_t launches) {
  const auto expected = static_cast<std::uint32_t>(2 * launches * kRoundsOfLaunch);
  const auto words = first.rows.download<std::uint32_t>(0, static_cast<std::size_t>(game.bytes / 4));
  const auto wrong = std::ranges::count_if(words, [&](std::uint32_t word) { return word != expected; });
  if (wrong > 0)
    throw Error(ErrorCode::kInternal, format("{} of {} words that came back by {} and {} are not those that were sent",
                                             wrong, words.size(), to_string(game.rows), to_string(game.flags)));
}

HandOverTime measure(const Game& game, const HandOverOptions& o) {
  const auto bytes = static_cast<std::size_t>(game.bytes);
  const std::size_t rounds = static_cast<std::size_t>(o.launches) * kRoundsOfLaunch;
  const OnDevice on(o.first_gpu);
  Player first(o.first_gpu, bytes, rounds);
  const OnDevice there(o.second_gpu);
  Player second(o.second_gpu, bytes, rounds);
  cuda::synchronise();
  record(game, first, second);
  record(game, second, first);
  play(first, second, o.launches);
  check_rows(game, first, o.launches);
  auto began = first.times.download<std::uint64_t>();
  began.erase(began.begin(), began.begin() + kRoundsOfLaunch);
  HandOverTime time = hand_over_time(began, kRoundsOfLaunch);
  time.rows = game.rows;
  time.flags = game.flags;
  time.bytes = game.bytes;
  return time;
}

double link_bytes_per_second(const HandOverOptions& o) {
  DeviceMemory to;
  {
    const OnDevice there(o.second_gpu);
    to = zeros(kLinkBytes);
    cuda::synchronise();
  }
  const OnDevice on(o.first_gpu);
  const DeviceMemory from = zeros(kLinkBytes);
  cuda::synchronise();
  const double us = cuda::median_microseconds(
      [&](Stream stream, int) {
        cuda::copy_between_devices(to.as<std::byte>(), from.as<std::byte>(), kLinkBytes, stream);
      },
      5, kLinkCopies);
  return static_cast<double>(kLinkBytes) / us * 1e6;
}

}  // namespace

HandOverReport measure_hand_overs(const HandOverOptions& options) {
  if (const std::string missing = cuda::why_unusable(cuda::look_at_device()); !missing.empty())
    throw Error(ErrorCode::kUnavailable, missing);
  if (options.first_gpu == options.second_gpu)
    throw Error(ErrorCode::kInvalidArgument, format("GPU {} twice: a hand-over takes two", options.first_gpu));
  cuda::connect_devices(options.first_gpu, options.second_gpu);
  HandOverReport report{.link_bytes_per_second = link_bytes_per_second(options), .times = {}};
  for (const RowsBy rows : {RowsBy::kStores, RowsBy::kCopyEngine})
    for (const FlagsBy flags : {FlagsBy::kThreads, FlagsBy::kFrontEnds})
      for (const std::int64_t bytes : options.bytes)
        report.times.push_back(measure({.rows = rows, .flags = flags, .bytes = bytes}, options));
  return report;
}

}  // namespace tandem
