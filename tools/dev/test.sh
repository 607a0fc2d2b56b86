# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
#
# All tests, as stages that each tell their time, and the sum of their cases at the end.

help_test() {
  cat <<'TEXT'
usage: ./dev test [--fast]

Installs what is missing, builds and runs, on a clone with nothing beside it:
  format        clang-format finds nothing to change (./dev lint --fix)
  fast suite    every unit test, seeded simulation, small goldens, and tidy
  rust          the C headers of the Rust part are what its sources say (the rest of it is tested from C++)
  simulation    whole deployments on a network that fails: 350 seeds, and bugs put in that have to be found
  smollm2       the real model against its recorded answers (fetches it once, 93 MB); beside the simulation
  asan + ubsan  the fast suite under the address and undefined-behaviour sanitizers
  fuzz          each fuzz target for a few seconds
  tsan          sched, kv, engine and transport under the thread sanitizer
  cuda          the CUDA build: what needs no GPU; with one, every operator and model on it

  --fast        only the fast suite (and format, where clang-format-19 is installed): no download, under a minute
                after the build

The last line is 'N passed, N failed, N skipped'; the exit status tells whether anything failed.
TEXT
}

fuzz_seconds=3
thread_tests='^(sched|kv|engine|transport)'

passed=0 failed=0 skipped=0
count() { # count passed|failed|skipped N
  case $1 in
    passed) passed=$((passed + $2)) ;;
    failed) failed=$((failed + $2)) ;;
    skipped) skipped=$((skipped + $2)) ;;
  esac
}
skip_reasons=()

# A stage that fails for another reason than a failed test counts as one failure.
test_stage() {
  local before=$failed
  stage "$@" && return
  [ "$failed" -gt "$before" ] || count failed 1
  return 1
}

cmd_test() {
  local fast='' groups='base lint cuda'
  case ${1:-} in
    '') ;;
    --fast) fast=yes groups=base ;;
    *) die "test: unknown argument '$1' (see ./dev test --help)" ;;
  esac
  exec 2>&1 # one stream, in order
  # shellcheck disable=SC2086
  test_stage "set-up" setup $groups || die "set-up failed"
  # Four seconds, so the quick suite has it too wherever the tool is; it comes before the hour, not after it.
  if [ -z "$fast" ] || command -v clang-format-19 >/dev/null; then
    test_stage "format" lint_format "$(lint_files src tests fuzz)" || true
  fi
  if test_stage "build release" build release; then
    test_stage "fast suite" suite release -L fast || true
    [ -n "$fast" ] || slow_stages
  fi
  test_summary "$fast"
}

# A stage that fails is told by the table, so each goes on with `|| true`; only what needs a build waits for it.
slow_stages() {
  test_stage "rust" test_rust || true
  test_stage "simulation and smollm2" test_simulation_and_smollm2 || true
  test_stage "openai client" test_openai_client || true
  if test_stage "build cuda" build cuda tandem ops_test verify_test; then
    test_stage "cuda" suite cuda -R "^(ops|verify)$" || true
  fi
  if test_stage "build asan" build asan; then
    test_stage "asan + ubsan: fast suite" suite asan -L fast -E '^tidy$' || true
    test_stage "fuzz, $fuzz_seconds s each" fuzz_run "$fuzz_seconds" || true
  fi
  if test_stage "build tsan" build_tsan; then
    test_stage "tsan: sched kv engine transport" test_tsan || true
  fi
}

