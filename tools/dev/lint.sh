# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
#
# What reads the source or feeds it random bytes: format, static analysis, the project's own rules, fuzzing.

clang_tidy_jobs=2

help_lint() {
  cat <<'TEXT'
usage: ./dev lint [--fix] [PATH…]

clang-format, clang-tidy and tools/tidy over all sources, or over those under PATH.
Installs clang-19 when it is missing. clang-tidy is slow: about 5 s per file and core, so name what you changed.

  --fix    format in place, and do nothing else
TEXT
}

cmd_lint() {
  local fix=
  if [ "${1:-}" = --fix ]; then
    fix=yes
    shift
  fi
  local paths=("$@")
  [ $# -gt 0 ] || paths=(src tests fuzz)
  setup base lint
  local files
  files=$(lint_files "${paths[@]}")
  [ -n "$files" ] || die "lint: no C++ or CUDA file under: ${paths[*]}"
  if [ -n "$fix" ]; then
    printf '%s\n' "$files" | xargs clang-format-19 -i
    return
  fi
  configure release
  stage "clang-format" lint_format "$files" || true
  stage "clang-tidy" lint_clang_tidy "$files" || true
  stage "tidy" tools/tidy --build build/release || true
  stage_table
  [[ " ${stage_verdicts[*]} " != *' FAILED '* ]]
}

lint_files() { find "$@" -name '*.h' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu' | sort; }

# Names the files only: what would change is best seen with --fix and a diff.
lint_format() {
  local findings
  findings=$(printf '%s\n' "$1" | xargs clang-format-19 --dry-run 2>&1) || return
  [ -n "$findings" ] || return 0
  say "not formatted (./dev lint --fix):"
  printf '%s\n' "$findings" | sed -n 's/^\([^ :]*\):[0-9]*:[0-9]*: .*/  \1/p' | sort -u >&2
  return 1
}

# Only files that the release build compiles have a compile command to be read with.
lint_clang_tidy() {
  local compiled
  compiled=$(printf '%s\n' "$1" | grep '\.cpp$' | while read -r file; do
    grep -qF "\"$root/$file\"" build/release/compile_commands.json && echo "$file"
  done)
  [ -n "$compiled" ] || return 0
  printf '%s\n' "$compiled" | xargs -P "$clang_tidy_jobs" -n 4 clang-tidy-19 -p build/release --quiet
}

help_fuzz() {
  cat <<'TEXT'
usage: ./dev fuzz [TARGET] [SECONDS]

Builds the fuzz targets with clang, address and undefined-behaviour sanitizers, and runs each, or the one named, for
SECONDS (10 unless given). Corpora grow in build/fuzz/corpus; a crash leaves its input in build/fuzz/artifacts.
TEXT
}

cmd_fuzz() {
  local only=${1:-} seconds=${2:-10}
  [[ $only =~ ^[0-9]+$ ]] && seconds=$only only=
  [[ $seconds =~ ^[0-9]+$ ]] || die "fuzz: '$seconds' is not a number of seconds"
  setup base lint
  build asan fuzz/all
  fuzz_run "$seconds" "$only"
}

# fuzz_run SECONDS [TARGET]: seeds come from fuzz/corpus/TARGET where the project keeps some.
fuzz_run() {
  local seconds=$1 only=${2:-} target name status=0 ran=0
  for target in build/asan/fuzz/*_fuzz; do
    [ -x "$target" ] || continue
    name=$(basename "$target" _fuzz)
    [ -z "$only" ] || [ "$only" = "$name" ] || [ "$only" = "${name}_fuzz" ] || continue
    ran=$((ran + 1))
    mkdir -p "build/fuzz/corpus/$name" build/fuzz/artifacts
    local corpora=("build/fuzz/corpus/$name")
    [ -d "fuzz/corpus/$name" ] && corpora+=("fuzz/corpus/$name")
    say "fuzz $name for $seconds s"
    if run_logged "build/log/fuzz-$name.log" env UCX_MEM_EVENTS=n "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
      -artifact_prefix=build/fuzz/artifacts/"$name"- "${corpora[@]}"; then
      count passed 1
    else
      count failed 1
      status=1
    fi
  done
  if [ "$ran" -eq 0 ]; then
    say "no fuzz target${only:+ named '$only'} under build/asan/fuzz"
    status=1
  fi
  return "$status"
}
