// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// What is the CUDA backend's own; operators and bits are tested with all other backends.
#include "ops/cuda/cuda_backend.h"

#include <functional>
#include <numeric>
#include <thread>

#include "base/error.h"
#include "ops/cpu/cpu_backend.h"
#include "tests/ops/backend_tests.h"

namespace tandem {
namespace {

TEST(CudaBackend, SaysWhyItCannotRun) {
  const std::string reason = cuda::why_unusable(cuda::look_at_device());
  if (reason.empty()) GTEST_SKIP() << "this machine can run it";
  try {
    make_cuda_backend();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_EQ(error.message(), "no CUDA here: " + reason);
  }
}

class OnTheGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = cuda::why_unusable(cuda::look_at_device()); !reason.empty()) GTEST_SKIP() << reason;
    gpu_ = make_cuda_backend();
  }
  std::unique_ptr<Backend> gpu_;
};

TEST_F(OnTheGpu, MemoryIsZeroedAndCopiedInOrder) {
  EXPECT_FALSE(gpu_->host_memory());
  const Buffer there = gpu_->allocate(1 << 16), shared = gpu_->allocate_shared(1 << 16);
  std::vector<char> sent(1 << 16, 7), back(1 << 16, 1);
  gpu_->copy(back.data(), there.data(), back.size());
  gpu_->synchronise();
  EXPECT_EQ(back, std::vector<char>(1 << 16));
  gpu_->copy(there.data(), sent.data(), sent.size());
  gpu_->copy(shared.data(), there.data(), shared.bytes());
  gpu_->synchronise();
  EXPECT_EQ(std::memcmp(shared.data(), sent.data(), sent.size()), 0);
}

TEST_F(OnTheGpu, MoreMemoryThanThereIsIsAnError) {
  try {
    const Buffer buffer = gpu_->allocate(std::size_t{1} << 50);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfResources);
    EXPECT_NE(error.message().find("MiB are free"), std::string::npos) << error.message();
  }
  EXPECT_NE(gpu_->allocate(64).data(), nullptr) << "and nothing is broken after it";
}

// Made, loaded, used and freed by different threads, of which none has chosen a GPU.
TEST_F(OnTheGpu, EveryCallIsForTheBackendsGpuWhateverThreadMakesIt) {
  if (cuda::look_at_device().devices < 2) GTEST_SKIP() << "there is one GPU";
  const auto elsewhere = [](const std::function<void()>& work) { std::thread(work).join(); };
  std::unique_ptr<Backend> other;
  elsewhere([&] { other = make_cuda_backend(1); });
  constexpr std::size_t kLarge = std::size_t{1} << 30;
  const std::size_t free[] = {cuda::look_at_device(0).bytes_free, cuda::look_at_device(1).bytes_free};
  Buffer large = other->allocate(kLarge);
  EXPECT_LE(cuda::look_at_device(1).bytes_free, free[1] - kLarge);
  EXPECT_GE(cuda::look_at_device(0).bytes_free, free[0] - kLarge / 2);
  elsewhere([&] { large = {}; });
  EXPECT_GE(cuda::look_at_device(1).bytes_free, free[1] - kLarge / 2);

  const KvSpec spec{2, 3, 20, 12, DType::kBF16, 2};
  std::vector<float> products[2];
  std::vector<std::byte> pages[2] = {std::vector<std::byte>(page_bytes(spec)),
                                     std::vector<std::byte>(page_bytes(spec))};
  for (int gpu = 0; gpu < 2; ++gpu) {
    Backend& backend = gpu == 0 ? *gpu_ : *other;
    auto b = std::make_unique<CaseBuilder>(backend);
    const Weight* weight = nullptr;
    elsewhere([&] { weight = b->weight(DType::kBF16, 96, 128); });
    const Tensor x = b->normal(5, 128), out = b->zeros(5, 96);
    const Buffer far = backend.allocate(5 * 96 * sizeof(float));
    const Tensor there(far.data(), DType::kF32, {5, 96});
    const std::int64_t key = 1;
    elsewhere([&] {
      for (int i = 0; i < 3; ++i)  // run, recorded, replayed
        backend.replay(std::span(&key, 1), [&] { backend.run(MatMul{there, x, weight, KSlices::whole(128)}); });
    });
    backend.copy(out.data, there.data, far.bytes());
    backend.synchronise();
    products[gpu] = values_of(out);
    KvCache& cache = b->cache(spec);
    elsewhere([&] {
      backend.run(AppendKv{b->normal(3, 60), b->normal(3, 36), b->ids({64, 70, 127}), &cache, 0});
      backend.synchronise();
    });
    backend.export_page(cache, 1, pages[gpu]);
    elsewhere([&] { b.reset(); });
  }
  EXPECT_GT(products[0][7] * products[0][7], 0);
  EXPECT_TRUE(same_bits(products[1], products[0]));
  EXPECT_EQ(pages[1], pages[0]);
  EXPECT_NE(pages[0], std::vector<std::byte>(page_bytes(spec)));
}

