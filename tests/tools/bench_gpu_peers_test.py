#!/usr/bin/python3
# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""What tools/bench-gpu-peers makes of values, of tandem's lines, and of what is not there; no GPU is needed."""
import importlib.machinery
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

sys.dont_write_bytecode = True
TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools/bench-gpu-peers"
loader = importlib.machinery.SourceFileLoader("bench_gpu_peers", str(TOOL))
peers = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(peers)

LIMITS = {"gpu": "a GPU", "clock_mhz": 1980, "read_bytes_per_second": 4e12}
PROJECTIONS = peers.SUMS["these three together"]


def value(work, engine, microseconds, error=1e-3):
    return {"work": work, "engine": engine, "microseconds": microseconds, "bytes": 2e6 * microseconds, "error": error}  # at 2 TB/s


def row(rows, work, engine):
    return next(row for row in rows if (row["work"], row["engine"]) == (work, engine))


class Rows(unittest.TestCase):
    def test_medians_of_rounds_beside_tandem(self):
        name = PROJECTIONS[0]
        lines = [value(name, "tandem", us) for us in (10, 14, 11)] + [value(name, "bf16, cuBLAS", us, us * 1e-4) for us in (22, 20, 40)]
        limits, rows = peers.rows_of([name], [LIMITS, *lines, {"work": name, "engine": "FP8, one scale", "missing": "no kernel"}])
        self.assertEqual(limits, LIMITS)
        self.assertEqual([row["engine"] for row in rows], ["tandem", "bf16, cuBLAS", "FP8, one scale"])
        self.assertEqual(row(rows, name, "tandem")["microseconds"], 11)
        self.assertEqual(row(rows, name, "bf16, cuBLAS")["times_tandem"], 2)
        self.assertEqual(row(rows, name, "bf16, cuBLAS")["relative_error"], 4e-3)
        self.assertEqual(row(rows, name, "tandem")["fraction_of_bandwidth"], 10 * 2e6 / 11 * 1e6 / 4e12)
        self.assertEqual(row(rows, name, "FP8, one scale")["missing"], "no kernel")

    def test_a_value_of_a_later_run_takes_a_reason_s_place(self):
        name = PROJECTIONS[0]
        _, rows = peers.rows_of([name], [{"work": name, "engine": "tandem", "missing": "not built"}, value(name, "tandem", 7)])
        self.assertEqual([row["microseconds"] for row in rows], [7])

    def test_sums_are_of_whom_all_parts_are_known(self):
        def sums(names):
            return [row for row in peers.rows_of(names, [LIMITS, *lines])[1] if row["work"] == "these three together"]
        lines = [value(name, "tandem", at + 1) for at, name in enumerate(PROJECTIONS)]
        lines += [value(name, "bf16, cuBLAS", 4, 10 ** -at) for at, name in enumerate(PROJECTIONS)]
        lines += [value(name, "bf16, cuBLASLt", 4) for name in PROJECTIONS[1:]]
        rows = sums(PROJECTIONS)
        self.assertEqual([(row["engine"], row["microseconds"], row["times_tandem"]) for row in rows], [("tandem", 6, 1), ("bf16, cuBLAS", 12, 2)])
        self.assertEqual(rows[1]["relative_error"], 1)
        self.assertEqual(sums(PROJECTIONS[:2]), [])

    def test_without_tandem_there_is_no_ratio(self):
        name = PROJECTIONS[0]
        limits, rows = peers.rows_of([name], [value(name, "bf16, cuBLAS", 20), {"work": name, "engine": "tandem", "missing": "not built"}])
        self.assertIsNone(row(rows, name, "bf16, cuBLAS")["times_tandem"])
        self.assertEqual(peers.table(limits, rows).splitlines()[2:], [
            f"| {name} | tandem | none: not built |  |  |  |  |", "|  | bf16, cuBLAS | 20.0 | 2.00 |  | 1.0e-03 |  |"])

    def test_every_piece_of_work_has_a_peer(self):
        self.assertTrue(all(work.peers for work in peers.WORK.values()))
        self.assertLessEqual({name for parts in peers.SUMS.values() for name in parts}, set(peers.WORK))


