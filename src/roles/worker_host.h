// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// The worker inside a role's process: its share of the model, and for each epoch of the deployment an endpoint, a
// worker and its thread. One thread calls it; the worker has its own, and wakes the world when there are news or it has
// failed.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "deploy/deployment.h"
#include "engine/worker_parts.h"
#include "roles/constraint_thread.h"
#include "roles/control_message.h"
#include "roles/request_parcel.h"
#include "roles/worker_world.h"
#include "trust/frame_cipher.h"

namespace tandem {

// What a worker's process loads once.
struct LoadedWorker {
  Identity identity;
  EngineConfig config;                 // as resolve() leaves it
  std::shared_ptr<const Model> model;  // its share
  std::string backend;
};
// Throws Error.
LoadedWorker load_worker(const Deployment& deployment, std::int32_t rank, Observer* observer);

// Of KV that a worker keeps for requests to come; what is beyond it is computed anew.
inline constexpr std::size_t kComingBytesMax = 4 * kPagesBytesMax;

class WorkerHost {
 public:
  // Everything named must outlive it.
  WorkerHost(const Deployment& deployment, std::int32_t rank, LoadedWorker loaded, WorkerWorld& world,
             ConstraintFactory make_constraint);
  ~WorkerHost();

  Welcome welcome() const;
  const Identity& identity() const { return identity_; }
  bool is_attention() const { return rank_ < config_.layout.attention_workers; }

  // Drops what ran and begins to make an endpoint for an epoch. Throws Error.
  void prepare(const Prepare& prepare);
  // When the endpoint is made, once: its addresses, or none of them when it was dissolved meanwhile. Throws Error.
  std::optional<Addresses> take_addresses();
  // Why there is no endpoint after a time in which there should be one; ok: there is, or nothing is prepared.
  Status overdue() const { return world_.endpoints().overdue(); }
  // Throws Error for what is no hello of a peer.
  void connect(const Connect& connect);
  // True once: when every peer has been heard, the worker runs.
  bool try_start();
  bool joining() const { return endpoint_ != nullptr && connected_; }
  void dissolve();
  std::uint32_t epoch() const { return config_.epoch; }

  // Of a running attention worker. Throw Error for what is no request.
  void take(Rows rows);
  void take(Page page);
  void submit(Submit submit);
  void cancel(RequestId id);
  void give_up(RequestId id);
  // Requests that were given up, with their KV. Their news came before: ask for those afterwards, tell those first.
  struct Left {
    RequestId id = 0;
    Pages pages;
  };
  std::vector<Left> take_left();
  // Hands requests on whose constraints have been made.
  void take_constrained();
  // News since the last call.
  std::vector<RequestEvent> take_news();
  Report report() const;
  // Why the worker has stopped by itself; ok: it has not.
  Status failure() const;

 private:
  Addresses addresses();
  std::unique_ptr<Transport> take_endpoint();
  template <class Worker>
  void start(Worker& worker);
  Status check(const Request& request, bool constrained) const;
  void dismantle();
  void end(RequestId id, FinishReason finish, Status status);
  void hand_on(Request request);
  Pages take_pages(RequestId id);  // that came ahead; none: none did

  const Deployment& deployment_;
  const std::int32_t rank_;  // of this process
  const PeerRank seat_;      // what peers know it by
  WorkerWorld& world_;
  const Identity identity_;
  EngineConfig config_;
  const std::shared_ptr<const Model> model_;
  const std::string backend_;
  std::shared_ptr<EventStream> events_;
  std::optional<Prepare> prepare_;  // what an endpoint is made for; none while one is made: it was dissolved
  ParcelReader parcel_;
  struct Coming {  // KV of a request that is to come
    PageOrder order;
    Pages pages;
    bool dropped = false;  // there was too much
  };
  std::map<RequestId, Coming> coming_;
  std::size_t coming_bytes_ = 0;
  ConstraintThread constraints_;
  std::unique_ptr<MeetingTransport> endpoint_;  // until the worker has it
  std::vector<Introduction> introductions_;     // of the peers
  std::vector<KeyShare> key_shares_;            // of this epoch, by peer; none where frames are not sealed
  bool connected_ = false;
  std::optional<AttentionWorker::Remains> remains_;  // of the attention worker of the epoch before
  std::unique_ptr<AttentionWorker> attention_;
  std::unique_ptr<FfnWorker> ffn_;
  std::unique_ptr<WorkerThread> thread_;
  mutable std::mutex mutex_;  // guards what follows
  Status failure_;
  std::vector<Left> left_;
};

}  // namespace tandem
