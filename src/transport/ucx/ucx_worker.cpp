// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

#include "transport/ucx/ucx_worker.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <utility>

#include "base/check.h"
#include "base/format.h"
#include "transport/ucx/retired_descriptors.h"

namespace tandem {
namespace {

[[noreturn]] void fail(ErrorCode code, std::string_view what, ucs_status_t status) {
  throw Error(code, ucx_message(what, status));
}

struct Release {
  void operator()(ucp_config_t* config) const { ucp_config_release(config); }
};
using Options = std::unique_ptr<ucp_config_t, Release>;

Options read_options(const UcxConfig& config) {
  ucp_config_t* read = nullptr;
  if (const ucs_status_t status = ucp_config_read(nullptr, nullptr, &read); status != UCS_OK)
    fail(ErrorCode::kInvalidArgument, "ucx transport: the UCX_ variables of the environment", status);
  Options options(read);
  const std::array<std::pair<const char*, const std::string*>, 4> chosen = {
      {{"TLS", &config.transports},
       {"NET_DEVICES", &config.devices},
       {"MAX_RNDV_RAILS", &config.rails_max},
       {"RNDV_THRESH", &config.rendezvous_threshold}}};
  for (const auto& [name, value] : chosen) {
    if (value->empty()) continue;
    if (const ucs_status_t status = ucp_config_modify(options.get(), name, value->c_str()); status != UCS_OK)
      fail(ErrorCode::kInvalidArgument, format("ucx transport: option UCX_{} = '{}'", name, *value), status);
  }
  return options;
}

std::string chosen_devices(const UcxConfig& config) {
  const auto or_any = [](const std::string& value) { return value.empty() ? std::string("any") : value; };
  return format("ucx transport: no device for transports '{}' and devices '{}' (`ucx_info -d` lists them)",
                or_any(config.transports), or_any(config.devices));
}

// Of all endpoints that this process has had: some tens of them, with less than ten pieces of memory each.
RetiredDescriptors& retired_descriptors() {
  static RetiredDescriptors retired(256);
  return retired;
}

}  // namespace

std::string ucx_message(std::string_view what, ucs_status_t status) {
  return format("{}: {}", what, ucs_status_string(status));
}

UcxWorker::UcxWorker(const UcxConfig& config) {
  const Options options = read_options(config);
  ucp_params_t context = {};
  context.field_mask = UCP_PARAM_FIELD_FEATURES;
  context.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  if (const ucs_status_t status = ucp_init(&context, options.get(), &context_); status != UCS_OK)
    fail(ErrorCode::kUnavailable, chosen_devices(config), status);

  ucp_worker_params_t worker = {};
  worker.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  worker.thread_mode = UCS_THREAD_MODE_SERIALIZED;  // made by one thread, used by one other
  ucs_status_t status = ucp_worker_create(context_, &worker, &worker_);
  if (status == UCS_OK) status = ucp_worker_get_efd(worker_, &ucx_events_);
  wakes_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (status == UCS_OK && wakes_ < 0) status = UCS_ERR_NO_RESOURCE;
  if (status == UCS_OK) return;
  if (worker_) ucp_worker_destroy(worker_);
  ucp_cleanup(context_);
  if (wakes_ >= 0) close(wakes_);
  fail(ErrorCode::kUnavailable, chosen_devices(config), status);
}

UcxWorker::~UcxWorker() {
  const std::vector<int> memory = ucx_memory_descriptors();
  ucp_worker_destroy(worker_);  // first: what is under way may be of a region
  for (const Region& region : regions_) ucp_mem_unmap(context_, region.handle);
  ucp_cleanup(context_);
  retired_descriptors().retire(memory);
  close(wakes_);
}

std::vector<std::byte> UcxWorker::address() const {
  ucp_address_t* address = nullptr;
  std::size_t bytes = 0;
  if (const ucs_status_t status = ucp_worker_get_address(worker_, &address, &bytes); status != UCS_OK)
    fail(ErrorCode::kInternal, "ucx transport: address of the worker", status);
  const auto* begin = reinterpret_cast<const std::byte*>(address);
  std::vector<std::byte> copy(begin, begin + bytes);
  ucp_worker_release_address(worker_, address);
  return copy;
}

void UcxWorker::handle_messages(unsigned id, ucp_am_recv_callback_t callback, void* argument) {
  ucp_am_handler_param_t handler = {};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                       UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = id;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  handler.cb = callback;
  handler.arg = argument;
  if (const ucs_status_t status = ucp_worker_set_am_recv_handler(worker_, &handler); status != UCS_OK)
    fail(ErrorCode::kInternal, "ucx transport: handler of messages", status);
}

Status UcxWorker::register_region(std::span<std::byte> region) {
  ucp_mem_map_params_t map = {};
  map.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
  map.address = region.data();
  map.length = region.size();
  ucp_mem_h handle = nullptr;
  if (const ucs_status_t status = ucp_mem_map(context_, &map, &handle); status != UCS_OK)
    return {ErrorCode::kOutOfResources,
            ucx_message(format("region of {} bytes cannot be registered", region.size()), status)};
  regions_.push_back({region, handle});
  return Status::ok();
}

ucp_mem_h UcxWorker::region_of(std::span<const std::byte> bytes) const {
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data());
  for (const Region& region : regions_) {
    const auto start = reinterpret_cast<std::uintptr_t>(region.bytes.data());
    if (begin >= start && begin - start <= region.bytes.size() && bytes.size() <= region.bytes.size() - (begin - start))
      return region.handle;
  }
  return nullptr;
}

void UcxWorker::progress() {
  while (ucp_worker_progress(worker_) != 0) {
  }
}

void UcxWorker::sleep(Nanoseconds time) {
  // UCS_ERR_BUSY: something came since the last progress.
  if (woken_.load(std::memory_order_acquire) || ucp_worker_arm(worker_) != UCS_OK) return;
  constexpr Nanoseconds kSleepMax = 3600 * kSecond;
  const Nanoseconds bounded = std::clamp<Nanoseconds>(time, 0, kSleepMax);
  const timespec limit = {.tv_sec = bounded / kSecond, .tv_nsec = bounded % kSecond};
  std::array<pollfd, 2> waited = {{{.fd = ucx_events_, .events = POLLIN, .revents = 0},  //
                                   {.fd = wakes_, .events = POLLIN, .revents = 0}}};
  ppoll(waited.data(), waited.size(), &limit, nullptr);
  if (waited[1].revents != 0) woken_.store(true, std::memory_order_release);
}

bool UcxWorker::take_wake() {
  if (!woken_.load(std::memory_order_acquire)) return false;
  std::uint64_t count = 0;
  // The descriptor first: of a wake that comes meanwhile the flag may be lost, but not what it writes, which ends a
  // sleep.
  [[maybe_unused]] const ssize_t got = read(wakes_, &count, sizeof count);
  woken_.store(false, std::memory_order_release);
  return true;
}

void UcxWorker::wake() {
  woken_.store(true, std::memory_order_release);
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t put = write(wakes_, &one, sizeof one);
}

}  // namespace tandem