class Ours(unittest.TestCase):
    def measured(self, script, kernel="fp8-o", shape="128"):
        with tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(folder) / "tandem"
            program.write_text("#!/bin/sh\n" + script)
            program.chmod(0o755)
            tandem = peers.Tandem(program, 7)
            return tandem.measure(kernel, shape), tandem.limits

    def test_the_row_of_kernel_and_shape_is_taken(self):
        lines = [LIMITS, *({"kernel": kernel, "shape": shape, "microseconds": us, "bytes": 5, "relative_error": .5}
                           for kernel, shape, us in (("fp8-o", "1280", 1), ("x-fp8-o", "128", 2), ("fp8-o", "128", 3)))]
        script = f"cat <<'end'\n{chr(10).join(map(json.dumps, lines))}\nend\n[ \"$*\" = 'bench kernels --device cuda --json --samples 7 --only fp8-o 128' ]"
        self.assertEqual(self.measured(script), ((3, 5, .5), LIMITS))

    def test_what_is_missing_is_named(self):
        for script, why in (("echo first >&2; echo no GPU >&2; exit 1", "no GPU"), ("exit 1", "no message"), ("true", "no row 'fp8-o 128'")):
            with self.assertRaisesRegex(peers.Missing, why):
                self.measured(script)
        with self.assertRaisesRegex(peers.Missing, "not built"):
            peers.Tandem(pathlib.Path("there/is/no/tandem"), 1).measure("fp8-o", "128")


class Theirs(unittest.TestCase):
    def setUp(self):
        peers.torch_on_a_gpu.cache_clear()

    def test_without_pytorch_a_reason(self):
        with unittest.mock.patch.dict(sys.modules, {"torch": None}), self.assertRaisesRegex(peers.Missing, "no PyTorch"):
            peers.measure_peer(peers.bf16_product("cublas", 1, 128, 128), 1)

    def test_without_a_gpu_a_reason(self):
        torch = unittest.mock.Mock()
        torch.cuda.is_available.return_value = False
        with unittest.mock.patch.dict(sys.modules, {"torch": torch}), self.assertRaisesRegex(peers.Missing, "no GPU"):
            peers.measure_peer(peers.bf16_product("cublas", 1, 128, 128), 1)

    def test_what_torch_refuses_is_a_reason(self):
        def make(_):
            raise RuntimeError("No kernel\n  for a | b")
        torch = unittest.mock.Mock()
        with unittest.mock.patch.dict(sys.modules, {"torch": torch}), self.assertRaisesRegex(peers.Missing, "^No kernel for a / b$"):
            peers.measure_peer(make, 1)

    def test_why_an_attention_kernel_was_not_taken(self):
        notes = ["Flash kernel not used because:", "Flash wants 256 at most", "cuDNN has been runtime disabled."]
        self.assertEqual(peers.refusal("No available kernel.", notes), "No available kernel. Flash wants 256 at most")

    def test_everybody_goes_first_once(self):
        tandem, work = peers.Tandem(pathlib.Path("tandem"), 1), next(work for work in peers.WORK.values() if work.ours)
        orders = [[name for name, _ in peers.engines_of(work, tandem, turn)] for turn in range(1 + len(work.peers))]
        self.assertEqual({order[0] for order in orders}, {"tandem", *work.peers})


class CommandLine(unittest.TestCase):
    def call(self, *words):
        return subprocess.run([sys.executable, TOOL, *words], text=True, capture_output=True)

    def test_values_are_kept_and_shown_again(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "values.jsonl"
            first = self.call("--only", PROJECTIONS[0], "--rounds", "1", "--tandem", "there/is/no/tandem", "--values", file)
            self.assertIn("none: tandem is not built for CUDA", first.stdout)
            with file.open("a") as lines:
                print(json.dumps(LIMITS), json.dumps(value(PROJECTIONS[0], "tandem", 10)), sep="\n", file=lines)
            again = ["--only", PROJECTIONS[0], "--rounds", "0", "--values", file]
            text, lines = self.call(*again).stdout, self.call(*again, "--json").stdout.splitlines()
        self.assertTrue(text.startswith("a GPU, up to 1980 MHz: reads 4.00 TB/s\n"))
        self.assertIn(f"\n| {PROJECTIONS[0]} | tandem | 10.0 | 2.00 | 50 % | 1.0e-03 |  |\n", text)
        self.assertEqual(json.loads(lines[0]), LIMITS)
        self.assertEqual((json.loads(lines[1])["microseconds"], json.loads(lines[1])["fraction_of_bandwidth"]), (10, .5))

    def test_what_cannot_be(self):
        for words in (["--only", "there is no such work"], ["--rounds", "-1"], ["--samples", "0"]):
            self.assertEqual(self.call(*words).returncode, 2, words)

    def test_nothing_installed_is_a_table_of_reasons(self):
        run = self.call("--only", PROJECTIONS[0], "--rounds", "1", "--tandem", "there/is/no/tandem")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn(f"| {PROJECTIONS[0]} | tandem | none: tandem is not built for CUDA", run.stdout)


if __name__ == "__main__":
    unittest.main()
