#!/usr/bin/python3
# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""Each rule of tools/tidy finds the fault it is for in a small made-up project, and nothing in a clean one."""
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
from tidy_rules import documents, functions, headers, includes, mirror, text, tree  # noqa: E402

LICENCE = "// SPDX-FileCopyrightText: The Tandem authors\n// SPDX-License-Identifier: Apache-2.0\n"


def findings(rule, files):
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content)
        return rule(tree.Tree(root))


def function_of(lines):
    return "int f(int x) {\n" + "  x += 1;\n" * (lines - 2) + "}\n"


class Includes(unittest.TestCase):
    def check(self, path, line, *others):
        files = {path: line + "\n"} | {other: "" for other in others}
        return findings(includes.check, files)

    def test_left_is_allowed(self):
        self.assertEqual(self.check("src/kv/pool.h", '#include "base/error.h"', "src/base/error.h"), [])

    def test_right_and_own_row_are_not(self):
        self.assertIn("(order)", self.check("src/base/error.h", '#include "kv/pool.h"', "src/kv/pool.h")[0])
        self.assertIn("(order)", self.check("src/kv/pool.h", '#include "model/llama.h"', "src/model/llama.h")[0])

    def test_rooms_of_a_folder(self):
        self.assertEqual(self.check("src/engine/ffn/b.h", '#include "engine/worker/a.h"', "src/engine/worker/a.h"), [])
        self.assertEqual(self.check("src/engine/b.h", '#include "engine/ffn/a.h"', "src/engine/ffn/a.h"), [])
        self.assertIn("(order)", self.check("src/engine/worker/b.h", '#include "engine/ffn/a.h"', "src/engine/ffn/a.h")[0])
        self.assertIn("(order)", self.check("src/engine/ffn/b.h", '#include "engine/attention/a.h"', "src/engine/attention/a.h")[0])
        self.assertIn("(order)", self.check("src/engine/ffn/b.h", '#include "engine/a.h"', "src/engine/a.h")[0])
        self.assertIn("ROOMS", self.check("src/engine/misc/b.h", '#include "engine/ffn/a.h"', "src/engine/ffn/a.h")[0])

    def test_text_knows_base_only(self):
        self.assertIn("(order)", self.check("src/text/tokenizer.h", '#include "tensor/dtype.h"', "src/tensor/dtype.h")[0])

    def test_unknown_folder_and_missing_file(self):
        self.assertIn("has no place", self.check("src/misc/a.h", '#include "base/error.h"', "src/base/error.h")[0])
        self.assertIn("(include)", self.check("src/kv/pool.h", '#include "pool_detail.h"')[0])

    def test_third_party(self):
        self.assertEqual(self.check("src/base/json.h", "#include <nlohmann/json.hpp>"), [])
        self.assertIn("alone", self.check("src/kv/pool.h", "#include <nlohmann/json.hpp>")[0])
        self.assertIn("no owner", self.check("src/kv/pool.h", "#include <zmq.hpp>")[0])
        self.assertEqual(self.check("src/kv/pool.h", "#include <vector>\n#include <sys/mman.h>"), [])

    def test_comment_is_no_include(self):
        self.assertEqual(self.check("src/kv/pool.h", "// #include <boost/asio.hpp>\n/* \n#include <boost/x.hpp>\n*/"), [])


class Documents(unittest.TestCase):
    page = {"docs/page.md": "# Page\n\n## What it's `for`\n\n```\n# no heading\n```\n"}

    def check(self, text):
        return findings(documents.check, self.page | {"README.md": text})

    def test_links(self):
        self.assertEqual(self.check("[a](docs/page.md) [b](docs/page.md#what-its-for) [c](#top) [d](https://a.example/x)\n# Top\n"), [])
        self.assertIn("README.md:2: 'docs/none.md' does not exist", self.check("\n[a](docs/none.md)")[0])
        self.assertIn("has no heading '#no-heading'", self.check("[a](docs/page.md#no-heading)")[0])

    def test_pages_that_sources_name(self):
        sources = {"src/kv/pool.h": "// docs/page.md says why, docs/gone.md said it.\n"}
        self.assertEqual(findings(documents.check, self.page | sources), ["src/kv/pool.h:1: 'docs/gone.md' does not exist (link)"])

    def test_order_of_folders(self):
        right = " → ".join("{" + ", ".join(row) + "}" if len(row) > 1 else row[0] for row in includes.ORDER)
        self.assertEqual(findings(documents.check, {"docs/architecture.md": f"# A\n\n`{right}`\n"}), [])
        self.assertIn("docs/architecture.md:1: ", findings(documents.check, {"docs/architecture.md": "`base → cli`\n"})[0])


