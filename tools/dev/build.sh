# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
#
# Building a preset, and the commands that run what a release build makes: chat, serve and bench.

help_build() {
  cat <<'TEXT'
usage: ./dev build [PRESET] [TARGET…]

Installs what is missing, configures and builds build/PRESET. Presets:
  release   optimised, warnings are errors (the default); the program is build/release/tandem
  debug     no optimisation
  asan      address and undefined-behaviour sanitizers, with clang; the libFuzzer targets, too
  tsan      thread sanitizer, with clang
  cuda      release with the CUDA backend, for Hopper GPUs; needs no GPU, fetches the CUDA compiler where none is

The Rust part is shared by all presets (build/rust) and is the first thing ninja starts.
TEXT
}

cmd_build() {
  local preset=${1:-release}
  [ $# -gt 0 ] && shift
  case $preset in
    release | debug) setup base ;;
    asan | tsan) setup base lint ;;
    cuda) setup base cuda ;;
    *) die "build: unknown preset '$preset' (see ./dev build --help)" ;;
  esac
  build "$preset" "$@"
}

# Only when there is nothing yet or the presets changed: after that ninja sees when CMake has to run again.
configure() {
  local preset=$1 dir=build/$1
  if [ -e "$dir/build.ninja" ] && [ ! CMakePresets.json -nt "$dir/build.ninja" ]; then return; fi
  say "configuring $dir"
  run_logged "build/log/configure-$preset.log" cmake --preset "$preset" || return
  touch "$dir/build.ninja"
}

# build PRESET [TARGET…]
build() {
  local preset=$1
  shift
  configure "$preset" || return
  NINJA_STATUS='[%f/%t %es] ' ninja -C "build/$preset" -j "$(nproc)" "$@" </dev/null
}

# The program alone, told on standard error: standard output is for the answer. Rebuilding says only what it builds.
build_program() {
  local nothing='^ninja: (Entering directory|no work to do)|Re-checking globbed directories'
  if [ -x build/release/tandem ]; then
    build release tandem | sed -u -E "/$nothing/d" >&2
  else
    build release tandem >&2
  fi
}

help_chat() {
  cat <<'TEXT'
usage: ./dev chat [ARGUMENTS OF tandem chat]

A conversation with the default model, SmolLM2-135M-Instruct. Installs what is missing, builds a release, fetches the
model once (93 MB, kept in ~/.cache/tandem/models), and hands over to build/release/tandem chat. Without a terminal
on standard input one prompt is read from it and one answer printed. build/release/tandem chat --help tells more.
TEXT
}

cmd_chat() { run_with_model chat "$@"; }

help_serve() {
  cat <<'TEXT'
usage: ./dev serve [ARGUMENTS OF tandem serve]

An OpenAI-compatible server on http://127.0.0.1:8000/v1 with the default model, SmolLM2-135M-Instruct. Installs what is
missing, builds a release, fetches the model once (93 MB, kept in ~/.cache/tandem/models), and hands over to
build/release/tandem serve. Ctrl-C ends it when the answers under way have ended. docs/serving.md tells more.
TEXT
}

cmd_serve() {
  [ -z "${TANDEM_CONFIG:-}" ] || set -- --config "$TANDEM_CONFIG" "$@"
  [ -z "${TANDEM_MODEL:-}" ] || set -- --model "$TANDEM_MODEL" "$@"
  run_with_model serve "$@"
}

# run_with_model COMMAND [ARGUMENT…]: with the default model unless the arguments name one, or a file that may.
run_with_model() {
  local command=$1 model
  shift
  setup base
  build_program
  case " $* " in
    *' --model '* | *' --model='* | *' -m '* | *' --config '* | *' --config='*) exec build/release/tandem "$command" "$@" ;;
  esac
  model=$(tools/fetch-model)
  exec build/release/tandem "$command" --model "$model" "$@"
}

help_bench() {
  cat <<'TEXT'
usage: ./dev bench [ARGUMENTS OF tandem bench]

Builds a release and runs its benchmarks; without arguments: `tandem bench model` on the default model.
build/release/tandem bench --help lists them.
TEXT
}

cmd_bench() {
  local model
  setup base
  build_program
  if [ $# -gt 0 ]; then exec build/release/tandem bench "$@"; fi
  model=$(tools/fetch-model)
  exec build/release/tandem bench model --model "$model"
}
