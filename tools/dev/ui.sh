# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
#
# What ./dev says and how: messages on standard error, so that a program's own output stays clean,
# progress on one line of a terminal or every tenth part elsewhere, and timed stages with a table at the end.

say() { printf '%s\n' "$*" >&2; }
die() {
  printf 'dev: %s\n' "$*" >&2
  exit 1
}

# progress LABEL PERCENT TEXT
progress() {
  local label=$1 percent=$2 text=$3 width=24
  if [ -t 2 ]; then
    local done_chars=$((percent * width / 100)) bar
    printf -v bar '%*s' "$done_chars" ''
    printf '\r\033[K%s [%-*s] %3d%% %.40s' "$label" "$width" "${bar// /#}" "$percent" "$text" >&2
    if [ "$percent" -ge 100 ]; then printf '\r\033[K' >&2; fi
    return
  fi
  [ "$label" = "${progress_label:-}" ] || progress_next=0
  progress_label=$label
  [ "$percent" -ge "$progress_next" ] || return 0
  printf '%s %3d%% %s\n' "$label" "$percent" "$text" >&2
  progress_next=$((percent / 10 * 10 + 10))
}

# run_logged LOG COMMAND…: output to LOG only; its end is shown when the command fails.
run_logged() {
  local log=$1
  shift
  mkdir -p "$(dirname "$log")"
  "$@" >"$log" 2>&1 </dev/null && return 0
  local status=$?
  tail -n 40 "$log" >&2
  say "failed with status $status: $*   (all of it: $log)"
  return "$status"
}

stage_names=() stage_seconds=() stage_verdicts=()

# stage NAME COMMAND…: runs it, keeps time and verdict for stage_table, goes on after a failure.
stage() {
  local name=$1 begin=$SECONDS verdict=ok
  shift
  say ""
  say "── $name"
  "$@" || verdict=FAILED
  stage_names+=("$name")
  stage_seconds+=($((SECONDS - begin)))
  stage_verdicts+=("$verdict")
  [ "$verdict" = ok ]
}

stage_table() {
  local i
  printf '\n%-34s %8s  %s\n' stage time verdict
  for i in "${!stage_names[@]}"; do
    printf '%-34s %3dm %02ds  %s\n' "${stage_names[i]}" $((stage_seconds[i] / 60)) $((stage_seconds[i] % 60)) "${stage_verdicts[i]}"
  done
}