class Mirror(unittest.TestCase):
    built = {"src/kv/CMakeLists.txt": "tandem_library(kv SOURCES pool.cpp)\n", "tests/kv/CMakeLists.txt": "pool_test.cpp all_test.cpp"}

    def test_covered(self):
        sources = {"src/kv/pool.cpp": '#include "kv/pool.h"\n', "src/kv/pool.h": ""}
        by_name = sources | {"tests/kv/pool_test.cpp": '#include "kv/pool.h"\n'}
        by_include = sources | {"tests/kv/all_test.cpp": '#include "kv/pool.h"\n'}
        self.assertEqual(findings(mirror.check, self.built | by_name), [])
        self.assertEqual(findings(mirror.check, self.built | by_include), [])

    def test_part_of_a_covered_source(self):
        files = {
            "src/kv/CMakeLists.txt": "tandem_library(kv SOURCES pool.cpp list.cpp)\n",
            "src/kv/pool.cpp": '#include "kv/pool.h"\n#include "kv/list.h"\n',
            "src/kv/pool.h": "",
            "src/kv/list.cpp": '#include "kv/list.h"\n',
            "src/kv/list.h": "",
            "tests/kv/pool_test.cpp": '#include "kv/pool.h"\n',
        }
        self.assertEqual(findings(mirror.check, self.built | files), [])
        seen_outside = {"src/sched/order.h": '#include "kv/list.h"\n', "src/sched/order.cpp": '#include "sched/order.h"\n'}
        self.assertIn("src/kv/list.cpp:1: no test", findings(mirror.check, self.built | files | seen_outside)[0])

    def test_second_source_of_a_header(self):
        files = {
            "src/kv/CMakeLists.txt": "tandem_library(kv SOURCES pool.cpp more.cpp)\n",
            "src/kv/pool.cpp": '#include "kv/pool.h"\n',
            "src/kv/more.cpp": '#include "kv/pool.h"\n',
            "src/kv/pool.h": "",
        }
        self.assertEqual(len(findings(mirror.missing_tests, files)), 2)
        tested = files | {"tests/kv/pool_test.cpp": '#include "kv/pool.h"\n'}
        self.assertEqual(findings(mirror.missing_tests, tested), [])

    def test_no_test_not_built_not_included(self):
        files = {"src/kv/CMakeLists.txt": "other_pool.cpp", "src/kv/pool.cpp": '#include "kv/pool.h"\n', "src/kv/pool.h": ""}
        found = "\n".join(findings(mirror.check, files))
        self.assertIn("no test", found)
        self.assertIn("never compiled", found)
        self.assertIn("nobody but its own", found)


class Functions(unittest.TestCase):
    limit = functions.FUNCTION_LINES_MAX

    def names(self, code):
        return [(name, begin, end) for name, begin, end in functions.functions(tree.blank(code))]

    def test_limit(self):
        self.assertEqual(findings(functions.check, {"src/a/b.cpp": function_of(self.limit)}), [])
        self.assertIn("f has 71 lines", findings(functions.check, {"src/a/b.cpp": function_of(self.limit + 1)})[0])

    def test_what_is_a_function(self):
        code = """namespace a {
struct S : Base<int> {
  S(int x) : a_{x}, b_(x) {
    if (x) { g(); }
  }
  int operator()(int x) const { return x; }
  int a_{0};
};
const int kTable[] = {1, 2};
static const char* text = "}{ f() {";
template <class T>
void h(T t)
{
  auto l = [&](int i) { return i; };
}
enum class E { kA };
}
"""
        self.assertEqual(self.names(code), [("S", 3, 5), ("operator()", 6, 6), ("h", 11, 15)])


class Text(unittest.TestCase):
    def faults(self, path, content):
        return "\n".join(findings(text.check, {path: content}))

    def test_clean(self):
        self.assertEqual(self.faults("src/a/b.h", LICENCE + "// " + "TO" "DO(#12): later\n"), "")

    def test_faults(self):
        self.assertIn("(licence)", self.faults("src/a/b.h", "int x;\n"))
        self.assertIn("(open end)", self.faults("src/a/b.h", LICENCE + "// " + "TO" "DO: later\n"))
        self.assertIn("(machine)", self.faults("src/a/b.h", LICENCE + "// see /" "home/me/notes\n"))
        self.assertIn("(machine)", self.faults("src/a/b.h", LICENCE + "// from crates" ".io\n"))
        self.assertIn("(size)", self.faults("src/a/b.h", LICENCE + "\n" * 800))
        self.assertIn("(cuda)", self.faults("src/a/b.h", LICENCE + "__global__ void k();\n"))

    def test_a_rust_test_that_is_never_run(self):
        self.assertIn("(rust test)", self.faults("rust/text/src/a.rs", LICENCE + "#[test]\nfn f() {}\n"))
        self.assertEqual(self.faults("rust/header/tests/a.rs", LICENCE + "#[test]\nfn f() {}\n"), "")


class Headers(unittest.TestCase):
    def test_compiles_alone(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "src/a").mkdir(parents=True)
            (root / "src/a/good.h").write_text("#pragma once\n#include <vector>\ninline std::vector<int> v;\n")
            (root / "src/a/bad.h").write_text("#pragma once\ninline std::vector<int> v;\n")
            (root / "src/a/x.cpp").write_text("")
            entry = f'{{"directory": "{root}", "file": "{root}/src/a/x.cpp", "command": "c++ -std=c++20 -o x.o -c x.cpp"}}'
            (root / "compile_commands.json").write_text(f"[{entry}]")
            found = headers.check(tree.Tree(root), root)
        self.assertEqual(len(found), 1, found)
        self.assertIn("src/a/bad.h:1: does not compile alone", found[0])


if __name__ == "__main__":
    unittest.main()
