# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""What is done to a fleet under load, one function for each fault: it returns when its part is over, with all processes
started again."""
import contextlib
import itertools
import signal
import threading
import time

STOPPED_S = 10
SLOW_RUNS_S, SLOW_STOPS_S = 0.002, 0.028  # a worker at a fifteenth of its speed


def an_attention_worker(fleet, round_number):
    return round_number % fleet.options.attention


def an_ffn_worker(fleet, round_number):
    return fleet.running_in(fleet.options.attention + round_number % fleet.options.ffn)


def kill(*choices):
    """Kills the workers that are chosen for the round at once, and starts them again."""

    def inject(fleet, round_number):
        ranks = [choose(fleet, round_number) for choose in choices]
        fleet.kill(*ranks)
        for rank in ranks:
            fleet.start_worker(rank)

    return inject


def a_worker(fleet, round_number):
    return fleet.running_in(round_number % (fleet.options.attention + fleet.options.ffn))


def stop_worker(fleet, round_number):
    rank = a_worker(fleet, round_number)
    fleet.signal(rank, signal.SIGSTOP)
    time.sleep(STOPPED_S)
    fleet.signal(rank, signal.SIGCONT)


@contextlib.contextmanager
def slowed(fleet, rank):
    """The worker is stopped and let on many times a second."""
    over = threading.Event()

    def cycle():
        while not over.wait(SLOW_RUNS_S):
            fleet.signal(rank, signal.SIGSTOP)
            over.wait(SLOW_STOPS_S)
            fleet.signal(rank, signal.SIGCONT)

    thread = threading.Thread(target=cycle)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def slow_ffn_worker(fleet, round_number):
    """An FFN worker gets so little time that the front finds it slow, and gives its seat to a replica."""
    rank = an_ffn_worker(fleet, round_number)
    with slowed(fleet, rank):
        fleet.wait_aside(rank)
    fleet.order("add", rank)


def restart_workers(fleet, round_number):
    """One after the other, in another order each round; each is there again before the next one goes."""
    orders = list(itertools.permutations(range(fleet.workers)))
    for rank in orders[round_number % len(orders)]:
        fleet.terminate(rank)
        fleet.start_worker(rank)
        fleet.wait_whole()


def drain(fleet, round_number):
    """An attention worker gives its streams to the others, and is added again."""
    rank = an_attention_worker(fleet, round_number)
    fleet.order("drain", rank)
    fleet.order("add", rank)


def partition(fleet, round_number):
    """A worker's network is away for longer than link.lost_after_ms, and comes back."""
    rank = a_worker(fleet, round_number)
    fleet.namespaces.cut(rank, True)
    time.sleep(2.5 * fleet.options.lost_after_ms / 1000)
    fleet.namespaces.cut(rank, False)


def restart_front(fleet, round_number):
    """Killed with its clients, and started again: workers wait for it."""
    del round_number
    fleet.kill("front")
    fleet.start_front()


# name → what is done, whether streams have to end with an error (their server is gone), whether it needs namespaces.
# slow needs a replica of every FFN worker.
FAULTS = {
    "kill-ffn": (kill(an_ffn_worker), False, False),
    "kill-attention": (kill(an_attention_worker), False, False),
    "kill-both": (kill(an_attention_worker, an_ffn_worker), False, False),
    "stop": (stop_worker, False, False),
    "slow": (slow_ffn_worker, False, False),
    "restart": (restart_workers, False, False),
    "drain": (drain, False, False),
    "front": (restart_front, True, False),
    "partition": (partition, False, True),
}