TEST_F(OnTheGpu, RefusesWhatItCannotHold) {
  EXPECT_THROW(gpu_->make_kv_cache({1, 1, 4, 4, DType::kF16, 1}), Error);
  EXPECT_THROW(gpu_->make_kv_cache({1, 1, 256, 256, DType::kF16, 1}), Error);
  EXPECT_THROW(gpu_->make_kv_cache({1, 1, 4096, 4, DType::kBF16, 1}), Error);
  const std::vector<std::byte> bytes(4096);
  EXPECT_THROW(gpu_->pack({{{bytes.data(), DType::kI32, 1, 64, {}}}, 16}), Error);
  EXPECT_THROW(gpu_->pack({{{bytes.data(), DType::kQ4_1, 1, 64, {}}}, 33}), Error);
}

TEST_F(OnTheGpu, ReordersAndReadsStridedRows) {
  WaitingBackend gpu(std::move(gpu_));
  CaseBuilder b(gpu);
  const StoredMatrix stored = random_matrix(b.rng(), DType::kQ4_0, 70, 128);
  WeightPart part = stored.part();  // columns 32 … 95 of every row, last row first
  part.data += row_bytes(DType::kQ4_0, 32);
  std::vector<std::int32_t> all;
  for (std::int32_t i = 0; i < 70; ++i) {
    part.row_order.push_back(69 - i);
    all.push_back(i);
  }
  const auto weight = gpu.pack({{part}, 64});
  const Tensor out = b.zeros(70, 64);
  gpu.run(EmbedRows{out, weight.get(), b.ids(all)});
  for (std::int32_t i = 0; i < 70; ++i) {
    std::vector<float> expected(64);
    dequantise(DType::kQ4_0, part.data + (69 - i) * part.row_stride_bytes, 64, expected.data());
    EXPECT_TRUE(same_bits(values_of(out.slice_rows(i, 1)), expected)) << "row " << i;
  }
}

TEST_F(OnTheGpu, HasFp8ProductsOfWholeBlocks) {
  CaseBuilder b(*gpu_);
  EXPECT_TRUE(gpu_->has_fp8_products(*b.weight({{DType::kF8E4M3, 128}, {DType::kF8E4M3, 256}}, 384)));
  EXPECT_FALSE(gpu_->has_fp8_products(*b.weight(DType::kF8E4M3, 130, 128)));
  EXPECT_FALSE(gpu_->has_fp8_products(*b.weight(DType::kF8E4M3, 128, 200)));
  EXPECT_FALSE(gpu_->has_fp8_products(*b.weight({{DType::kF8E4M3, 128}, {DType::kBF16, 128}}, 128)));
}

// Beside others, or with NaN in one of them; the narrow and the wide kernel, with k in one piece and in several.
TEST_F(OnTheGpu, ARowOfAnFp8ProductIsTheSameInEveryBatch) {
  WaitingBackend gpu(std::move(gpu_));
  for (const auto& [n, k] : {std::pair{384, 256}, {256, 4096}, {10240, 256}}) {
    constexpr int kRows = 300;
    CaseBuilder b(gpu);
    const Weight* weight = b.weight(DType::kF8E4M3, n, k);
    const Tensor x = b.normal(kRows, k), all = b.zeros(kRows, n), alone = b.zeros(1, n);
    x.row<float>(17)[5] = NAN;
    gpu.run(Fp8MatMul{all, x, weight, KSlices::whole(k)});
    for (const int r : {0, 16, 17, 63, 64, 130, 299}) {
      gpu.run(Fp8MatMul{alone, x.slice_rows(r, 1), weight, KSlices::whole(k)});
      if (r == 17)
        EXPECT_TRUE(std::isnan(all.row<float>(r)[0]) && std::isnan(alone.row<float>(0)[n - 1]));
      else
        EXPECT_TRUE(same_bits(values_of(all.slice_rows(r, 1)), values_of(alone))) << n << " x " << k << ", row " << r;
    }
  }
}

