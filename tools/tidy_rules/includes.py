# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""Includes go one way, and a third-party header is seen in one place.

Two static libraries may include each other and CMake will not mind; after that neither can be tested or read alone.
A dependency that one folder knows can be replaced; one that everybody knows cannot.
"""
import re

from .tree import finding

# Left is used by right. A folder includes itself and what stands to its left, never its own row or to its right.
ORDER = (
    ("base",),
    ("tensor", "trust"),
    ("text", "transport", "ops", "checkpoint"),
    ("image",),
    ("kv", "model", "chat_format"),
    ("sched", "synthetic", "deploy"),
    ("engine",),
    ("roles", "session"),
    ("sim", "plan", "serve", "slice", "traffic", "verify"),
    ("cli",),
)


def ranks(order):
    return {folder: rank for rank, row in enumerate(order) for folder in row}


RANK = ranks(ORDER)

# These know less than their place in the order would allow.
ONLY = {
    "text": {"base", "text"},
    "image": {"base", "text", "image"},
    "trust": {"base", "trust"},
    "slice": {"base", "ops", "slice"},
    "traffic": {"base", "traffic"},
    "deploy": {"base", "model", "deploy"},
    "plan": {"base", "tensor", "ops", "checkpoint", "model", "deploy", "plan"},
    "synthetic": {"base", "tensor", "ops", "checkpoint", "model", "synthetic"},
    "chat_format": {"base", "text", "chat_format"},
}

# The same of a folder's own folders, "" being its own files.
ROOMS = {
    "engine": ranks((("hand_over",), ("worker",), ("attention", "ffn", "vision", "settings"), ("",))),
}

# Third-party header (a prefix of the name in <>) → the one folder that includes it, and that of its tests if they do.
THIRD_PARTY = {
    "fmt/": "src/base",
    "nlohmann/": "src/base",
    "toml++/": "src/base",
    "hwy/": "src/ops",
    "ucp/": "src/transport/ucx",
    "cuda": "src/ops/cuda",  # and cuda_runtime.h, cuda_bf16.h, …
    "nv_": "src/ops/cuda",
    "tandem_text.h": "src/text",  # generated from rust/
    "tandem_image.h": "src/image",
    "CLI/": "src/cli",
    "histedit.h": "src/cli",
    "boost/": "src/serve/http",
    "openssl/": ("src/trust", "src/serve", "tests/serve"),  # links; keys of clients; certificates to be shown
    "gtest/": "tests",
    "gmock/": "tests",
}

# The language and the system: may be included anywhere. Standard C++ headers have no dot; these are the others.
SYSTEM = re.compile(
    r"^(sys/|arpa/|netinet/|linux/)|^(assert|ctype|cpuid|dirent|dlfcn|errno|fcntl|immintrin|inttypes|limits|locale|math|netdb"
    r"|poll|pthread|pwd|sched|semaphore|signal|stdarg|stddef|stdint|stdio|stdlib|string|termios|time|unistd|x86intrin)\.h$"
)


def check(project):
    findings = []
    for file in project.cpp("src", "tests", "fuzz", "bench"):
        for line, kind, name in file.includes:
            if kind == "<" and ("." in name or "/" in name) and not SYSTEM.match(name):
                findings += third_party(file, line, name)
            elif kind == '"':
                findings += own(project, file, line, name)
    return findings


def third_party(file, line, name):
    owner = next((THIRD_PARTY[prefix] for prefix in THIRD_PARTY if name.startswith(prefix)), None)
    if owner is None:
        return [finding(file.path, line, f"<{name}> has no owner in tools/tidy_rules/includes.py", "third-party")]
    owners = (owner,) if isinstance(owner, str) else owner
    if not file.path.startswith(tuple(folder + "/" for folder in owners)):
        return [finding(file.path, line, f"<{name}> belongs to {owners[0]} alone", "third-party")]
    return []


def own(project, file, line, name):
    if any(name.startswith(prefix) for prefix in THIRD_PARTY):
        return third_party(file, line, name)
    if file.parts[0] == "src" and f"src/{name}" not in project.files:
        return [finding(file.path, line, f'"{name}" is not a file under src; includes are written from there', "include")]
    if file.parts[0] != "src":
        return []
    here, there = file.parts[1], name.split("/")[0]
    for folder in (here, there):
        if folder not in RANK:
            return [finding(file.path, line, f"folder {folder} has no place in ORDER of tools/tidy_rules/includes.py", "order")]
    allowed = here == there or RANK[there] < RANK[here]
    if here in ONLY:
        allowed = there in ONLY[here]
    if not allowed:
        return [finding(file.path, line, f'src/{here} may not include "{name}": it does not stand to its left', "order")]
    return own_room(file, line, name) if here == there and here in ROOMS else []


def own_room(file, line, name):
    folder = file.parts[1]
    rank = ROOMS[folder]
    here, there = (parts[1] if len(parts) > 2 else "" for parts in (file.parts[1:], name.split("/")))
    for room in (here, there):
        if room not in rank:
            return [finding(file.path, line, f"folder {folder}/{room} has no place in ROOMS of tools/tidy_rules/includes.py", "order")]
    if here == there or rank[there] < rank[here]:
        return []
    return [finding(file.path, line, f'src/{folder}/{here} may not include "{name}": it does not stand to its left', "order")]
