# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""The files of the project as the rules see them: text, text without comments and strings, includes."""
import functools
import re

FOLDERS = ("src", "tests", "fuzz", "bench", "rust", "tools", "cmake", "docs", ".ci")
SUFFIXES = (".h", ".cpp", ".inc", ".cu", ".cuh", ".rs", ".py", ".sh", ".cmake", ".md", ".txt", "")
SKIPPED = ("tests/goldens", "rust/target", "rust/vendor", "fuzz/corpus")

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)


class File:
    def __init__(self, root, path):
        self.path = path  # relative to the root, with slashes
        self.parts = path.split("/")
        self.name = self.parts[-1]
        self.is_header = path.endswith(".h")
        self.is_cpp = path.endswith((".h", ".cpp", ".inc", ".cu", ".cuh"))
        self.text = (root / path).read_text(encoding="utf-8", errors="replace")

    @functools.cached_property
    def code(self):
        """The text with comments and literals blanked out; lines and columns stay."""
        return blank(self.text)

    @functools.cached_property
    def includes(self):
        """[(line number, '<' or '"', name)] without what is commented out."""
        found = []
        for match in INCLUDE.finditer(self.text):
            if self.code[match.start():match.start(1)].strip():
                found.append((line_of(self.text, match.start(1)), match.group(1), match.group(2)))
        return found


class Tree:
    def __init__(self, root):
        self.root = root
        self.files = {}
        for folder in FOLDERS:
            for path in sorted((root / folder).rglob("*")):
                name = path.relative_to(root).as_posix()
                wanted = path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in name
                if wanted and not name.startswith(tuple(f"{skipped}/" for skipped in SKIPPED)):
                    self.files[name] = File(root, name)
        for path in (root / "dev", root / "CMakeLists.txt", root / "README.md"):
            if path.is_file():
                self.files[path.name] = File(root, path.name)

    def cpp(self, *folders):
        return [file for file in self.files.values() if file.is_cpp and file.parts[0] in folders]


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def finding(path, line, what, rule):
    return f"{path}:{line}: {what} ({rule})"


LITERAL = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<tag>[^\s()\\]{0,16})\(.*?\)(?P=tag)"|"(?:\\.|[^"\\\n])*"|'
    r"(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'",
    re.DOTALL,
)


def blank(text):
    def spaces(match):
        return re.sub(r"[^\n]", " ", match.group())

    return LITERAL.sub(spaces, text)