TEST_F(OnTheGpu, ARowOfFp8ExpertsIsTheSameInEveryBatch) {
  WaitingBackend gpu(std::move(gpu_));
  constexpr int kRows = 200, kExperts = 8, kHidden = 256, kWidth = 128;
  CaseBuilder b(gpu);
  auto &gate_up = b.keep(std::vector<const Weight*>()), &down = b.keep(std::vector<const Weight*>());
  for (int e = 0; e < kExperts; ++e) {
    gate_up.push_back(b.weight(DType::kF8E4M3, 2 * kWidth, kHidden));
    down.push_back(b.weight(DType::kF8E4M3, kHidden, kWidth));
  }
  const Tensor x = b.normal(kRows, kHidden), weights = b.normal(kRows, 2, 0.5f), out = b.zeros(2 * kRows, kHidden);
  std::vector<std::int32_t> ids;
  for (int r = 0; r < kRows; ++r) ids.insert(ids.end(), {r % 3, 3 + r % 5});
  gpu.run(Fp8Experts{out, x, b.ids(ids, {kRows, 2}), weights, gate_up, down, 0});
  const Tensor alone = b.zeros(2, kHidden);
  for (const int r : {0, 1, 99, 199}) {
    gpu.run(Fp8Experts{alone, x.slice_rows(r, 1), b.ids({ids[2 * r], ids[2 * r + 1]}, {1, 2}), weights.slice_rows(r, 1),
                       gate_up, down, 0});
    EXPECT_TRUE(same_bits(values_of(out.slice_rows(2 * r, 2)), values_of(alone))) << "row " << r;
  }
}

// Long enough for several parts, alone (parts apart) and beside many rows (parts in turn; over MFA and MLA pages in
// several launches): the same bits, and near the reference.
TEST_F(OnTheGpu, PartsOfAttentionAreTheSameApartAndInTurn) {
  constexpr std::int32_t kTokens = 1300, kBlocks = 21;
  struct Case {
    DType dtype;
    std::int32_t dim, rows;
    Tolerance tolerance = {};
    std::int32_t v_dim = dim;
    bool v_in_k = false;
  };
  for (const Case& c : {Case{DType::kBF16, 64, 300},
                        {DType::kF8E4M3, 64, 300},
                        {DType::kBF16, 256, 1100},
                        {DType::kF8E4M3, 256, 1100, {5e-2, 7e-3}},
                        {DType::kBF16, 576, 1100, {}, 512, true}}) {
    const auto run = [&](Backend& backend, std::int32_t rows) {
      CaseBuilder b(backend);
      KvCache& cache = b.cache({1, 1, c.dim, c.v_dim, c.dtype, kBlocks, c.v_in_k});
      std::vector<std::int32_t> slots(kTokens), table(kBlocks), positions(static_cast<std::size_t>(rows), kTokens - 1);
      std::iota(slots.begin(), slots.end(), 0);
      std::iota(table.begin(), table.end(), 0);
      const Tensor k = b.normal(kTokens, c.dim), v = c.v_in_k ? Tensor() : b.normal(kTokens, c.v_dim);
      const Tensor q = b.normal(1, 4 * c.dim);
      const Tensor queries = b.zeros(rows, 4 * c.dim), out = b.zeros(rows, 4 * c.v_dim);
      for (std::int32_t r = 0; r < rows; ++r)
        std::memcpy(queries.row<float>(r), q.data, 4 * static_cast<std::size_t>(c.dim) * sizeof(float));
      backend.run(AppendKv{k, v, b.ids(slots), &cache, 0});
      backend.run(PagedAttention{out, queries, b.ids(table, {1, kBlocks}),
                                 b.ids(std::vector<std::int32_t>(static_cast<std::size_t>(rows))), b.ids(positions),
                                 &cache, 0, 4, 0.1f, static_cast<std::int64_t>(rows) * kTokens});
      backend.synchronise();
      return values_of(out.slice_rows(rows - 1, 1));
    };
    const std::vector<float> alone = run(*gpu_, 1);
    EXPECT_TRUE(same_bits(run(*gpu_, c.rows), alone)) << name(c.dtype) << ", " << c.dim;
    EXPECT_TRUE(close(alone, run(*make_reference_backend(), 1), c.tolerance)) << name(c.dtype) << ", " << c.dim;
  }
}

