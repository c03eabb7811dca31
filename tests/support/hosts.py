"""Hosts on a network of their own: each a network namespace of this kernel with a Ray of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.kept import ROOT

PATIENCE_SECONDS = 300.0
PORT = 6379
OWN = ("env", "RAY_TMPDIR=/tmp")  # Ray's folder is /tmp/ray, which each host has of its own


@dataclass(frozen=True)
class Host:
    """A host, its address, and the `ray start` that runs there."""

    name: str
    switch: str  # the namespace that has the other ends of all links
    address: str
    process: subprocess.Popen[bytes]

    @property
    def ray(self) -> str:
        """Address of a Ray whose head is here."""
        return f"{self.address}:{PORT}"

    def inside(self, *command: str) -> list[str]:
        """A command that runs on this host."""
        return ["nsenter", f"--target={self.process.pid}", "--net", "--mount", f"--wd={ROOT}", *OWN, *command]

    def cut_off(self) -> None:
        """Take its link down: what is sent to it is lost, and nobody is told."""
        _ip("-n", self.switch, "link", "set", self.name, "down")


def is_possible() -> bool:
    """Whether this account may make networks."""
    return os.geteuid() == 0 and all(map(shutil.which, ("ip", "nsenter"))) and _can_make()


def _can_make() -> bool:
    name = f"vqa{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode == 0
    if made:
        _ip("netns", "delete", name)
    return made


@contextlib.contextmanager
def network(folder: Path, *nodes: Mapping[str, object]) -> Iterator[list[Host]]:
    """A head that does no work and a host for each of `nodes`, its options of `ray start` (num_cpus=2)."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    switch = f"vqa{os.getpid()}s"
    made: list[Host] = []
    with contextlib.ExitStack() as made_here:
        _namespace(switch, made_here)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for n, options in enumerate(({"num_cpus": 0}, *nodes)):
            name, address = f"vqa{os.getpid()}h{n}", f"10.77.0.{n + 1}"
            _namespace(name, made_here)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", switch)
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", switch, "link", "set", name, "master", "bridge", "up")
            own, log = folder / name, folder / f"{name}.log"
            own.mkdir()
            head = ["--head", f"--port={PORT}", "--include-dashboard=false"]
            where = [f"--address={made[0].ray}"] if made else head
            where += [f"--{key.replace('_', '-')}={json.dumps(value)}" for key, value in options.items()]
            start = f'mkdir -p /tmp/ray && mount --bind "{own}" /tmp/ray && exec "$@"'
            ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"]
            command = ["ip", "netns", "exec", name, "sh", "-c", start, "sh", *OWN, *ray, f"--node-ip-address={address}"]
            with log.open("wb") as file:
                process = subprocess.Popen([*command, *where], stdout=file, stderr=file, env=environment)
            made.append(Host(name, switch, address, process))
            wait_for_ray(process, log)  # one after the other: the totals of all are there from the start
        yield made


def _namespace(name: str, made_here: contextlib.ExitStack) -> None:
    """A namespace that ends with what runs in it."""
    _ip("netns", "add", name)

    @made_here.callback
    def end() -> None:
        for process in _ip("netns", "pids", name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        _ip("netns", "delete", name)


def wait_for_ray(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a `ray start` that writes to this file."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "Ray runtime started" not in (said := log.read_text(errors="replace")):
        assert process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.1)


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout
