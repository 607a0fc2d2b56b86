# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""The program `tandem serve` as a test starts it: on a free port, with a tiny model."""
import json
import os
import pathlib
import re
import signal
import subprocess
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests/goldens/llama"
PROGRAM = os.environ["TANDEM_PROGRAM"]


def clean_environment(**more):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TANDEM_")}
    return {**kept, **more}


def run(*arguments, **environment):
    """Runs to its end, which must come by itself."""
    return subprocess.run([PROGRAM, "serve", *map(str, arguments)], env=clean_environment(**environment), text=True,
                          capture_output=True, timeout=60)


class Server:
    def __init__(self, *arguments, model=MODEL, **environment):
        command = [PROGRAM, "serve", "--threads", "1", *map(str, arguments)]
        if model:
            command += ["--model", str(model)]
        environment.setdefault("TANDEM_PORT", "0")
        self.process = subprocess.Popen(command, env=clean_environment(**environment), stderr=subprocess.PIPE, text=True)
        self.lines = []
        for line in self.process.stderr:
            self.lines.append(line)
            found = re.match(r"serving +(\S+) at (https?://\S+:\d+)/v1", line)
            if found:
                self.model, self.url = found.groups()
                return
        raise AssertionError("the server did not start: " + "".join(self.lines))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def request(self, path, body=None, headers=None, timeout=30, context=None):
        """Status and JSON (or text) of an answer."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        try:
            return status, json.loads(text)
        except json.JSONDecodeError:
            return status, text
