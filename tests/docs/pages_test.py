#!/usr/bin/python3
# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""Every command of the program that a page or a help text shows is one, and so is every flag beside it.

usage: pages_test.py PROGRAM
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "src/engine/README.md"]

FENCED = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
# Up to what ends a command: a comment, a pipe, the next command. After a space, a path or at the start: "tandem up", not "name: tandem".
COMMAND = re.compile(r"(?:^|(?<=[\s/(]))tandem ((?:[a-z][a-z-]* ?){1,2}[^#|;&<>)\n]*)", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9_-]*")

# Flags that pages show alone, whose program is another one.
OTHERS = {"--gtest_filter", "--metrics", "--test-dir", "--rm", "--from-file", "--from-literal", "--tool"}
TOOLS = [ROOT / "tools" / name for name in ("bench-peers", "bench-gpu-peers", "try-faults", "dev/test.sh")]


def help_of(program, *words):
    return subprocess.run([program, *words, "--help"], text=True, capture_output=True, check=True).stdout


def listed(text):
    return re.findall(r"^  ([a-z][a-z-]*)\s{2,}", text, re.MULTILINE)


def commands_of(program):
    """Words → their help; of those that are only the beginning of others an empty one."""
    helps = {}
    for name in listed(help_of(program)):
        text = help_of(program, name)
        children = listed(text) if "SUBCOMMAND" in text.splitlines()[1] else []
        helps[(name,)] = "" if children else text
        helps |= {(name, child): help_of(program, name, child) for child in children}
    return helps


def code_of(text):
    """What a page shows as code: blocks with continued lines joined, then spans."""
    blocks = FENCED.findall(text)
    return [block.replace("\\\n", " ") for block in blocks] + INLINE.findall(FENCED.sub("", text))


def wrong_in(helps, where, code):
    found = []
    for match in COMMAND.finditer(code):
        words = tuple(re.match(r"[a-z-]+(?: [a-z-]+\b)?", match.group(1)).group().split())
        name = words if helps.get(words) else words[:1]
        if name not in helps or (not helps[name] and len(words) > 1):
            found.append(f"{where}: there is no tandem {' '.join(words)}")
            continue
        taken = FLAG.findall(helps[name])
        found += [f"{where}: tandem {' '.join(name)} has no {flag}" for flag in FLAG.findall(match.group(1)) if flag not in taken]
    return found


def main():
    helps = commands_of(sys.argv[1])
    known = OTHERS | {"--version", "--help"} | {flag for text in helps.values() for flag in FLAG.findall(text)}
    known |= {flag for tool in TOOLS for flag in FLAG.findall(tool.read_text(encoding="utf-8"))}

    wrong = []
    for name, text in helps.items():
        examples = "\n".join(line for line in text.splitlines() if line.startswith("  tandem "))
        wrong += wrong_in(helps, f"tandem {' '.join(name)} --help", examples)
    for page in PAGES:
        where = page.relative_to(ROOT).as_posix()
        for code in code_of(page.read_text(encoding="utf-8")):
            wrong += wrong_in(helps, where, code)
            wrong += [f"{where}: nobody has {flag}" for flag in FLAG.findall(code) if flag not in known]
    print("".join(f"{line}\n" for line in sorted(set(wrong))), end="")
    print(f"pages: {len(PAGES)} pages, {len(helps)} commands, {len(known)} flags, {len(set(wrong))} findings", file=sys.stderr)
    sys.exit(1 if wrong or len(helps) < 30 else 0)


if __name__ == "__main__":
    main()
