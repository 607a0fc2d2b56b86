// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// Seeded random use of KvSpace beside a naive model of it. The model spells prefixes out and knows no block ids, so it
// predicts every hit, refusal and count; a memory of what was written where shows that no block is shared wrongly.

#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <map>

#include "base/format.h"
#include "base/rng.h"
#include "kv/kv_space.h"

namespace tandem {
namespace {

using Tokens = std::vector<std::int32_t>;
using Prefix =
    std::pair<std::uint64_t, Tokens>;  // a salt and whole blocks of tokens: what a published block stands for

Prefix prefix_of(std::uint64_t salt, const Tokens& tokens, std::int64_t blocks) {
  return {salt, Tokens(tokens.begin(), tokens.begin() + blocks * kBlockTokens)};
}

class NaiveSpace {
 public:
  explicit NaiveSpace(std::int64_t blocks) : blocks_(blocks) {}

  std::int64_t held() const {
    return private_ + std::ranges::count_if(references_, [](const auto& item) { return item.second > 0; });
  }
  std::int64_t cached() const { return std::ssize(cached_); }

  std::int64_t attach(std::uint64_t salt, const Tokens& tokens, std::int64_t limit) {
    std::int64_t found = 0;
    while ((found + 1) * kBlockTokens <= limit && references_.contains(prefix_of(salt, tokens, found + 1))) {
      retain(prefix_of(salt, tokens, ++found));
    }
    return found * kBlockTokens;
  }
  bool grow(std::int64_t needed) {
    if (needed > blocks_ - held()) return false;
    for (; needed > 0; --needed, ++private_) {
      if (held() + cached() < blocks_) continue;
      references_.erase(cached_.front());
      cached_.pop_front();
    }
    return true;
  }
  void publish(const Prefix& prefix) {
    retain(prefix);
    --private_;
  }
  void release_private() { --private_; }
  void release(const Prefix& prefix) {
    if (--references_.at(prefix) == 0) cached_.push_back(prefix);
  }

 private:
  void retain(const Prefix& prefix) {
    const auto [item, is_new] = references_.emplace(prefix, 0);
    if (!is_new && item->second == 0) cached_.remove(prefix);
    ++item->second;
  }

  std::int64_t blocks_;
  std::int64_t private_ = 0;
  std::map<Prefix, int> references_;
  std::list<Prefix> cached_;
};

struct User {
  std::uint64_t salt = 0;
  Tokens tokens;
  BlockTable table;
  std::int64_t settled = 0;  // positions that will not be cut off again
  bool dropped = false;      // its window blocks were given back
};

class RandomUse {
 public:
  // window_tokens of windowed layers, or 0.
  RandomUse(std::uint64_t seed, std::int64_t window_tokens)
      : rng_(seed),
        blocks_(3 + below(12)),
        window_tokens_(window_tokens),
        kv_({.blocks = blocks_, .window_tokens = window_tokens, .window_blocks = blocks_}),
        naive_(blocks_),
        memory_(static_cast<std::size_t>(blocks_)),
        window_memory_(static_cast<std::size_t>(blocks_)) {}

  void run(int operations) {
    for (int i = 0; i < operations && !::testing::Test::HasFailure(); ++i) {
      operate();
      check();
    }
    while (!users_.empty()) leave(0);
    check();
    EXPECT_EQ(kv_.usage().held, 0);
  }
  std::int64_t hit_tokens() const { return kv_.usage().hit_tokens; }
  std::int64_t refusals() const { return refusals_; }

 private:
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(rng_.below(static_cast<std::uint64_t>(bound)));
  }

  void operate() {
    if (users_.empty() || below(6) == 0) return arrive();
    const auto which = static_cast<std::size_t>(below(std::ssize(users_)));
    User& user = users_[which];
    switch (below(4)) {
      case 0:
        return below(3) == 0 ? leave(which) : shrink(user);
      case 1:
        return publish(user);
      default:
        return grow(user);
    }
  }

  // Tokens in runs of whole blocks, of few kinds: prefixes are shared often.
  void arrive() {
    User user{.salt = static_cast<std::uint64_t>(below(2))};
    for (std::int64_t i = 0; i < blocks_; ++i)
      user.tokens.insert(user.tokens.end(), kBlockTokens, static_cast<std::int32_t>(below(2)));
    const std::int64_t limit = below(std::ssize(user.tokens));
    // A window that is gone may make a hit shorter; whether what is found has its window, check() sees.
    const std::int64_t found = kv_.match_prefix(user.salt, user.tokens, limit).tokens;
    const std::int64_t expected = naive_.attach(user.salt, user.tokens, window_tokens_ > 0 ? found : limit);
    EXPECT_EQ(found, expected);
    EXPECT_EQ(kv_.attach_prefix(user.table, user.salt, user.tokens, limit), expected);
    user.settled = expected;
    users_.push_back(std::move(user));
  }

  void grow(User& user) {
    const std::int64_t count =
        below(std::min<std::int64_t>(3 * kBlockTokens, std::ssize(user.tokens) - user.table.tokens) + 1);
    const BlockTable before = user.table;
    FreshBlocks fresh;
    const bool expected = naive_.grow(KvSpace::blocks_needed(user.table, count));
    ASSERT_EQ(kv_.grow(user.table, count, fresh), expected);
    if (!expected) {
      ++refusals_;
      EXPECT_TRUE(fresh.blocks.empty() && user.table.blocks == before.blocks && user.table.tokens == before.tokens);
    }
    for (BlockId block : fresh.blocks) memory_[static_cast<std::size_t>(block)] = {};
    for (std::int64_t i = before.tokens / kBlockTokens; i < std::ssize(user.table.blocks); ++i) {
      memory_[static_cast<std::size_t>(user.table.blocks[static_cast<std::size_t>(i)])] =
          prefix_of(user.salt, user.tokens, i + 1);
      const BlockId beside = window_tokens_ > 0 ? user.table.window_blocks[static_cast<std::size_t>(i)] : kNoBlock;
      if (beside != kNoBlock)
        window_memory_[static_cast<std::size_t>(beside)] = prefix_of(user.salt, user.tokens, i + 1);
    }
  }

  void publish(User& user) {
    const std::int64_t computed = user.table.tokens - below(user.table.tokens + 1) / 4;
    for (std::int64_t i = user.table.published; (i + 1) * kBlockTokens <= computed; ++i) {
      naive_.publish(prefix_of(user.salt, user.tokens, i + 1));
    }
    kv_.publish(user.table, user.salt, user.tokens, computed);
    if (below(2) == 0) return;
    user.settled = user.table.tokens;
    kv_.pass_window(user.table, user.table.tokens);
    if (below(8) == 0) {  // as if it had come as pages without windows; nothing is added to such a table here
      kv_.drop_window(user.table);
      user.dropped = true;
    }
  }

  void shrink(User& user) {
    if (user.dropped) return;
    const std::int64_t least = std::max(user.table.published * kBlockTokens, user.settled);
    cut(user, least + below(user.table.tokens - least + 1), [&](std::int64_t to) { kv_.truncate(user.table, to); });
  }

  void leave(std::size_t which) {
    User& user = users_[which];
    cut(user, 0, [&](std::int64_t) { kv_.release(user.table); });
    users_.erase(users_.begin() + static_cast<std::ptrdiff_t>(which));
  }

  template <class Action>
  void cut(User& user, std::int64_t to, Action action) {
    for (std::int64_t i = std::ssize(user.table.blocks); i > (to + kBlockTokens - 1) / kBlockTokens; --i) {
      if (i <= user.table.published) {
        naive_.release(prefix_of(user.salt, user.tokens, i));
      } else {
        naive_.release_private();
      }
    }
    action(to);
  }

  void check() {
    std::vector<const BlockTable*> tables;
    for (const User& user : users_) {
      tables.push_back(&user.table);
      for (std::int64_t i = 0; i < std::ssize(user.table.blocks); ++i) {
        const BlockId block = user.table.blocks[static_cast<std::size_t>(i)];
        EXPECT_EQ(memory_[static_cast<std::size_t>(block)], prefix_of(user.salt, user.tokens, i + 1));
      }
      if (window_tokens_ > 0) check_window(user);
    }
    kv_.check_integrity(tables);
    EXPECT_EQ(kv_.usage().held, naive_.held());
    EXPECT_EQ(kv_.usage().cached, naive_.cached());
  }

  // What the next row sees is there, and is its own.
  void check_window(const User& user) {
    for (std::int64_t i = 0; i < std::ssize(user.table.blocks); ++i) {
      const BlockId block = user.table.window_blocks[static_cast<std::size_t>(i)];
      const bool is_seen = (i + 1) * kBlockTokens > user.settled - window_tokens_ + 1;
      EXPECT_TRUE(block != kNoBlock || !is_seen || user.dropped) << i;
      if (block == kNoBlock) continue;
      EXPECT_EQ(window_memory_[static_cast<std::size_t>(block)], prefix_of(user.salt, user.tokens, i + 1));
    }
  }

  Rng rng_;
  std::int64_t blocks_, window_tokens_;
  KvSpace kv_;
  NaiveSpace naive_;
  std::vector<Prefix> memory_;         // by block: what its writer meant it to be
  std::vector<Prefix> window_memory_;  // by window block
  std::vector<User> users_;
  std::int64_t refusals_ = 0;
};

TEST(KvRandom, AgreesWithTheNaiveModel) {
  std::int64_t hit_tokens = 0, refusals = 0;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(format("seed {}", seed));
    RandomUse use(seed, 0);
    use.run(400);
    if (HasFailure()) return;
    hit_tokens += use.hit_tokens();
    refusals += use.refusals();
  }
  EXPECT_GT(hit_tokens, 100 * kBlockTokens);  // the test reaches what it is for
  EXPECT_GT(refusals, 100);
}

TEST(KvRandom, WindowedLayersFindTheirWindowAndNeverRunOut) {
  std::int64_t hit_tokens = 0, refusals = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    for (const std::int64_t window : {1, 64, 65, 100, 300}) {
      SCOPED_TRACE(format("seed {}, window {}", seed, window));
      RandomUse use(seed, window);
      use.run(200);
      if (HasFailure()) return;
      hit_tokens += use.hit_tokens();
      refusals += use.refusals();
    }
  }
  EXPECT_GT(hit_tokens, 100 * kBlockTokens);
  EXPECT_GT(refusals, 100);
}

}  // namespace
}  // namespace tandem
