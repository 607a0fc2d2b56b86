# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""A function fits a screen. Branches stay in the parent, loops move to helpers.

Not a C++ parser: in formatted code a brace that follows a parameter list, in a namespace or class, opens a function.
"""
import re

from .tree import finding

FUNCTION_LINES_MAX = 70

# 'path function' → why it is longer.
LONGER = {}

TYPE = re.compile(r"\b(namespace|class|struct|enum|union)\b(?!.*\))|\bextern\s*$", re.DOTALL)
CONSTRUCTOR_MEMBER = re.compile(r"[\w>]\Z")
NAME = re.compile(r"((?:operator\s*(?:\(\)|[^\s(]+)|~?[A-Za-z_]\w*))\s*\(")


def check(project):
    findings = []
    for file in project.cpp("src", "tests", "fuzz", "bench"):
        for name, begin, end in functions(file.code):
            lines = end - begin + 1
            if lines > FUNCTION_LINES_MAX and f"{file.path} {name}" not in LONGER:
                what = f"{name} has {lines} lines, the limit is {FUNCTION_LINES_MAX}"
                findings.append(finding(file.path, begin, what, "size"))
    return findings


def functions(code):
    """Yields (name, first line, last line) of every function body outside other functions."""
    code = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: re.sub(r"[^\n]", " ", m.group()), code, flags=re.MULTILINE)
    kinds, head_begin, line, inside = [], 0, 1, None
    for offset, sign in enumerate(code):
        if sign == "\n":
            line += 1
        elif sign == "{":
            head = code[head_begin:offset]
            if inside is not None:
                kinds.append("block")
            elif ")" in head and CONSTRUCTOR_MEMBER.search(head) and re.search(r"\)[^)]*:[^:]", head):
                kinds.append("member")  # Foo() : a_{1} — the head goes on
                continue
            elif TYPE.search(head):
                kinds.append("type")
            elif ")" in head and not head.rstrip().endswith(("=", ",", "(")):
                kinds.append("function")
                stripped = head.lstrip()
                inside = (len(kinds), NAME.search(head), line - stripped.count("\n"))
            else:
                kinds.append("block")
            head_begin = offset + 1
        elif sign == "}" and kinds:
            if inside is not None and len(kinds) == inside[0]:
                yield inside[1].group(1) if inside[1] else "?", inside[2], line
                inside = None
            if kinds.pop() != "member":
                head_begin = offset + 1
        elif sign == ";" and inside is None:
            head_begin = offset + 1
