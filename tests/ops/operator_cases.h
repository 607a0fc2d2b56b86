// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// One table of cases per operator, run on every backend against the reference, and by kernel benchmarks.
//
// A case builds its operators from a seed; outputs are the tensors to compare. Tolerances stand in the table: f32 sums
// in another order differ by a few units in the last place of the largest term.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <string>

#include "base/format.h"
#include "ops/f8_rows.h"
#include "tests/ops/case_builder.h"

namespace tandem {

struct Tolerance {
  double largest = 1e-4;     // of any element, relative to the root mean square of the expected values
  double normalised = 1e-5;  // ‖found - expected‖ / ‖expected‖
};
inline constexpr Tolerance kExact{0, 0};

struct BuiltCase {
  std::vector<Operator> operators;  // to be run in order
  std::vector<Tensor> outputs;
};

struct OperatorCase {
  std::string name;
  Tolerance tolerance;
  std::function<BuiltCase(CaseBuilder&)> build;
  bool fp8 = false;           // FP8 arithmetic or an FP8 cache, which the CPU has not
  bool int8 = false;          // int8 arithmetic, which only the CPU has
  bool long_context = false;  // too much for a quick test of every CPU variant: a GPU's
};

inline constexpr DType kWeightTypes[] = {DType::kF32,  DType::kBF16, DType::kF16,  DType::kF8E4M3, DType::kQ8_0,
                                         DType::kQ4_0, DType::kQ4_1, DType::kQ4_K, DType::kQ5_K,   DType::kQ6_K};

// Whose integers are multiplied by rounded rows.
inline constexpr DType kQuantisedTypes[] = {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
                                            DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

// At least one block of the type.
inline int whole_blocks(DType dtype, int k) {
  const int block = static_cast<int>(traits(dtype).block_elements);
  return (k + block - 1) / block * block;
}
// Where slices of a width may be cut.
inline std::int64_t granule_of(DType dtype) {
  if (dtype == DType::kF8E4M3) return kScaleBlock;
  return std::max<std::int64_t>(32, static_cast<std::int64_t>(traits(dtype).block_elements));
}
inline KSlices eight_slices(DType dtype, std::int64_t k) {
  return width_slices(k, granule_of(dtype), 0, 8);
}

inline void add_row_cases(std::vector<OperatorCase>& table) {
  for (const auto& [rows, columns] : {std::pair{0, 64}, {1, 576}, {5, 20}, {67, 96}, {3, 1}, {90, 7168}}) {
    table.push_back({format("rms_norm {}x{}", rows, columns), {}, [=](CaseBuilder& b) {
                       const Tensor out = b.zeros(rows, columns), x = b.normal(rows, columns, 3, 5);
                       return BuiltCase{{RmsNorm{out, x, b.normal_vector(columns, 1, 0.2f), 1e-5f}}, {out}};
                     }});
    table.push_back({format("add_rms_norm {}x{}", rows, columns), {}, [=](CaseBuilder& b) {
                       const Tensor out = b.zeros(rows, columns), residual = b.normal(rows, columns),
                                    x = b.normal(rows, columns);
                       const Tensor weight = b.normal_vector(columns, 1, 0.2f);
                       return BuiltCase{{AddRmsNorm{out, residual, x, weight, 1e-5f}}, {out, residual}};
                     }});
    table.push_back({format("swiglu {}x{}", rows, columns), {}, [=](CaseBuilder& b) {
                       const Tensor out = b.zeros(rows, columns), gate_up = b.normal(rows, 2 * columns, 4);
                       return BuiltCase{{SwiGlu{out, gate_up}}, {out}};
                     }});
    table.push_back({format("swiglu {}x{}, limited", rows, columns), {}, [=](CaseBuilder& b) {
                       const Tensor out = b.zeros(rows, columns), gate_up = b.normal(rows, 2 * columns, 4);
                       return BuiltCase{{SwiGlu{out, gate_up, 1.5f}}, {out}};
                     }});
  }
  table.push_back({"rms_norm in place", {}, [](CaseBuilder& b) {
                     const Tensor x = b.normal(4, 100);
                     return BuiltCase{{RmsNorm{x, x, b.normal_vector(100, 1, 0.2f), 1e-3f}}, {x}};
                   }});
  for (const auto& [rows, heads, dim] : {std::array{1, 16, 128}, {5, 3, 20}, {33, 2, 64}, {0, 4, 32}}) {
    table.push_back({format("rms_norm {} rows, {} heads of {}", rows, heads, dim), {}, [=](CaseBuilder& b) {
                       const Tensor x = b.normal(rows, heads * dim, 3, 7);
                       return BuiltCase{{RmsNorm{x, x, b.normal_vector(dim, 1, 0.2f), 1e-6f}}, {x}};
                     }});
  }
  for (const auto& [rows, columns] : {std::pair{0, 128}, {1, 384}, {5, 200}, {67, 96}, {3, 1}}) {
    table.push_back({format("quantise_rows and back {}x{}", rows, columns), kExact, [=](CaseBuilder& b) {
                       const Tensor x = b.normal(rows, columns, 3, 5), out = b.zeros(rows, columns);
                       const Tensor codes = b.codes(rows, columns), scales = b.zeros(rows, f8_groups(columns));
                       return BuiltCase{{QuantiseRows{codes, scales, x}, WidenRows{out, codes, scales}}, {scales, out}};
                     }});
  }
  for (const auto& [rows, heads, dim, pairs] :
       {std::array{1, 9, 64, 32}, {3, 2, 20, 10}, {40, 8, 64, 16}, {0, 1, 8, 4}}) {
    table.push_back(
        {format("rope {} rows, {} heads of {}, {} pairs", rows, heads, dim, pairs), {}, [=](CaseBuilder& b) {
           const Tensor x = b.normal(rows, heads * dim), positions = b.random_ids(rows, 8192);
           Tensor inv_freq = b.normal_vector(pairs, 0, 0);
           for (int m = 0; m < pairs; ++m)
             inv_freq.f32()[m] = std::pow(10000.0f, -static_cast<float>(m) / static_cast<float>(pairs));
           return BuiltCase{{Rope{x, positions, inv_freq, dim}}, {x}};
         }});
  }
  for (const bool interleaved : {false, true}) {
    table.push_back({format("rope within heads, scaled, interleaved {}", interleaved), {}, [=](CaseBuilder& b) {
                       const Tensor x = b.normal(5, 3 * 22, 1, 2), positions = b.random_ids(5, 8192);
                       const Tensor inv_freq = b.normal_vector(5, 0.1f, 0.05f);
                       return BuiltCase{{Rope{x, positions, inv_freq, 22, 12, interleaved, 1.3f}}, {x}};
                     }});
  }
  for (const auto& [rows, heads, dim] : {std::array{0, 2, 8}, {1, 5, 33}, {40, 12, 64}}) {
    table.push_back({format("gate_heads {} rows, {} heads of {}", rows, heads, dim), {}, [=](CaseBuilder& b) {
                       const Tensor x = b.normal(rows, heads * dim);
                       return BuiltCase{{GateHeads{x, b.normal(rows, heads, 3, 1)}}, {x}};
                     }});
  }
}

inline void add_product_cases(std::vector<OperatorCase>& table) {
  struct Size {
    int rows, n, k;
  };
  for (const DType dtype : kWeightTypes) {
    std::vector<Size> sizes = {{0, 64, 64},    {1, 576, 576}, {2, 33, 96}, {7, 960, 576},
                               {67, 50, 1536}, {130, 32, 64}, {9, 1, 32}};
    if (dtype == DType::kF8E4M3)  // blocks cut short, and whole ones
      sizes.insert(sizes.end(), {{3, 130, 200}, {20, 300, 129}, {5, 256, 384}, {70, 128, 1536}});
    if (!is_quantised(dtype)) sizes.insert(sizes.end(), {{1, 40, 1}, {3, 7, 31}, {20, 65, 577}});
    for (Size s : sizes) {
      s.k = whole_blocks(dtype, s.k);
      table.push_back({format("matmul {} {}x{}x{}", name(dtype), s.rows, s.n, s.k), {}, [=](CaseBuilder& b) {
                         const Tensor out = b.zeros(s.rows, s.n), x = b.normal(s.rows, s.k, 1, 3);
                         return BuiltCase{{MatMul{out, x, b.weight(dtype, s.n, s.k), KSlices::whole(s.k)}}, {out}};
                       }});
    }
    for (const std::int64_t granules : {11, 2}) {  // two: slices without columns
      const std::int64_t width = granules * granule_of(dtype);
      table.push_back({format("matmul {} in eight slices of {}", name(dtype), width), {}, [=](CaseBuilder& b) {
                         const Tensor out = b.zeros(11, 40), x = b.normal(11, width);
                         const Weight* w = b.weight(dtype, 40, width);
                         return BuiltCase{{MatMul{out, x, w, eight_slices(dtype, width)}}, {out}};
                       }});
    }
    table.push_back({format("embed_rows {}", name(dtype)), kExact, [=](CaseBuilder& b) {
                       const int hidden = whole_blocks(dtype, 96);
                       const Tensor ids = b.random_ids(23, 77), out = b.zeros(23, hidden);
                       return BuiltCase{{EmbedRows{out, b.weight(dtype, 77, hidden), ids}}, {out}};
                     }});
  }
  for (const DType dtype : {DType::kQ4_K, DType::kBF16})
    for (const auto& [n, k] :
         {std::array{0, 256}, {40, 0}}) {  // the share of a worker for whom no part of a width is left
      table.push_back({format("matmul {} 7x{}x{}", name(dtype), n, k), {}, [=](CaseBuilder& b) {
                         const Tensor out = b.zeros(7, n), x = b.normal(7, k);
                         return BuiltCase{{MatMul{out, x, b.weight(dtype, n, k), KSlices::whole(k)}}, {out}};
                       }});
    }
  table.push_back({"matmul bf16 with uneven slices", {}, [](CaseBuilder& b) {
                     const Tensor out = b.zeros(6, 64), x = b.normal(6, 100);
                     return BuiltCase{{MatMul{out, x, b.weight(DType::kBF16, 64, 100), {4, {0, 1, 1, 50, 100}}}},
                                      {out}};
                   }});
  table.push_back(
      {"matmul of parts of different types", {}, [](CaseBuilder& b) {
         const Tensor out = b.zeros(5, 64 + 33 + 20 + 96 + 40), x = b.normal(5, 64);
         const Weight* w = b.weight(
             {{DType::kQ4_1, 64}, {DType::kF32, 33}, {DType::kQ8_0, 20}, {DType::kF16, 96}, {DType::kBF16, 40}}, 64);
         return BuiltCase{{MatMul{out, x, w, KSlices::whole(64)}}, {out}};
       }});
  table.push_back({"matmul of parts of blocks of 32 and 256", {}, [](CaseBuilder& b) {
                     const Tensor out = b.zeros(5, 64 + 33 + 20), x = b.normal(5, 256);
                     const Weight* w = b.weight({{DType::kQ4_K, 64}, {DType::kQ6_K, 33}, {DType::kQ8_0, 20}}, 256);
                     return BuiltCase{{MatMul{out, x, w, eight_slices(DType::kQ4_K, 256)}}, {out}};
                   }});
}

// For a GPU, where weights in bf16 lie in tiles: every number of rows that has a kernel of its own, k in one part and
// in several, parts that begin in the middle of a tile.
inline void add_tiled_product_cases(std::vector<OperatorCase>& table) {
  struct Size {
    int rows, n, k;
  };
  for (const Size s : {Size{1, 256, 64},
                       {7, 300, 100},
                       {8, 256, 40},
                       {9, 257, 2048},
                       {17, 384, 2200},
                       {33, 260, 4160},
                       {64, 640, 576},
                       {65, 256, 96},
                       {150, 300, 2050}})
    table.push_back({format("matmul bf16 in tiles {}x{}x{}", s.rows, s.n, s.k), {}, [=](CaseBuilder& b) {
                       const Tensor out = b.zeros(s.rows, s.n), x = b.normal(s.rows, s.k, 1, 3);
                       const Weight* w = b.weight(DType::kBF16, s.n, s.k);
                       return BuiltCase{{MatMul{out, x, w, KSlices::whole(s.k)}}, {out}};
                     }});
  for (const int width : {32, 100, 768, 1000, 17000})
    table.push_back({format("matmul bf16 in tiles, in eight slices of {}", width), {}, [=](CaseBuilder& b) {
                       const Tensor out = b.zeros(11, 260), x = b.normal(11, width);
                       const Weight* w = b.weight(DType::kBF16, 260, width);
                       return BuiltCase{{MatMul{out, x, w, eight_slices(DType::kBF16, width)}}, {out}};
                     }});
  table.push_back({"matmul bf16 in tiles, of stacked parts", {}, [](CaseBuilder& b) {
                     const Tensor out = b.zeros(5, 200 + 33 + 60), x = b.normal(5, 96);
                     const Weight* w = b.weight({{DType::kBF16, 200}, {DType::kBF16, 33}, {DType::kBF16, 60}}, 96);
                     return BuiltCase{{MatMul{out, x, w, KSlices::whole(96)}}, {out}};
                   }});
  table.push_back({"embed_rows bf16 in tiles", kExact, [](CaseBuilder& b) {
                     const Tensor ids = b.random_ids(23, 300), out = b.zeros(23, 200);
                     return BuiltCase{{EmbedRows{out, b.weight(DType::kBF16, 300, 200), ids}}, {out}};
                   }});
}

// Heads of k + rest elements become heads of n + rest.
inline void add_head_cases(std::vector<OperatorCase>& table) {
  for (const DType dtype : {DType::kBF16, DType::kF32, DType::kQ8_0}) {
    for (const auto& [rows, heads, k, n, rest] :
         {std::array{0, 2, 32, 8, 4}, {1, 8, 32, 64, 16}, {3, 7, 64, 24, 0}, {70, 3, 96, 33, 5}, {9, 1, 32, 512, 64}}) {
      table.push_back({format("project_heads {}, {} rows, {} heads of {} + {}", name(dtype), rows, heads, k, rest),
                       {},
                       [=](CaseBuilder& b) {
                         auto& weights = b.keep(std::vector<const Weight*>());
                         for (int h = 0; h < heads; ++h) weights.push_back(b.weight(dtype, n, k));
                         const Tensor out = b.zeros(rows, heads * (n + rest)),
                                      x = b.normal(rows, heads * (k + rest), 1, 3);
                         return BuiltCase{{ProjectHeads{out, x, weights}}, {out}};
                       }});
    }
  }
}

// counts[e] rows go to expert e.
inline OperatorCase grouped_case(std::string name, DType dtype, std::vector<int> counts, int n = 70, int width = 128) {
  return {std::move(name), {}, [=](CaseBuilder& b) {
            const int k = whole_blocks(dtype, width);
            auto& experts = b.keep(std::vector<const Weight*>());
            std::vector<std::int32_t> offsets{0};
            for (const int count : counts) {
              experts.push_back(b.weight(dtype, n, k));
              offsets.push_back(offsets.back() + count);
            }
            const Tensor out = b.zeros(offsets.back(), n), x = b.normal(offsets.back(), k);
            return BuiltCase{{GroupedMatMul{out, x, experts, b.ids(offsets), eight_slices(dtype, k)}}, {out}};
          }};
}

inline BuiltCase grouping(CaseBuilder& b, int rows, int k, int experts, int begin, int held) {
  const Tensor flat = b.random_ids(rows * k, experts), weights = b.normal(rows, k);
  const Tensor ids(flat.data, DType::kI32, {rows, k});
  std::int64_t count = 0;
  for (int s = 0; s < rows * k; ++s)
    count += flat.as<std::int32_t>()[s] >= begin && flat.as<std::int32_t>()[s] < begin + held;
  const auto indices = [&](std::int64_t n) { return b.ids(std::vector<std::int32_t>(static_cast<std::size_t>(n))); };
  const GroupByExpert op{.rows = indices(count),
                         .outputs = indices(count),
                         .weights = b.zeros(count, 1),
                         .offsets = indices(held + 1),
                         .expert_ids = ids,
                         .expert_weights = weights,
                         .begin = begin};
  return {{op}, {op.rows, op.outputs, op.weights, op.offsets}};
}

inline void add_grouping_cases(std::vector<OperatorCase>& table) {
  for (const auto& [rows, k, experts, begin, held] :
       {std::array{0, 3, 8, 0, 8}, {1, 3, 8, 0, 8}, {70, 8, 48, 0, 48}, {70, 2, 8, 3, 4}, {600, 8, 300, 40, 200}}) {
    table.push_back({format("group_by_expert, {} rows, {} of {}, held {} from {}", rows, k, experts, held, begin),
                     kExact, [=](CaseBuilder& b) { return grouping(b, rows, k, experts, begin, held); }});
  }
}

inline void add_clamping_cases(std::vector<OperatorCase>& table) {
  for (const auto& [rows, k] : {std::array{0, 3}, {1, 1}, {3, 8}, {300, 3}}) {
    table.push_back({format("clamp_ids, {} rows of {}", rows, k), kExact, [=](CaseBuilder& b) {
                       const Tensor flat = b.random_ids(rows * k, 60), ids(flat.data, DType::kI32, {rows, k});
                       for (std::int64_t s = 0; s < rows * k; s += 7)
                         flat.as<std::int32_t>()[s] = s % 2 == 0 ? -1 - static_cast<std::int32_t>(s) : INT32_MAX;
                       const Tensor out =
                           b.ids(std::vector<std::int32_t>(static_cast<std::size_t>(rows * k), 99), {rows, k});
                       return BuiltCase{{ClampIds{out, ids, 48}}, {out}};
                     }});
  }
}

inline void add_router_cases(std::vector<OperatorCase>& table) {
  for (const bool renormalise : {false, true}) {
    table.push_back({format("select_experts, renormalise {}", renormalise), {}, [=](CaseBuilder& b) {
                       const Tensor ids = b.ids(std::vector<std::int32_t>(30), {10, 3}), weights = b.zeros(10, 3);
                       return BuiltCase{{SelectExperts{ids, weights, b.normal(10, 48, 2), renormalise}},
                                        {ids, weights}};
                     }});
  }
  table.push_back({"select_experts, ties", {}, [](CaseBuilder& b) {
                     const Tensor ids = b.ids(std::vector<std::int32_t>(16), {4, 4}), weights = b.zeros(4, 4);
                     const Tensor logits = b.zeros(4, 9);  // row 0 all equal
                     for (const int e : {2, 5, 7}) logits.row<float>(1)[e] = 1;
                     for (int e = 0; e < 9; ++e) logits.row<float>(2)[e] = static_cast<float>(e / 2);
                     for (int e = 0; e < 9; ++e) logits.row<float>(3)[e] = -INFINITY;
                     logits.row<float>(3)[8] = 1;
                     return BuiltCase{{SelectExperts{ids, weights, logits, false}}, {ids, weights}};
                   }});
  struct Routing {
    const char* what;
    RouterScore score;
    bool bias;
    std::int32_t experts, k, groups, groups_kept;
    bool renormalise;
  };
  constexpr RouterScore kSoftmax = RouterScore::kSoftmax, kSigmoid = RouterScore::kSigmoid;
  for (const Routing& r : {Routing{"sigmoid", kSigmoid, false, 16, 3, 1, 1, false},
                           {"sigmoid with bias", kSigmoid, true, 9, 2, 1, 1, true},
                           {"two of four groups", kSigmoid, true, 16, 4, 4, 2, true},
                           {"groups of one", kSigmoid, true, 5, 2, 5, 3, true},
                           {"groups, all kept", kSigmoid, true, 12, 12, 3, 3, false},
                           {"one group of eight", kSigmoid, true, 256, 8, 8, 1, true},
                           {"softmax with bias", kSoftmax, true, 16, 3, 1, 1, false},
                           {"softmax in groups", kSoftmax, false, 16, 3, 4, 2, true}}) {
    table.push_back({format("select_experts, {}", r.what), {}, [r](CaseBuilder& b) {
                       const Tensor ids = b.ids(std::vector<std::int32_t>(20 * r.k), {20, r.k});
                       const Tensor weights = b.zeros(20, r.k), logits = b.normal(20, r.experts, 2);
                       // Saturated scores are equal; so small ones that they are all zero leave the choice to the bias.
                       for (int e = 0; e < r.experts; ++e) logits.row<float>(0)[e] = 200 + static_cast<float>(e);
                       for (int e = 0; e < r.experts; ++e) logits.row<float>(1)[e] = -200 - static_cast<float>(e);
                       const Tensor bias = r.bias ? b.normal_vector(r.experts, 0, 0.3f) : Tensor();
                       return BuiltCase{{SelectExperts{ids, weights, logits, r.renormalise, r.score, bias, r.groups,
                                                       r.groups_kept, 2.5f}},
                                        {ids, weights}};
                     }});
  }
  table.push_back({"select_experts, all of them", {}, [](CaseBuilder& b) {
                     const Tensor ids = b.ids(std::vector<std::int32_t>(16), {2, 8}), weights = b.zeros(2, 8);
                     return BuiltCase{{SelectExperts{ids, weights, b.normal(2, 8), true}}, {ids, weights}};
                   }});
}

inline void add_expert_cases(std::vector<OperatorCase>& table) {
  for (const DType dtype : {DType::kBF16, DType::kF8E4M3, DType::kQ4_1, DType::kQ6_K}) {
    table.push_back(
        grouped_case(format("grouped_matmul {}, an expert nobody chose", name(dtype)), dtype, {3, 0, 1, 20}));
    table.push_back(grouped_case(format("grouped_matmul {}, one chosen by all", name(dtype)), dtype, {0, 40, 0}));
    table.push_back(grouped_case(format("grouped_matmul {}, no rows", name(dtype)), dtype, {0, 0}));
  }
  for (const std::vector<int>& counts : {std::vector{3, 0, 1, 5}, {1, 20, 7, 0, 16, 17}, {70, 0, 3, 130, 1}})
    table.push_back(grouped_case(format("grouped_matmul bf16 in tiles, {} rows to the first", counts.front()),
                                 DType::kBF16, counts, 260, 768));
  table.push_back(
      grouped_case("grouped_matmul bf16 in tiles, 300 experts", DType::kBF16, std::vector<int>(300, 1), 256, 64));
  table.push_back({"gather_rows", kExact, [](CaseBuilder& b) {
                     const Tensor out = b.zeros(50, 37), x = b.normal(20, 37, 1, 3);
                     return BuiltCase{{GatherRows{out, x, b.random_ids(50, 20)}}, {out}};
                   }});
  table.push_back({"scatter_scaled_rows", kExact, [](CaseBuilder& b) {
                     const Tensor out = b.normal(6, 37), x = b.normal(4, 37);
                     return BuiltCase{{ScatterScaledRows{out, x, b.ids({5, 0, 3, 1}), b.normal(4, 1)}}, {out}};
                   }});
  // Slices each partial covers; none for slots alone. Sums are in a fixed order, so even the reference has the same
  // bits.
  for (const auto& counts : {std::vector<std::int32_t>{}, {8}, {4, 4}, {4, 2, 1, 1}, {1, 1, 1, 1, 1, 1, 1, 1}}) {
    for (const int top_k : {0, 1, 3}) {
      if (counts.empty() && top_k == 0) continue;
      table.push_back(
          {format("combine_experts, {} slots, {} partials", top_k, counts.size()), kExact, [=](CaseBuilder& b) {
             const Tensor out = b.zeros(9, 40);
             const Tensor slots = top_k == 0 ? Tensor() : b.normal(9 * top_k, 40);
             auto& partials = b.keep(std::vector<Tensor>());
             for (std::size_t i = 0; i < counts.size(); ++i) partials.push_back(b.normal(9, 40));
             auto& slice_counts = b.keep(counts);
             return BuiltCase{{CombineExperts{out, slots, top_k, partials, slice_counts}}, {out}};
           }});
    }
  }
}

// A cache filled for several sequences through AppendKv, and rows that attend to it.
struct AttentionCase {
  KvSpec spec;
  std::int32_t heads;
  std::vector<std::int32_t> contexts;  // tokens of each sequence
  std::int32_t rows_each;              // the last rows of each sequence ask
  std::int32_t window = 0;
};

inline BuiltCase build_attention(CaseBuilder& b, const AttentionCase& c) {
  KvSpec spec = c.spec;
  std::int32_t blocks_max = 1, total = 0;
  for (const std::int32_t context : c.contexts) {
    blocks_max = std::max(blocks_max, (context + kBlockTokens - 1) / kBlockTokens);
    total += context;
  }
  const auto sequences = static_cast<std::int32_t>(c.contexts.size());
  spec.blocks = sequences * blocks_max;
  KvCache& cache = b.cache(spec);
  // Blocks of the sequences interleave, in descending order.
  std::vector<std::int32_t> table(static_cast<std::size_t>(spec.blocks));
  for (std::size_t i = 0; i < table.size(); ++i)
    table[i] = static_cast<std::int32_t>(spec.blocks) - 1 - static_cast<std::int32_t>(i % blocks_max) * sequences -
               static_cast<std::int32_t>(i / blocks_max);
  std::vector<std::int32_t> slots, row_sequences, positions;
  std::int64_t context_tokens = 0;
  for (std::int32_t s = 0; s < sequences; ++s) {
    for (std::int32_t t = 0; t < c.contexts[s]; ++t)
      slots.push_back(table[s * blocks_max + t / kBlockTokens] * kBlockTokens + t % kBlockTokens);
    for (std::int32_t t = std::max(0, c.contexts[s] - c.rows_each); t < c.contexts[s]; ++t) {
      row_sequences.push_back(s);
      positions.push_back(t);
      context_tokens += c.window > 0 ? std::min(t + 1, c.window) : t + 1;
    }
  }
  const auto rows = static_cast<std::int64_t>(positions.size());
  const std::int32_t layer = spec.layers - 1;
  const Tensor k = b.normal(total, spec.kv_heads * spec.k_dim);
  const Tensor v = spec.v_in_k ? Tensor() : b.normal(total, spec.kv_heads * spec.v_dim);
  const Tensor q = b.normal(rows, c.heads * spec.k_dim), out = b.zeros(rows, c.heads * spec.v_dim);
  const float scale = 1.0f / std::sqrt(static_cast<float>(spec.k_dim));
  return {{AppendKv{k, v, b.ids(slots), &cache, layer},
           PagedAttention{out, q, b.ids(table, {sequences, blocks_max}), b.ids(row_sequences), b.ids(positions), &cache,
                          layer, c.heads, scale, context_tokens, c.window}},
          {out}};
}

inline void add_attention_cases(std::vector<OperatorCase>& table) {
  const auto add = [&](const char* what, std::int32_t kv_heads, std::int32_t heads, std::int32_t k_dim,
                       std::int32_t v_dim, std::vector<std::int32_t> contexts, std::int32_t rows_each,
                       std::int32_t window = 0, bool v_in_k = false) {
    for (const DType dtype : {DType::kBF16, DType::kF32, DType::kF8E4M3}) {
      const AttentionCase c{{2, kv_heads, k_dim, v_dim, dtype, 0, v_in_k}, heads, contexts, rows_each, window};
      // Over heads of 256 in FP8, queries and probabilities are two terms of FP8.
      const bool is_fp8 = dtype == DType::kF8E4M3, in_terms = is_fp8 && k_dim == 256 && v_dim == 256;
      table.push_back({format("paged_attention {}, {}", what, name(dtype)),
                       in_terms ? Tolerance{5e-2, 7e-3} : Tolerance{},
                       [c](CaseBuilder& b) { return build_attention(b, c); }, is_fp8});
    }
  };
  add("one token", 3, 9, 64, 64, {1}, 1);
  add("context ends at a page border", 3, 9, 64, 64, {64, 128, 65, 63}, 1);
  add("decode of several", 3, 9, 64, 64, {1, 200, 17, 130, 70}, 1);
  add("prefill", 3, 9, 64, 64, {150}, 150);
  add("chunks of two", 2, 4, 32, 32, {100, 40}, 33);
  add("mfa, 64 heads on one", 1, 64, 256, 256, {90, 66}, 2);
  add("mfa, two key heads of 5", 2, 10, 256, 256, {1, 64, 129}, 3);
  add("mfa, 96 heads on one", 1, 96, 256, 256, {70}, 2);
  add("mfa, prefill", 1, 3, 256, 256, {150}, 150);
  add("mfa, several parts", 1, 4, 256, 256, {2500, 1024, 1025}, 2);
  add("mfa, a window over two parts", 1, 4, 256, 256, {1100, 30, 64}, 2, 100);
  add("tiles, decode in several parts", 2, 8, 128, 128, {2500, 1024, 1025, 1}, 1);
  add("tiles, two tokens of each", 2, 14, 64, 64, {600, 64, 65, 513}, 2);
  add("tiles, prefill", 2, 8, 128, 128, {150, 130}, 130);
  add("tiles, prefill in several parts", 1, 3, 64, 64, {1100}, 140);
  add("tiles, more rows than are listed at once", 1, 1, 64, 64, {600, 600}, 600);
  add("tiles, 40 heads on one", 1, 40, 128, 128, {70, 513}, 1);
  add("tiles, 40 heads on one, prefill", 1, 40, 64, 64, {70, 50}, 50);
  add("tiles, a window over two parts", 1, 4, 128, 128, {1100, 30, 64}, 2, 100);
  add("tiles, a window, prefill", 2, 4, 64, 64, {700}, 650, 100);
  add("odd sizes", 2, 6, 20, 12, {77}, 5);
  add("wider values than keys", 1, 5, 16, 48, {70}, 3);
  add("window of one", 2, 4, 16, 16, {1, 64, 130}, 70, 1);
  add("window of a block", 2, 6, 32, 32, {64, 65, 200, 128}, 90, 64);
  add("window of 24, prefill", 2, 12, 32, 32, {150, 23}, 150, 24);
  add("window longer than the context", 1, 3, 20, 12, {90}, 90, 1000);
  add("mla", 1, 8, 80, 64, {1, 200, 64, 128}, 1, 0, true);
  add("mla, prefill", 1, 5, 80, 64, {150}, 150, 0, true);
  add("mla, full size", 1, 128, 576, 512, {70}, 1, 0, true);
  add("mla, odd sizes and a window", 2, 6, 22, 13, {140, 3}, 80, 70, true);
  add("mla, values as long as keys", 1, 40, 16, 16, {66}, 3, 0, true);
  // What DeepSeek's cache holds, whose pages on a GPU are its own.
  const auto add_mla = [&](std::int32_t heads, std::vector<std::int32_t> contexts, std::int32_t rows_each,
                           std::int32_t window = 0) {
    std::string sizes;
    for (const std::int32_t context : contexts) sizes += format("{} ", context);
    const AttentionCase c{{2, 1, 576, 512, DType::kBF16, 0, true}, heads, std::move(contexts), rows_each, window};
    OperatorCase added{
        format("paged_attention mla, {} heads, {} rows of each of {}window {}", heads, rows_each, sizes, window),
        {},
        [c](CaseBuilder& b) { return build_attention(b, c); }};
    added.long_context = std::ranges::max(c.contexts) > 1000;
    table.push_back(std::move(added));
  };
  add_mla(16, {1, 63, 64, 65, 128, 129}, 2);
  add_mla(128, {1, 63, 64, 65, 128}, 1);
  add_mla(33, {190, 3}, 5);
  add_mla(2, {150}, 150);
  add_mla(16, {4096, 1, 1025}, 2);
  add_mla(128, {4096}, 1);
  add_mla(4, {2500, 1024, 1025}, 3);
  add_mla(4, {1100, 30, 64}, 2, 100);
  add_mla(1, {200}, 200, 24);
}

inline void add_vision_cases(std::vector<OperatorCase>& table) {
  for (const auto& [rows, columns] : {std::pair{0, 64}, {1, 48}, {5, 21}, {67, 96}, {40, 1792}}) {
    table.push_back({format("add_layer_norm {}x{}", rows, columns), {}, [=](CaseBuilder& b) {
                       const Tensor residual = b.normal(rows, columns), x = b.normal(rows, columns, 3, 5);
                       return BuiltCase{{AddLayerNorm{residual, x, b.normal_vector(columns, 1, 0.2f),
                                                      b.normal_vector(columns, 0, 0.2f), 1e-6f}},
                                        {residual}};
                     }});
    table.push_back({format("quick_gelu {}x{}", rows, columns), {}, [=](CaseBuilder& b) {
                       const Tensor x = b.normal(rows, columns, 4);
                       return BuiltCase{{QuickGelu{x, x}}, {x}};
                     }});
    for (const int added : {1, rows}) {
      table.push_back({format("add_rows {}x{}, {} of them", rows, columns, added), kExact, [=](CaseBuilder& b) {
                         const Tensor sum = b.normal(rows, columns);
                         return BuiltCase{{AddRows{sum, b.normal(added, columns, 1, 2)}}, {sum}};
                       }});
    }
  }
  struct Window {
    int width, height, channels, kernel, stride, padding;
  };
  for (const Window w : {Window{28, 42, 3, 14, 14, 0}, {6, 4, 5, 2, 2, 0}, {7, 5, 3, 3, 2, 1}, {1, 1, 2, 3, 2, 1}}) {
    table.push_back({format("im2col {}x{}x{}, {} by {}", w.width, w.height, w.channels, w.kernel, w.stride), kExact,
                     [=](CaseBuilder& b) {
                       Im2Col op{{}, b.normal(w.width * w.height, w.channels), w.width, w.kernel, w.stride, w.padding};
                       op.out = b.zeros(op.steps(w.height) * op.steps(w.width), w.channels * w.kernel * w.kernel);
                       return BuiltCase{{op}, {op.out}};
                     }});
  }
  for (const int first : {1, 4}) {  // a stretch of wider rows
    table.push_back({format("add_rows and quick_gelu from column {} on", first), {}, [=](CaseBuilder& b) {
                       const Tensor wide = b.normal(7, 300), x = b.normal(7, 300, 2), out = b.zeros(7, 300);
                       const Tensor sum = wide.slice_columns(first, 256);
                       return BuiltCase{{AddRows{sum, x.slice_columns(8, 256)},
                                         AddRows{sum, x.slice_rows(3, 1).slice_columns(3, 256)},
                                         QuickGelu{out.slice_columns(first, 256), sum}},
                                        {wide, out}};
                     }});
  }
}

inline void add_full_attention_cases(std::vector<OperatorCase>& table) {
  struct Attended {
    int rows, heads, dim;
    float q = 1, k = 1;  // deviations
    bool long_context = false;
  };
  for (const Attended& a : {Attended{0, 2, 16},
                            {1, 3, 8},
                            {5, 4, 12},
                            {64, 2, 20},
                            {65, 1, 112},
                            {150, 3, 33},
                            {129, 2, 64},
                            {200, 2, 128},
                            {130, 5, 1},
                            {190, 2, 100, 6},
                            {70, 2, 20, 1e6f, 1e-6f},
                            {70, 1, 64, 1e-12f, 3e12f},
                            {700, 2, 112, 3, 1, true},
                            {1300, 1, 112, 1, 1, true}}) {
    OperatorCase& added = table.emplace_back();
    added.name =
        format("full_attention {} rows, {} heads of {}, deviations {} and {}", a.rows, a.heads, a.dim, a.q, a.k);
    added.long_context = a.long_context;
    added.build = [a](CaseBuilder& b) {
      const int columns = a.heads * a.dim;
      const Tensor q = b.normal(a.rows, columns, a.q), kv = b.normal(a.rows, 2 * columns, a.k);
      const Tensor k = kv.slice_columns(0, columns), v = b.normal(a.rows, columns), out = b.zeros(a.rows, columns);
      for (std::int64_t i = 0; i < v.shape.elements(); ++i) v.f32()[i] += 0.5f;  // sums that do not cancel
      return BuiltCase{{FullAttention{out, q, k, v, a.heads, 1.0f / std::sqrt(static_cast<float>(a.dim))}}, {out}};
    };
  }
}

// Rows go to experts at random, to some of them often; a code that falls on the other side of a rounding border is one
// step of E4M3 off, which decides the tolerance of what was rounded in between.
inline void add_fp8_cases(std::vector<OperatorCase>& table) {
  const auto add = [&](std::string name, Tolerance tolerance, std::function<BuiltCase(CaseBuilder&)> build) {
    table.push_back({std::move(name), tolerance, std::move(build), true});
  };
  for (const auto& [rows, n, k] : {std::array{0, 128, 128},
                                   {1, 384, 256},
                                   {5, 128, 2048},
                                   {64, 256, 512},
                                   {67, 1024, 384},
                                   {130, 512, 1024},
                                   {300, 256, 256}}) {
    add(format("fp8_matmul {}x{}x{}", rows, n, k), {2e-2, 2e-3}, [=](CaseBuilder& b) {
      const Tensor wide = b.normal(rows, k + 4, 1, 3), out = b.zeros(rows, n + 4);
      const Tensor x = wide.slice_columns(4, k), y = out.slice_columns(4, n);  // strided, as parts of a product are
      return BuiltCase{{Fp8MatMul{y, x, b.weight(DType::kF8E4M3, n, k), KSlices::whole(k)}}, {y}};
    });
  }
  for (const auto& [rows, experts, held, top_k] :
       {std::array{1, 8, 8, 3}, {33, 8, 8, 3}, {40, 16, 5, 2}, {300, 4, 4, 2}, {7, 64, 64, 8}, {0, 4, 4, 1}}) {
    add(format("fp8_experts {} rows, {} of {} experts", rows, held, experts), {0.5, 2e-2}, [=](CaseBuilder& b) {
      constexpr int kHidden = 256, kWidth = 384;
      const std::int32_t begin = (experts - held) / 2;
      std::vector<std::int32_t> chosen;
      for (int r = 0; r < rows; ++r)
        for (int j = 0, e = static_cast<int>(b.rng().below(3) == 0 ? 1 : b.rng().below(experts)); j < top_k; ++j)
          chosen.push_back((e + j) % experts);
      const auto count =
          std::count_if(chosen.begin(), chosen.end(), [&](std::int32_t e) { return e >= begin && e < begin + held; });
      auto &gate_up = b.keep(std::vector<const Weight*>()), &down = b.keep(std::vector<const Weight*>());
      for (int e = 0; e < held; ++e) {
        gate_up.push_back(b.weight(DType::kF8E4M3, 2 * kWidth, kHidden));
        down.push_back(b.weight(DType::kF8E4M3, kHidden, kWidth));
      }
      const Tensor out = b.zeros(count, kHidden);
      return BuiltCase{{Fp8Experts{out, b.normal(rows, kHidden, 1, 3), b.ids(chosen, {rows, top_k}),
                                   b.normal(rows, top_k, 0.5f), gate_up, down, begin}},
                       {out}};
    });
  }
}

// Codes are the same everywhere, and so are sums within a block; those over blocks have the tolerance of f32.
inline void add_int8_cases(std::vector<OperatorCase>& table) {
  const auto add = [&](std::string name, std::function<BuiltCase(CaseBuilder&)> build) {
    table.push_back({.name = std::move(name), .tolerance = {}, .build = std::move(build), .int8 = true});
  };
  for (const DType dtype : kQuantisedTypes) {
    for (const auto& [rows, n, columns] : {std::array{0, 64, 64},
                                           {1, 576, 576},
                                           {2, 33, 96},
                                           {7, 960, 576},
                                           {16, 40, 1536},
                                           {67, 50, 1536},
                                           {130, 32, 64},
                                           {9, 1, 32}}) {
      const int k = whole_blocks(dtype, columns);
      add(format("int8_matmul {} {}x{}x{}", name(dtype), rows, n, k), [=](CaseBuilder& b) {
        const Tensor out = b.zeros(rows, n), x = b.normal(rows, k, 1, 3);
        if (rows > 1) std::fill_n(x.row<float>(1), k / 2, 0.0f);  // blocks of zeros
        return BuiltCase{{Int8MatMul{out, x, b.weight(dtype, n, k), KSlices::whole(k)}}, {out}};
      });
    }
    for (const std::int64_t granules : {11, 2}) {  // two: slices without columns
      const std::int64_t width = granules * granule_of(dtype);
      add(format("int8_matmul {} in eight slices of {}", name(dtype), width), [=](CaseBuilder& b) {
        const Tensor out = b.zeros(11, 40), x = b.normal(11, width);
        return BuiltCase{{Int8MatMul{out, x, b.weight(dtype, 40, width), eight_slices(dtype, width)}}, {out}};
      });
    }
    add(format("int8_grouped_matmul {}", name(dtype)), [=](CaseBuilder& b) {
      const int k = whole_blocks(dtype, 128);
      auto& experts = b.keep(std::vector<const Weight*>());
      for (int e = 0; e < 5; ++e) experts.push_back(b.weight(dtype, 70, k));
      const Tensor out = b.zeros(64, 70), x = b.normal(64, k);
      const Tensor offsets = b.ids({0, 3, 3, 4, 24, 64});  // one that nobody chose
      return BuiltCase{{Int8GroupedMatMul{out, x, experts, offsets, eight_slices(dtype, k)}}, {out}};
    });
  }
  for (const auto& [n, k] : {std::array{0, 256}, {40, 0}}) {
    add(format("int8_matmul q4_k 7x{}x{}", n, k), [=](CaseBuilder& b) {
      const Tensor out = b.zeros(7, n), x = b.normal(7, k);
      return BuiltCase{{Int8MatMul{out, x, b.weight(DType::kQ4_K, n, k), KSlices::whole(k)}}, {out}};
    });
  }
  add("int8_matmul of parts of different types", [](CaseBuilder& b) {
    const Tensor out = b.zeros(21, 64 + 33 + 20), x = b.normal(21, 256);
    const Weight* w = b.weight({{DType::kQ4_K, 64}, {DType::kQ6_K, 33}, {DType::kQ8_0, 20}}, 256);
    return BuiltCase{{Int8MatMul{out, x, w, eight_slices(DType::kQ4_K, 256)}}, {out}};
  });
}

inline std::vector<OperatorCase> operator_cases() {
  std::vector<OperatorCase> table;
  add_row_cases(table);
  add_product_cases(table);
  add_tiled_product_cases(table);
  add_head_cases(table);
  add_grouping_cases(table);
  add_clamping_cases(table);
  add_router_cases(table);
  add_expert_cases(table);
  add_attention_cases(table);
  add_vision_cases(table);
  add_full_attention_cases(table);
  add_fp8_cases(table);
  add_int8_cases(table);
  return table;
}

}  // namespace tandem
