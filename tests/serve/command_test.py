# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""tandem serve as a program: its command line, environment, TOML file, signals, TLS, and curl as the client."""
import http.client
import json
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import unittest

from program import MODEL, Server, run


class Folder(unittest.TestCase):
    def setUp(self):
        kept = tempfile.TemporaryDirectory()
        self.addCleanup(kept.cleanup)
        self.folder = pathlib.Path(kept.name)

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path


class Settings(Folder):
    def test_file_variable_and_flag(self):
        config = self.write("tandem.toml", f'model = "{MODEL}"\nmodel-name = "of-file"\nmessages-max = 1\nport = 0\nqueue-max = 7\n')
        two = {"messages": [{"role": "user", "content": "a"}] * 2}
        with Server("--config", config, model=None) as server:
            self.assertEqual(server.model, "of-file")
            self.assertIn("--messages-max", server.request("/v1/chat/completions", two)[1]["error"]["message"])
            self.assertIn("queue 7", "".join(server.lines))
        with Server(model=None, TANDEM_CONFIG=str(config), TANDEM_MODEL_NAME="of-variable") as server:
            self.assertEqual(server.model, "of-variable")
        with Server("--config", config, "--model-name", "of-flag", model=None, TANDEM_MODEL_NAME="of-variable") as server:
            self.assertEqual(server.model, "of-flag")

    def test_what_is_wrong_is_named(self):
        cases = (
            (["--no-such-flag"], {}, "no-such-flag"),
            (["--port", "65536"], {}, "65536"),
            (["--port", "x"], {}, "x"),
            ([], {"TANDEM_PORT": "-1"}, "-1"),
            (["--config", self.write("bad.toml", "no-such-key = 1\n")], {}, "no-such-key"),
            (["--config", self.folder / "none.toml"], {}, "none.toml"),
            (["--host", "0.0.0.0"], {}, "--no-auth"),
            (["--host", "example"], {}, "--host"),
            (["--api-key", "short"], {}, "bytes"),
            (["--tls-key", "key.pem"], {}, "--tls-certificate"),
            (["--tls-certificate", self.folder / "none.pem", "--tls-key", self.folder / "none.pem"], {}, "none.pem"),
            (["--log-file", "/no/such/folder/log"], {}, "/no/such/folder/log"),
        )
        for arguments, environment, expected in cases:
            ended = run("--model", MODEL, *arguments, **environment)
            self.assertIn(ended.returncode, (1, 2), expected)
            self.assertIn(expected, ended.stderr)

    def test_a_taken_port(self):
        with Server() as server:
            ended = run("--model", MODEL, "--port", server.url.rsplit(":", 1)[1])
            self.assertEqual(ended.returncode, 1)
            self.assertIn("already in use", ended.stderr)
            self.assertEqual(server.request("/health")[0], 200)

    def test_keys_of_the_environment(self):
        with Server(TANDEM_API_KEY="first-key-1,second-key-2") as server:
            for key, status in (("first-key-1", 200), ("second-key-2", 200), ("third-key-3", 401)):
                self.assertEqual(server.request("/v1/models", headers={"Authorization": f"Bearer {key}"})[0], status)


class Signals(Folder):
    LONG = {"prompt": "Hi", "max_tokens": 480, "ignore_eos": True, "stream": True, "n": 16}

    def open_stream(self, server):
        connection = http.client.HTTPConnection(server.url.split("//")[1], timeout=30)
        connection.request("POST", "/v1/completions", json.dumps(self.LONG))
        return connection, connection.getresponse()

    def test_the_first_drains_and_the_program_ends_well(self):
        with Server() as server:
            connection, answer = self.open_stream(server)
            first = answer.read(1)
            server.signal()
            text = first + answer.read()
            self.assertTrue(text.endswith(b"data: [DONE]\n\n"))
            self.assertEqual(text.count(b'"finish_reason":"length"'), 16)
            connection.close()
            self.assertEqual(server.process.wait(timeout=20), 0)

    def test_a_second_one_leaves_at_once(self):
        with Server("--sequences-max", "1", "--context-tokens-max", "512", "--layout", "1A1F") as server:
            connection, answer = self.open_stream(server)
            answer.read(1)
            server.signal(signal.SIGINT)
            time.sleep(0.05)
            if server.process.poll() is None:
                server.signal(signal.SIGINT)
            begin = time.monotonic()
            self.assertIn(server.process.wait(timeout=5), (0, 130))
            self.assertLess(time.monotonic() - begin, 2)
            connection.close()


class Tls(Folder):
    @unittest.skipUnless(shutil.which("openssl"), "no openssl program to make a certificate with")
    def test_https(self):
        certificate, key = self.folder / "cert.pem", self.folder / "key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
        trust = ssl.create_default_context(cafile=certificate)
        with Server("--tls-certificate", certificate, "--tls-key", key) as server:
            self.assertTrue(server.url.startswith("https://"))
            for _ in range(3):
                status, body = server.request("/v1/completions", {"prompt": "Hi", "max_tokens": 4}, context=trust)
                self.assertEqual(status, 200)
            status, text = server.request("/v1/completions", {"prompt": "Hi", "max_tokens": 40, "stream": True}, context=trust)
            self.assertTrue(text.endswith("data: [DONE]\n\n"))
            old = ssl.create_default_context(cafile=certificate)
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
            self.assertEqual(server.request("/health", context=old)[0], 200)
            with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as plain:
                plain.sendall(b"GET /health HTTP/1.1\r\n\r\n")
                plain.settimeout(10)
                self.assertNotIn(b"200", plain.recv(100))
            self.assertEqual(server.request("/health", context=trust)[0], 200)


@unittest.skipUnless(shutil.which("curl"), "no curl")
class Curl(Folder):
    def curl(self, server, path, *arguments):
        ended = subprocess.run(["curl", "-sS", "-w", "\n%{http_code}", "-m", "20", server.url + path, *arguments], text=True, capture_output=True)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        body, _, status = ended.stdout.rpartition("\n")
        return int(status), body

    def test_transcripts(self):
        with Server() as server:
            status, body = self.curl(server, "/v1/models")
            self.assertEqual((status, json.loads(body)["data"][0]["id"]), (200, "llama"))
            chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "temperature": 0, "ignore_eos": True}
            status, body = self.curl(server, "/v1/chat/completions", "-d", json.dumps(chat))
            whole = json.loads(body)["choices"][0]["message"]["content"]
            self.assertEqual(status, 200)
            status, body = self.curl(server, "/v1/chat/completions", "-N", "-d", json.dumps({**chat, "stream": True}))
            events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
            self.assertEqual("".join(e["choices"][0]["delta"].get("content", "") for e in events), whole)
            self.assertIn("data: [DONE]", body)
            status, body = self.curl(server, "/v1/chat/completions", "-d", "{")
            self.assertEqual((status, json.loads(body)["error"]["code"]), (400, "invalid_json"))

    def test_a_body_of_a_gigabyte(self):
        big = self.folder / "big"
        with open(big, "wb") as file:
            file.truncate(1 << 30)  # a hole: no disk is used
        with Server() as server:
            status, body = self.curl(server, "/v1/chat/completions", "-H", "Expect:", "-T", str(big), "-X", "POST")
            self.assertEqual((status, json.loads(body)["error"]["type"]), (413, "invalid_request_error"))
            self.assertEqual(self.curl(server, "/health")[0], 200)


if __name__ == "__main__":
    unittest.main()