test_summary() {
  local fast=$1 reason
  stage_table
  echo
  if [ ${#skip_reasons[@]} -gt 0 ]; then
    echo "skipped:"
    printf '%s\n' "${skip_reasons[@]}" | sort | uniq -c | sed 's/^ *\([0-9]*\) /  \1 × /'
  fi
  if [ -n "$fast" ]; then
    echo "not run by --fast: rust, simulation, smollm2, openai client, cuda, asan + ubsan, tsan, fuzz (./dev test)"
  else
    echo "not run here, for they do not fit 45 minutes on two cores: smollm2 under sanitizers, clang-tidy (./dev lint),"
    echo "  fuzzing for longer than $fuzz_seconds s a target (./dev fuzz), a minute of load in each layout (ctest -L load),"
    echo "  serve under tsan (./dev build tsan serve_test), which takes Rust's channels, not built for it, for races"
  fi
  echo
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ]
}

# suite PRESET CTEST-ARGUMENTS…: runs them and adds their cases to the sums.
suite() {
  local preset=$1 status=0 log=build/$1/Testing/Temporary/LastTest.log
  shift
  rm -f "$log"
  ${suite_under[@]+"${suite_under[@]}"} ctest --test-dir "build/$preset" --output-on-failure --no-tests=error -j "$(nproc)" "$@" </dev/null || status=$?
  [ -e "$log" ] && count_log "$log"
  return "$status"
}

# One line per result from ctest's log. A GoogleTest program counts by its cases, any other test as one; a program
# that died without a summary is one failure.
count_log() {
  local kind value
  while IFS=$'\t' read -r kind value; do
    case $kind in
      reason) skip_reasons+=("$value") ;;
      *) count "$kind" "$value" ;;
    esac
  done < <(awk '
    /^[0-9]+\/[0-9]+ Testing: / { p = f = s = cases = 0 }
    /^Unable to find executable: / { unable = 1 } # stands before the block of the test
    /^\[  PASSED  \] [0-9]+ test/ { p = $4; cases = 1 }
    /^\[  FAILED  \] [0-9]+ test/ { f = $4; cases = 1 }
    /^\[  SKIPPED \] [0-9]+ test/ { s = $4 }
    wants_reason && NF { print "reason\t" $0; wants_reason = 0 }
    /: Skipped$/ { wants_reason = 1 }
    /^\[  SKIPPED \] .*ms\)$/ { wants_reason = 0 }
    /^Test (Passed|Failed)\./ {
      bad = unable || !/^Test Passed/
      if (!cases) { p = !bad; f = bad } else if (bad && !f) f = 1
      print "passed\t" p; print "failed\t" f; print "skipped\t" s
      unable = 0
    }' "$1")
}

# What makes the headers runs for a moment: optimising it would be most of the stage.
test_rust() {
  local log=build/log/rust-test.log status=0
  mkdir -p build/log
  CARGO_TARGET_DIR=$root/build/rust cargo test --locked --manifest-path rust/Cargo.toml </dev/null 2>&1 | tee "$log" || status=1
  local kind value
  while read -r kind value; do count "$kind" "$value"; done < <(awk '
    /^test result:/ { for (i = 1; i < NF; i++) { if ($(i + 1) == "passed;") p += $i; if ($(i + 1) == "failed;") f += $i; if ($(i + 1) == "ignored;") s += $i } }
    END { print "passed", p + 0; print "failed", f + 0; print "skipped", s + 0 }' "$log")
  return "$status"
}

# Each has a test of five minutes that keeps one core busy most of the time: they run side by side.
test_simulation_and_smollm2() {
  local model
  if ! model=$(tools/fetch-model); then
    suite release -L '^simulation$' || true
    return 1
  fi
  TANDEM_SMOLLM2=$model suite release -L '^(simulation|smollm2)$'
}

test_openai_client() {
  tools/fetch-openai-client >/dev/null || return
  suite release -L openai
}

thread_test_names() {
  ctest --test-dir build/tsan -N -R "$thread_tests" -L fast | sed -n 's/^ *Test *#[0-9]*: //p'
}

# Only the tests that run threads are built: a sanitizer build of everything costs minutes.
build_tsan() {
  local names
  configure tsan || return
  names=$(thread_test_names)
  [ -n "$names" ] || { say "no test matches $thread_tests"; return 1; }
  # shellcheck disable=SC2046
  build tsan $(printf '%s_test ' $names)
}

# Under some kernels' address randomisation the thread sanitizer cannot map its shadow; setarch turns that off.
test_tsan() {
  local suite_under=()
  setarch -R true 2>/dev/null && suite_under=(setarch -R)
  suite tsan -R "$thread_tests" -L fast
}
