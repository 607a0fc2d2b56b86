# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""A header compiles alone, so that no file depends on what another happened to include before.

A header that its own .cpp includes first has shown it in every build. The others are compiled here, with the flags of
a source beside them, two at a time; what passed is remembered by the hash of all it includes.
"""
import concurrent.futures
import hashlib
import json
import os
import shlex
import subprocess

from .tree import finding

# End of the path → why it is no unit of its own.
NOT_ALONE = {"-inl.h": "kernels, included once for every instruction set by a source that sets the target up"}


def check(project, build):
    commands = compile_commands(project, build)
    jobs = []
    for file in project.cpp("src", "tests"):
        if file.is_header and not file.path.endswith(tuple(NOT_ALONE)) and not shown_by_own_source(project, file):
            command = nearest(commands, file.path)
            if command:
                jobs.append((file, command))
    folder = build / "tidy"
    folder.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda job: compile_alone(project, folder, *job), jobs)
        return [result for result in results if result]


def shown_by_own_source(project, file):
    source = project.files.get(file.path[:-2] + ".cpp")
    return bool(source and source.includes and f"src/{source.includes[0][2]}" == file.path)


def compile_commands(project, build):
    """path → the arguments that compile it, less launcher, source and output."""
    found = {}
    listing = build / "compile_commands.json"
    if not listing.exists():
        return found
    for entry in json.loads(listing.read_text()):
        if entry["file"].endswith(".cu"):  # another compiler, with flags of its own
            continue
        try:
            path = os.path.relpath(entry["file"], project.root)
        except ValueError:
            continue
        words = shlex.split(entry["command"])
        if os.path.basename(words[0]) == "ccache":
            words = words[1:]
        words = words[:words.index("-o")] if "-o" in words else words
        found[path] = (words, entry["directory"])
    return found


def nearest(commands, path):
    """The command of the source that shares most of the header's path."""
    if not commands:
        return None
    return commands[max(sorted(commands), key=lambda other: len(os.path.commonprefix([path.split("/"), other.split("/")])))]


def closure(project, file, seen):
    """The header and every file of the project that it includes, directly or not."""
    if file.path not in seen:
        seen[file.path] = file
        for _, kind, name in file.includes:
            target = project.files.get(f"src/{name}") or project.files.get(name)
            if kind == '"' and target:
                closure(project, target, seen)
    return seen


def compile_alone(project, folder, file, command):
    words, directory = command
    words = words + ["-fsyntax-only", "-Werror", "-x", "c++"]
    digest = hashlib.sha256(" ".join(words).encode())
    for path, part in sorted(closure(project, file, {}).items()):
        digest.update(f"{path}\0{part.text}\0".encode())
    stamp = folder / digest.hexdigest()
    if stamp.exists():
        return None
    # Through standard input, so that '#pragma once' is not in the main file.
    source = f'#include "{project.root / file.path}"\n'
    result = subprocess.run(words + ["-"], cwd=directory, input=source, capture_output=True, text=True)
    if result.returncode == 0:
        stamp.touch()
        return None
    first = next((line for line in result.stderr.splitlines() if "error" in line), result.stderr.strip()[:200])
    return finding(file.path, 1, f"does not compile alone: {first}", "alone")
