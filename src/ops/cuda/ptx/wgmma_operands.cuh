// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

// How the assembly of a WGMMA names its operands: accumulators c[0], c[1] … are the first, what it reads comes after
// them.
#pragma once

#define TANDEM_PLACES_8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define TANDEM_PLACES_12 TANDEM_PLACES_8 ",%8,%9,%10,%11"
#define TANDEM_PLACES_16 TANDEM_PLACES_8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define TANDEM_PLACES_24 TANDEM_PLACES_16 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define TANDEM_PLACES_32 TANDEM_PLACES_24 ",%24,%25,%26,%27,%28,%29,%30,%31"
#define TANDEM_PLACES_48 TANDEM_PLACES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define TANDEM_PLACES_56 TANDEM_PLACES_48 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define TANDEM_PLACES_64 TANDEM_PLACES_56 ",%56,%57,%58,%59,%60,%61,%62,%63"
#define TANDEM_PLACES_96                                             \
  TANDEM_PLACES_64                                                   \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79" \
  ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define TANDEM_PLACES_128                                                        \
  TANDEM_PLACES_96                                                               \
  ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111" \
  ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

#define TANDEM_SUMS_4(i) "+f"(c[i]), "+f"(c[(i) + 1]), "+f"(c[(i) + 2]), "+f"(c[(i) + 3])
#define TANDEM_SUMS_8(i) TANDEM_SUMS_4(i), TANDEM_SUMS_4((i) + 4)
#define TANDEM_SUMS_16(i) TANDEM_SUMS_8(i), TANDEM_SUMS_8((i) + 8)
#define TANDEM_SUMS_32(i) TANDEM_SUMS_16(i), TANDEM_SUMS_16((i) + 16)
#define TANDEM_SUMS_64(i) TANDEM_SUMS_32(i), TANDEM_SUMS_32((i) + 32)

// c = a · bᵀ, or + c where accumulate is not 0. a_at, b_at, accumulate_at: places of what is read. rest: signs, and
// which way operands lie where that can be said. Then c's operands.
#define TANDEM_WGMMA(a_operands, kind, places, a_at, b_at, accumulate_at, rest, ...)                     \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " accumulate_at                                         \
               ", 0;\n"                                                                                  \
               "wgmma.mma_async.sync.aligned." kind " {" places "}, " a_at ", " b_at ", p, " rest ";\n}" \
               : __VA_ARGS__                                                                             \
               : TANDEM_WGMMA_##a_operands, "l"(b.bits()), "r"(static_cast<int>(accumulate)))
#define TANDEM_WGMMA_MEMORY "l"(a.bits())
#define TANDEM_WGMMA_REGISTERS "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])
