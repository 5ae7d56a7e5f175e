"""A real Ray cluster on this machine: nodes that are processes, with temporary folders of their own."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
MEMORY = "--object-store-memory=100000000"

COUNT = """
import sys
import ray
ray.init(sys.argv[1], logging_level=40, log_to_driver=False)
print("alive:", sum(node["Alive"] for node in ray.nodes()))
"""


class Cluster:
    """A head node with one CPU; ``join`` adds nodes. Everything is in process groups of our own and ends with us."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="mr-", dir="/tmp"))  # paths of sockets must be short
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        # A secret of this cluster's own: nobody else on the network may run code here.
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "PYTHONPATH": str(Path(__file__).parent),  # code that jobs name must be importable on every node
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_failure_threshold": "3",
        }
        self.nodes = []

    def __enter__(self):
        try:
            client = f"--ray-client-server-port={free_port()}"
            head = ["--head", f"--port={self.port}", f"--temp-dir={self.folder}", "--include-dashboard=false", client]
            self._start(*head)
            self._wait_for(1)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def join(self):
        """One more node with one CPU; returns its process."""
        self._start(f"--address={self.address}")
        self._wait_for(sum(node.poll() is None for node in self.nodes))
        return self.nodes[-1]

    def driver(self, *arguments, **more):
        """Start a program that uses the cluster."""
        command = [sys.executable, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=self.environment, start_new_session=True, **pipes, **more)

    def cache(self, node):
        """Where that node keeps what was sent to it."""
        return self.folder / f"node{self.nodes.index(node)}" / f"minutia-ray-{os.getuid()}"

    def close(self):
        for node in self.nodes:
            kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, *arguments):
        folder = self.folder / f"node{len(self.nodes)}"
        folder.mkdir()
        with (folder / "log").open("w") as log:
            node = subprocess.Popen(
                [*RAY, MEMORY, *arguments],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self.environment | {"TMPDIR": str(folder)},
            )
        self.nodes.append(node)

    def _wait_for(self, count, within=60.0):
        end = time.monotonic() + within
        while self._alive() < count:
            if time.monotonic() > end or self.nodes[-1].poll() is not None:
                raise RuntimeError((self.folder / f"node{len(self.nodes) - 1}" / "log").read_text()[-2000:])
            time.sleep(0.3)

    def _alive(self):
        """Nodes that the head knows; it is asked only once it listens, because Ray would try for minutes."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return 0
        done = subprocess.run(
            [sys.executable, "-c", COUNT, self.address],
            env=self.environment,
            capture_output=True,
            text=True,
        )
        found = re.search(r"alive: (\d+)", done.stdout)
        return int(found[1]) if found else 0


def kill(node):
    """End a node and its workers at once, as a power cut does."""
    for process in (*_raylets(node), *workers(node), node.pid):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)
    node.wait()


def workers(node):
    """Processes that do a node's tasks: children of its raylet."""
    raylets = _raylets(node)
    return {pid for pid, parent, _, _ in _processes() if parent in raylets}


def _raylets(node):
    """The process of a node that everything else hangs on."""
    return [pid for pid, _, group, what in _processes() if group == node.pid and what.endswith("/raylet")]


def _processes():
    """Number, parent, group and program of every process."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,ppid=,pgid=,args="], capture_output=True, text=True, check=True)
    rows = (line.split(None, 3) for line in listed.stdout.splitlines())
    return [(int(pid), int(parent), int(group), what.split()[0]) for pid, parent, group, what in rows]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
