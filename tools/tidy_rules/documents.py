# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""What a reader follows: pages that comments name exist, links lead to a file and a heading, the order of folders holds."""
import re

from .includes import ORDER
from .tree import finding, line_of

MENTION = re.compile(r"(?<![\w/])docs/[\w/-]+\.(?:md|jsonl?|svg)\b")
LINK = re.compile(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINKED = re.compile(r"\[([^\]]*)\]\([^)]*\)")

MADE_UP = "tests/tidy/"  # its pages are of projects that a test makes up
ARCHITECTURE = "docs/architecture.md"
ORDER_LINE = re.compile(r"^`(base → .*)`$", re.MULTILINE)


def check(project):
    findings = []
    for file in project.files.values():
        if not file.path.startswith(MADE_UP):
            findings += mentions(project, file)
        if file.path.endswith(".md"):
            findings += links(project, file)
    architecture = project.files.get(ARCHITECTURE)
    return findings + (order(architecture) if architecture else [])


def mentions(project, file):
    return [
        finding(file.path, line_of(file.text, match.start()), f"'{match.group()}' does not exist", "link")
        for match in MENTION.finditer(file.text)
        if not (project.root / match.group()).exists()
    ]


def links(project, file):
    findings = []
    folder = (project.root / file.path).parent
    for match in LINK.finditer(file.text):
        target, anchor = match.groups()
        path = (folder / target).resolve() if target else project.root / file.path
        line = line_of(file.text, match.start())
        if not path.exists():
            findings.append(finding(file.path, line, f"'{target}' does not exist", "link"))
        elif anchor and anchor not in anchors(path.read_text(encoding="utf-8")):
            findings.append(finding(file.path, line, f"'{target}' has no heading '#{anchor}'", "link"))
    return findings


def anchors(text):
    """Headings as a forge spells them in addresses."""
    titles = (LINKED.sub(r"\1", title).lower() for title in HEADING.findall(CODE.sub("", text)))
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in titles}


def order(file):
    said = ORDER_LINE.search(file.text)
    rows = [set(row.strip("{} ").split(", ")) for row in said.group(1).split(" → ")] if said else []
    if rows == [set(row) for row in ORDER]:
        return []
    line = line_of(file.text, said.start()) if said else 1
    row = " → ".join(row[0] if len(row) == 1 else "{" + ", ".join(row) + "}" for row in ORDER)
    return [finding(file.path, line, f"tools/tidy_rules/includes.py has `{row}`", "order")]