TEST_F(OnTheGpu, PagesAreThoseOfTheReference) {
  const auto reference = make_reference_backend();
  const KvSpec spec{2, 3, 20, 12, DType::kBF16, 2};
  const auto filled = [&](Backend& backend, std::vector<std::byte>& page) {
    CaseBuilder b(backend);
    KvCache& cache = b.cache(spec);
    for (std::int32_t layer = 0; layer < 2; ++layer)
      backend.run(AppendKv{b.normal(3, 60), b.normal(3, 36), b.ids({64, 70, 127}), &cache, layer});
    backend.synchronise();
    backend.export_page(cache, 1, page);
  };
  std::vector<std::byte> expected(page_bytes(spec)), found(page_bytes(spec)), again(page_bytes(spec));
  filled(*reference, expected);
  filled(*gpu_, found);
  EXPECT_EQ(found, expected);
  const auto cache = gpu_->make_kv_cache(spec);
  gpu_->import_page(*cache, 0, expected);
  gpu_->export_page(*cache, 0, again);
  EXPECT_EQ(again, expected);
  gpu_->zero_block(*cache, 0);
  gpu_->export_page(*cache, 0, again);
  EXPECT_TRUE(
      std::all_of(again.begin() + sizeof(PageHeader), again.end(), [](std::byte b) { return b == std::byte{}; }));
}

TEST_F(OnTheGpu, SamplesAsTheReferenceDoes) {
  CaseBuilder b(*gpu_);
  constexpr std::int64_t kRows = 12, kVocab = 5003;
  const Tensor logits = b.normal(kRows, kVocab, 3, 5);
  logits.row<float>(3)[17] = NAN;
  logits.row<float>(4)[5000] = INFINITY;
  logits.row<float>(5)[4000] = logits.row<float>(5)[4001] = 100;
  std::vector<SamplingParams> params(kRows);
  params[6].temperature = 0.9f;
  params[7].temperature = 0.7f, params[7].top_k = 20, params[7].top_p = 0.8f;
  params[8].temperature = 1.3f, params[8].min_p = 0.05f;
  params[9].repetition_penalty = 1.3f, params[9].logprobs = 3;
  params[10].logit_bias = {{77, 50.0f}};
  const std::vector<std::int32_t> prompt = {1, 2, 3}, answer = {4, 4};
  std::vector<SampleRow> rows;
  for (std::uint64_t i = 0; i < kRows; ++i) rows.push_back({&params[i], prompt, answer, 100 + i});
  const std::vector<std::uint32_t> allowed = {0, 0x10, 0, 0x8001};
  rows[11].allowed = rows[8].allowed = allowed;  // greedy and drawn
  std::vector<SampledToken> found(kRows), expected(kRows);
  gpu_->run(Sample{logits, rows, found});
  gpu_->synchronise();
  make_reference_backend()->run(Sample{logits, rows, expected});
  for (std::size_t i = 0; i < kRows; ++i) {
    EXPECT_EQ(found[i].id, expected[i].id) << "row " << i;
    EXPECT_EQ(found[i].failed, i == 3 || i == 4) << "row " << i;
    EXPECT_EQ(found[i].top_logprobs.size(), expected[i].top_logprobs.size());
  }
  for (const std::size_t i : {8, 11}) EXPECT_TRUE(found[i].id == 36 || found[i].id == 96 || found[i].id == 111);
}

}  // namespace
}  // namespace tandem
