# SPDX-FileCopyrightText: The Tandem authors
# SPDX-License-Identifier: Apache-2.0
"""A deployment whose processes can be killed, stopped and started one by one; on loopback, or each in a network
namespace of its own."""
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import time

READY_S = 120


def free_ports(count):
    """To listen on: below those that connections take by themselves."""
    ports = []
    for port in random.sample(range(20000, 32000), 12000):
        if len(ports) == count:
            return ports
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
                ports.append(port)
            except OSError:
                continue
    raise RuntimeError("no free port from 20000 to 31999")


class Namespaces:
    """One network namespace for each worker, joined by a bridge; needs root and ip(8)."""

    SUBNET = "10.213.77"

    def __init__(self, count):
        self.tag = f"td{os.getpid() % 100000}"
        self.count = count
        self.bridge = f"{self.tag}b"
        self.made = []
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def why_not():
        """Why there can be none here; empty: there can."""
        if os.geteuid() != 0:
            return "network namespaces need root"
        if not shutil.which("ip"):
            return "there is no ip(8) (package iproute2)"
        name = f"td{os.getpid() % 100000}t"
        tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
        if tried.returncode != 0:
            return f"ip netns add: {tried.stderr.strip()}"
        subprocess.run(["ip", "netns", "del", name], check=True)
        return ""

    def _ip(self, *arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)

    def _make(self):
        self._ip("link", "add", self.bridge, "type", "bridge")
        self._ip("addr", "add", f"{self.SUBNET}.1/24", "dev", self.bridge)
        self._ip("link", "set", self.bridge, "up")
        for rank in range(self.count):
            inside = self.name(rank)
            self._ip("netns", "add", inside)
            self.made.append(inside)
            self._ip("link", "add", self.link(rank), "type", "veth", "peer", "name", "eth0", "netns", inside)
            self._ip("link", "set", self.link(rank), "master", self.bridge, "up")
            self._ip("-n", inside, "addr", "add", f"{self.host(rank)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                self._ip("-n", inside, "link", "set", device, "up")

    def name(self, rank):
        return f"{self.tag}n{rank}"

    def link(self, rank):
        return f"{self.tag}v{rank}"

    def host(self, rank):
        return f"{self.SUBNET}.{rank + 10}"

    def cut(self, rank, away):
        self._ip("link", "set", self.link(rank), "down" if away else "up")

    def close(self):
        for name in self.made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True)


def layout_of(options):
    replicas = f" with {options.replicas} replicas" if options.replicas else ""
    return f"{options.attention}A{options.ffn}F{replicas}"


def name_of(options, key):
    if key == "front":
        return "front"
    if key < options.attention:
        return f"A{key}"
    number = key - options.attention
    return f"F{number % options.ffn}" + (f"r{number // options.ffn}" if number >= options.ffn else "")


