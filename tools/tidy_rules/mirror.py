# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""Every source has its test, every file is built, every header is used.

The face of a source src/kv/block_pool.cpp is src/kv/block_pool.h or, without one, the first header of its folder that
it includes: it holds a part of what that one declares. The source is covered by tests/kv/block_pool_test.cpp, by
another test of the same folder that includes the face, or, where no other folder sees the face, by a covered source
that includes it.
"""
import re

from .tree import finding

# Sources without a test of their own: path → what covers them.
KERNELS = "tests/ops runs each operator with every instruction set that the machine has"
COVERED_ELSEWHERE = {
    "src/ops/cpu/kernels_baseline.cpp": KERNELS,
    "src/ops/cpu/kernels_avx2.cpp": KERNELS,
    "src/ops/cpu/kernels_avx512.cpp": KERNELS,
    "src/serve/http/plain_socket.cpp": "every test of connections without TLS talks through it",
}


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
            what = f"no test: neither tests/{stem_of(file)}_test.cpp nor a test under tests/{file.parts[1]} that includes {face_of(project, file)}"
            findings.append(finding(file.path, 1, what, "mirror"))
    return findings


def stem_of(file):
    return file.path[len("src/"):-len(".cpp")]


def face_of(project, file):
    own = f"{stem_of(file)}.h"
    if f"src/{own}" in project.files:
        return own
    return next((name for _, _, name in file.includes if name.startswith(file.parts[1] + "/")), own)


def has_test(project, file):
    face = face_of(project, file)
    tests = (test for test in project.cpp("tests") if test.parts[1] == file.parts[1])
    return f"tests/{stem_of(file)}_test.cpp" in project.files or any(includes(test, face) for test in tests)


def is_part(project, file, covered):
    face = face_of(project, file)
    users = [user for user in project.cpp("src") if user.path != file.path and includes(user, face)]
    inside = all(user.parts[1] == file.parts[1] for user in users)
    return inside and any(user.path in covered for user in users)


def includes(file, name):
    return any(included == name for _, _, included in file.includes)


def unbuilt(project):
    """A .cpp or .cu that no CMakeLists.txt of its folder or above names is never compiled: dead, or a test nobody runs."""
    findings = []
    for file in project.cpp("src", "tests", "fuzz", "bench"):
        if not file.path.endswith((".cpp", ".cu")):
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
