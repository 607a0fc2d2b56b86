# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""Clients that stream answers one after the other, and remember when each token came."""
import http.client
import json
import threading
import time


class Answer:
    """What one request got. text and tokens are what has come, whole says that nothing is missing at the end."""

    def __init__(self, number):
        self.number = number
        self.text, self.tokens, self.finish, self.error = "", 0, "", ""
        self.times = [time.monotonic()]  # of the request, then of every event with text, then of the end
        self.ended = 0.0

    @property
    def whole(self):
        return not self.error and self.finish == "length"

    def pause(self, since):
        """The longest time without a token that was not over at `since`, in seconds; None: it had ended before."""
        if self.ended < since:
            return None
        gaps = [later - earlier for earlier, later in zip(self.times, self.times[1:]) if later >= since]
        return max(gaps, default=0.0)


def request_of(number, tokens):
    """The number-th request of a round: prompts of different lengths, greedy and drawn ones in turn."""
    words = ["river", "stone", "seven", "lamp", "north", "paper", "cloud", "green"]
    prompt = " ".join(words[(number * 5 + i * 3) % len(words)] for i in range(4 + number % 13))
    return {
        "prompt": f"{number}: {prompt}",
        "max_tokens": tokens,
        "temperature": 0 if number % 2 else 0.9,
        "seed": 1000 + number,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def stream(host, port, number, tokens, timeout_s):
    answer = Answer(number)
    try:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        headers = {"Content-Type": "application/json", "Connection": "close"}
        connection.request("POST", "/v1/completions", json.dumps(request_of(number, tokens)), headers)
        read_answer(connection.getresponse(), answer)
    except (OSError, http.client.HTTPException) as error:
        answer.error = f"{type(error).__name__}: {error}"
    answer.ended = time.monotonic()
    answer.times.append(answer.ended)
    return answer


def read_answer(response, answer):
    if response.status != 200:
        answer.error = f"status {response.status}: {response.read(500).decode(errors='replace')}"
        return
    done = False
    while line := response.readline():
        if not line.startswith(b"data: "):
            continue
        data = line[len(b"data: "):].strip()
        done = done or data == b"[DONE]"
        if not done:
            take_event(json.loads(data), answer)
    if not done and not answer.error:
        answer.error = "the stream ended before [DONE]"


def take_event(event, answer):
    if "error" in event:
        answer.error = event["error"].get("message", "an error without a message")
        return
    for choice in event.get("choices", []):
        answer.finish = choice.get("finish_reason") or answer.finish
        if choice.get("text"):
            answer.text += choice["text"]
            answer.times.append(time.monotonic())
    if event.get("usage"):
        answer.tokens = event["usage"]["completion_tokens"]


class Load:
    """`count` clients; each asks for its own request again and again until finish(), or once, and ends what it has begun."""

    def __init__(self, host, port, count, tokens, timeout_s, once=False):
        self.answers = []
        self._arguments = (host, port, tokens, timeout_s)
        self._stop = threading.Event()
        if once:
            self._stop.set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, number):
        host, port, tokens, timeout_s = self._arguments
        while True:
            answer = stream(host, port, number, tokens, timeout_s)
            with self._lock:
                self.answers.append(answer)
            if self._stop.is_set() or answer.error:
                return

    def finish(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.answers
