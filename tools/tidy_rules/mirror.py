# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""Every source has its test, every file is built, every header is used.

A source src/kv/block_pool.cpp is covered by tests/kv/block_pool_test.cpp, or by another test of the same folder that
includes its header. A part that no other folder sees is covered when a covered source beside it includes its header.
"""
import re

from .tree import finding

# Sources without a test of their own: path → what covers them.
COVERED_ELSEWHERE = {}


def check(project):
    return missing_tests(project) + unbuilt(project) + unused_headers(project)


def missing_tests(project):
    sources = [file for file in project.cpp("src") if file.path.endswith(".cpp")]
    covered = {file.path for file in sources if file.path in COVERED_ELSEWHERE or has_test(project, file)}
    while parts := {file.path for file in sources if file.path not in covered and is_part(project, file, covered)}:
        covered |= parts

    findings = []
    for file in sources:
        if file.path not in covered:
            stem = stem_of(file)
            what = f"no test: neither tests/{stem}_test.cpp nor a test under tests/{file.parts[1]} that includes {stem}.h"
            findings.append(finding(file.path, 1, what, "mirror"))
    for path in COVERED_ELSEWHERE:
        if path not in project.files:
            findings.append(finding(path, 1, "is in COVERED_ELSEWHERE of tools/tidy_rules/mirror.py and does not exist", "mirror"))
    return findings


def stem_of(file):
    return file.path[len("src/"):-len(".cpp")]


def has_test(project, file):
    stem = stem_of(file)
    tests = (test for test in project.cpp("tests") if test.parts[1] == file.parts[1])
    return f"tests/{stem}_test.cpp" in project.files or any(includes(test, f"{stem}.h") for test in tests)


def is_part(project, file, covered):
    header = f"{stem_of(file)}.h"
    users = [user for user in project.cpp("src") if user.path != file.path and includes(user, header)]
    folder = file.path.rsplit("/", 1)[0]
    return all(user.path.startswith(folder + "/") for user in users) and any(user.path in covered for user in users)


def includes(file, name):
    return any(included == name for _, _, included in file.includes)


def unbuilt(project):
    """A .cpp that no CMakeLists.txt of its folder or above names is never compiled: dead, or a test nobody runs."""
    findings = []
    for file in project.cpp("src", "tests", "fuzz", "bench"):
        if not file.path.endswith(".cpp"):
            continue
        for depth in range(len(file.parts) - 1, 0, -1):
            lists = project.files.get("/".join(file.parts[:depth] + ["CMakeLists.txt"]))
            name = "/".join(file.parts[depth:])
            if lists and re.search(rf"(?<![\w/.]){re.escape(name)}(?![\w.])", lists.text):
                break
        else:
            findings.append(finding(file.path, 1, "in no CMakeLists.txt: never compiled", "dead"))
    return findings


def unused_headers(project):
    uses = [(file.path, name) for file in project.cpp("src", "tests", "fuzz", "bench") for _, kind, name in file.includes if kind == '"']
    findings = []
    for file in project.cpp("src", "tests"):
        if file.is_header and not any(file.path.endswith("/" + name) or file.path == name for user, name in uses if user != file.path[:-2] + ".cpp"):
            findings.append(finding(file.path, 1, "included by nobody but its own .cpp", "dead"))
    return findings
