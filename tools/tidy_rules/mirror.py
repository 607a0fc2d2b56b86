# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""Every source has its test, every file is built, every header is used.

A source src/kv/block_pool.cpp is covered by tests/kv/block_pool_test.cpp, or by another test of the same folder that
includes its header (src/kv/…, not by way of a third header).
"""
import re

from .tree import finding

# Sources without a test of their own: path → what covers them.
COVERED_ELSEWHERE = {}


def check(project):
    return missing_tests(project) + unbuilt(project) + unused_headers(project)


def missing_tests(project):
    findings = []
    for file in project.cpp("src"):
        if not file.path.endswith(".cpp") or file.path in COVERED_ELSEWHERE:
            continue
        stem = file.path[len("src/"):-len(".cpp")]
        if f"tests/{stem}_test.cpp" in project.files:
            continue
        tests = (test for test in project.cpp("tests") if test.parts[1] == file.parts[1])
        if not any(name == f"{stem}.h" for test in tests for _, _, name in test.includes):
            what = f"no test: neither tests/{stem}_test.cpp nor a test under tests/{file.parts[1]} that includes {stem}.h"
            findings.append(finding(file.path, 1, what, "mirror"))
    for path in COVERED_ELSEWHERE:
        if path not in project.files:
            findings.append(finding(path, 1, "is in COVERED_ELSEWHERE of tools/tidy_rules/mirror.py and does not exist", "mirror"))
    return findings


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
