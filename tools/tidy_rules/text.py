# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""What a search can see: length of files, licence lines, open ends, traces of one machine."""
import re

from .tree import finding, line_of

FILE_LINES_MAX = 800

# path → why it is longer.
LONGER = {}

COPYRIGHT = "SPDX-FileCopyrightText: The Tandem authors"
LICENCE = "SPDX-License-Identifier: Apache-2.0"
LICENSED = (".h", ".cpp", ".inc", ".cu", ".cuh", ".rs", ".py", ".sh")

# Written so that these lines do not match themselves.
OPEN_END = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b(?!\(#\d+\))")
MACHINE = re.compile(r"(?<![\w.~}/-])/(?:work|farm|home|root|Users)/\w")
REGISTRY = re.compile(r"\b(?:[\w-]+\.)*(?:py" r"pi|python" r"hosted|deb" r"ian|npm" r"js|crates)\.(?:org|io|com|net)\b")
# Only rust/header has tests that cargo runs; the manifests of the others say why.
RUST_TEST = re.compile(r"#\[\s*(?:test|cfg\(test\))\s*\]")
DEVICE_CODE = re.compile(r"__global__|__device__|<<<|#\s*include\s*<cu(?:da|blas)")


def check(project):
    findings = []
    for file in project.files.values():
        lines = file.text.count("\n")
        if lines > FILE_LINES_MAX and file.path not in LONGER and not file.path.endswith(".md"):
            findings.append(finding(file.path, 1, f"{lines} lines, the limit is {FILE_LINES_MAX}", "size"))
        head = file.text[:400]
        licensed = file.path.endswith(LICENSED) or file.text.startswith("#!")
        if licensed and not (COPYRIGHT in head and LICENCE in head):
            findings.append(finding(file.path, 1, "does not begin with the two SPDX lines", "licence"))
        findings += search(file, OPEN_END, "without the number of an issue", "open end")
        findings += search(file, MACHINE, "is a path of one machine", "machine")
        findings += search(file, REGISTRY, "is the host of a registry", "machine")
        if file.path.endswith(".rs") and not file.path.startswith("rust/header/"):
            findings += search(file, RUST_TEST, "is never run: these crates are tested from C++", "rust test")
        if file.is_header:
            findings += search(file, DEVICE_CODE, "in a .h: device code lives in .cuh and .cu", "cuda")
    return findings


def search(file, pattern, what, rule):
    return [finding(file.path, line_of(file.text, m.start()), f"'{m.group()}' {what}", rule) for m in pattern.finditer(file.text)]