class Fleet:
    def __init__(self, options, folder, namespaces=None):
        self.options, self.folder, self.namespaces = options, pathlib.Path(folder), namespaces
        self.workers = options.attention + options.ffn + options.replicas
        self.processes = {}
        self.secret = None
        ports = free_ports(self.workers + 2)
        self.front_host = f"{Namespaces.SUBNET}.1" if namespaces else "127.0.0.1"
        self.front_port, self.control_port = ports[-2:]
        self.file = self.folder / "fleet.toml"
        if namespaces:
            self.secret = self.folder / "secret"
            subprocess.run([options.program, "keys", "secret", self.secret], check=True, capture_output=True)
        self.file.write_text(self._toml(ports))

    def _toml(self, ports):
        o = self.options
        lines = ["version = 1", 'name = "faults"', f'model = "{o.model}"', "[engine]", 'device = "cpu"', "micro_batches = 2",
                 "sequences_max = 64", f"kv_tokens = {o.kv_tokens}", "context_tokens_max = 2048", "[split]", f"experts = {o.ffn}",
                 "[link]", f"heartbeat_ms = {o.heartbeat_ms}", f"lost_after_ms = {o.lost_after_ms}", f"repair_ms_max = {o.repair_ms_max}",
                 f"replace_slow = {'true' if o.replicas else 'false'}"]
        if self.namespaces:
            lines += ['ucx_transports = "tcp"', "[trust]", f'secret_file = "{self.secret}"']
        lines += ["[front]", f'host = "{self.front_host}"', f"port = {self.front_port}", f"control_port = {self.control_port}"]
        for rank in range(self.workers):
            host = self.namespaces.host(rank) if self.namespaces else "127.0.0.1"
            lines += ["[[attention]]" if rank < o.attention else "[[ffn]]", f"rank = {rank}", f'host = "{host}"', f"port = {ports[rank]}"]
            if rank >= o.attention + o.ffn:
                lines.append(f"replica_of = {o.attention + (rank - o.attention) % o.ffn}")
            if self.namespaces:
                lines.append('network_devices = ["eth0"]')
        return "\n".join(lines) + "\n"

    # ---- processes

    def _spawn(self, key, command):
        with open(self.folder / f"{key}.log", "ab") as log:
            self.processes[key] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def start_worker(self, rank):
        role = "attention" if rank < self.options.attention else "ffn"
        inside = ["ip", "netns", "exec", self.namespaces.name(rank)] if self.namespaces else []
        self._spawn(rank, [*inside, self.options.program, role, str(self.file), "--rank", str(rank)])

    def start_front(self):
        self._spawn("front", [self.options.program, "serve", str(self.file), "--no-auth"])

    def start(self):
        for rank in range(self.workers):
            self.start_worker(rank)
        self.start_front()
        self.wait_serving()

    def signal(self, key, number):
        self.processes[key].send_signal(number)

    def kill(self, *keys):
        """Of all at once; reaped when it returns."""
        for key in keys:
            self.signal(key, signal.SIGKILL)
        for key in keys:
            self.processes[key].wait()

    def terminate(self, key):
        self.signal(key, signal.SIGTERM)
        self.processes[key].wait(timeout=READY_S)

    def close(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()

    def memory_kib(self):
        """Of each process, without what files give it."""
        def of(process):
            lines = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
        return {key: of(process) for key, process in self.processes.items()}

    # ---- what it says of itself

    def wait_serving(self):
        self._wait_for("the server", self._connects)

    def _connects(self):
        if self.processes["front"].poll() is not None:
            raise RuntimeError(f"the front has ended: {self.tail('front')}")
        try:
            socket.create_connection((self.front_host, self.front_port), timeout=1).close()
            return True
        except OSError:
            return False

    def status(self):
        asked = subprocess.run([self.options.program, "ctl", "status", str(self.file), "--json", "--seconds", "5"], capture_output=True, text=True)
        return json.loads(asked.stdout) if asked.returncode == 0 else None

    def order(self, verb, rank):
        """Returns when it is done."""
        subprocess.run([self.options.program, "ctl", verb, str(self.file), str(rank)], check=True, capture_output=True)

    def epoch(self):
        return (self.status() or {}).get("epoch", 0)

    def running_in(self, seat):
        """The rank of who has the seat now: an FFN worker's rank, or that of a replica of it."""
        workers = (self.status() or {}).get("workers", [])
        return next((worker["rank"] for worker in workers
                     if worker.get("replica_of", worker["rank"]) == seat and worker["state"] == "running"), seat)

    def wait_aside(self, rank):
        def is_aside():
            return any(worker["rank"] == rank and worker["state"] == "aside" for worker in (self.status() or {}).get("workers", []))
        self._wait_for(f"rank {rank} to be found slow", is_aside)

    def is_whole(self, after):
        status = self.status()
        return (bool(status) and status["phase"] == "running" and status["epoch"] > after
                and all(worker["state"] in ("running", "standby") and worker["process"] == self.processes[worker["rank"]].pid
                        for worker in status["workers"]))

    def wait_whole(self, after=0):
        """Until all workers run together, or stand by, in an epoch after this one."""
        self._wait_for("all workers", lambda: self.is_whole(after))

    def _wait_for(self, what, true):
        end = time.monotonic() + READY_S
        while not true():
            if time.monotonic() > end:
                raise RuntimeError(f"{what}: not there after {READY_S} s; {self.status()}")
            time.sleep(0.05)

    def tail(self, key):
        return " / ".join((self.folder / f"{key}.log").read_text(errors="replace").splitlines()[-4:])
