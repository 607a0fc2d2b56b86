# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""The official openai Python client against the server. tools/fetch-openai-client installs it; without it this test is
skipped, which it says."""
import os
import sys
import time
import unittest

CLIENT = os.environ.get("TANDEM_OPENAI_CLIENT", "")
if not os.path.isdir(os.path.join(CLIENT, "openai")):
    print("the openai Python client is not installed (tools/fetch-openai-client)")
    sys.exit(77)
sys.path.insert(0, CLIENT)  # before this folder, which has an openai of its own
import openai

from program import Server

KEY = "a-key-of-the-tests"
HELLO = [{"role": "user", "content": "Hello"}]


class Client(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--api-key", KEY)
        cls.addClassCleanup(cls.server.__exit__)
        cls.client = openai.OpenAI(base_url=cls.server.url + "/v1", api_key=KEY, max_retries=0, timeout=60)

    def chat(self, **options):
        return self.client.chat.completions.create(model="llama", messages=HELLO, **options)

    def metric(self, name):
        text = self.server.request("/metrics", headers={"Authorization": f"Bearer {KEY}"})[1]
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))

    def test_models(self):
        self.assertEqual([m.id for m in self.client.models.list()], ["llama"])
        self.assertEqual(self.client.models.retrieve("llama").owned_by, "tandem")

    def test_chat_and_usage(self):
        answer = self.chat(max_tokens=7, temperature=0, extra_body={"ignore_eos": True})
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(answer.usage.completion_tokens, 7)
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + 7)
        self.assertEqual(answer.choices[0].message.role, "assistant")
        again = self.client.chat.completions.create(model="llama", max_completion_tokens=7, temperature=0, messages=[
            {"role": "system", "content": "Be kind."}, {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
            {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"}])
        self.assertGreater(again.usage.prompt_tokens, answer.usage.prompt_tokens)

    def test_streaming(self):
        options = {"max_tokens": 40, "temperature": 0, "extra_body": {"ignore_eos": True}}
        whole = self.chat(**options)
        text, reasons, usage = "", [], None
        for chunk in self.chat(stream=True, stream_options={"include_usage": True}, **options):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reasons += [choice.finish_reason] if choice.finish_reason else []
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(reasons, ["length"])
        self.assertEqual(usage.completion_tokens, 40)

    def test_the_clients_own_stream_reader(self):
        with self.client.chat.completions.stream(model="llama", messages=HELLO, max_tokens=10, temperature=0) as stream:
            stream.until_done()
            final = stream.current_completion_snapshot
        self.assertIn(final.choices[0].finish_reason, ("stop", "length"))
        self.assertEqual(final.choices[0].message.role, "assistant")

    def test_log_probabilities(self):
        answer = self.chat(max_tokens=4, logprobs=True, top_logprobs=2, extra_body={"ignore_eos": True})
        content = answer.choices[0].logprobs.content
        self.assertEqual(len(content), 4)
        for token in content:
            self.assertEqual(len(token.top_logprobs), 2)
            self.assertLessEqual(token.logprob, 0)
        text = self.client.completions.create(model="llama", prompt="Hi", max_tokens=4, logprobs=1, extra_body={"ignore_eos": True})
        self.assertEqual(len(text.choices[0].logprobs.token_logprobs), 4)

    def test_several_choices(self):
        answer = self.chat(n=4, max_tokens=10, temperature=2, seed=3, extra_body={"ignore_eos": True})
        self.assertEqual([c.index for c in answer.choices], [0, 1, 2, 3])
        self.assertGreater(len({c.message.content for c in answer.choices}), 1)
        again = self.chat(n=4, max_tokens=10, temperature=2, seed=3, extra_body={"ignore_eos": True})
        self.assertEqual([c.message.content for c in answer.choices], [c.message.content for c in again.choices])

    def test_stop_strings(self):
        options = {"model": "llama", "prompt": "Hello", "max_tokens": 60, "temperature": 0, "extra_body": {"ignore_eos": True}}
        text = self.client.completions.create(**options).choices[0].text
        plain = [i for i in range(4, len(text) - 3) if "\ufffd" not in text[i:i + 3]]
        stop = text[plain[0]:plain[0] + 3]
        stopped = self.client.completions.create(stop=[stop], **options).choices[0]
        self.assertEqual(stopped.text, text[:text.index(stop)])
        self.assertEqual(stopped.finish_reason, "stop")

    def test_echo_and_bias(self):
        answer = self.client.completions.create(model="llama", prompt="Hello", max_tokens=3, echo=True, logit_bias={"70": 100})
        self.assertTrue(answer.choices[0].text.startswith("Hello"))

    def test_errors(self):
        with self.assertRaises(openai.NotFoundError) as raised:
            self.client.chat.completions.create(model="gpt-4", messages=HELLO)
        self.assertEqual(raised.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError) as raised:
            self.chat(temperature=3)
        self.assertEqual(raised.exception.param, "temperature")
        with self.assertRaises(openai.BadRequestError) as raised:
            self.chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])
        self.assertEqual(raised.exception.param, "tools")
        with self.assertRaises(openai.BadRequestError) as raised:
            self.chat(max_tokens=100_000)
        self.assertEqual(raised.exception.code, "context_length_exceeded")
        stranger = openai.OpenAI(base_url=self.server.url + "/v1", api_key="another-key", max_retries=0)
        with self.assertRaises(openai.AuthenticationError):
            stranger.models.list()

    def test_cancel(self):
        before = self.metric('tandem:request_success_total{finished_reason="cancelled"}')
        stream = self.client.completions.create(model="llama", prompt="Hi", max_tokens=500, n=16, stream=True, logprobs=20,
                                                extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        # Answers end at once; the engine counts what runs once a step.
        for gauge in ("tandem:answers_open", "tandem:num_requests_running"):
            end = time.monotonic() + 10
            while self.metric(gauge) > 0 and time.monotonic() < end:
                time.sleep(0.02)
            self.assertEqual(self.metric(gauge), 0, gauge)
        self.assertGreaterEqual(self.metric('tandem:request_success_total{finished_reason="cancelled"}'), before)


if __name__ == "__main__":
    unittest.main()
