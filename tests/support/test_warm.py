"""Warm commands are told apart from installed ones by nothing but their speed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support import warm

INSTALLED = Path(sys.executable).parent
# Says all that a command is given, and more than a buffer of both streams.
SAYS = """
import atexit, logging, os, sys, tempfile, threading
atexit.register(print, "at the end")
keep = tempfile.TemporaryDirectory()
print(sys.argv, __name__, os.getcwd(), os.environ["SOME"], sys.stdin.read(), sys.path[0] in ("", os.getcwd()))
print(os.getsid(0) == int(os.environ["SESSION"]), threading.active_count(), logging.root.handlers, file=sys.stderr)
print(os.path.isdir(keep.name), "x" * 10**5)
"""


def run(commands: Path, *words: str, **options: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    environment = os.environ | {"SOME": "thing", "SESSION": str(os.getsid(0))}
    command = [str(commands / words[0]), *words[1:]]
    done = subprocess.run(
        command, env=environment, input="said", capture_output=True, text=True, check=False, **options
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["python", "-c", SAYS, "a", "b c"], 0),
        (["python", "-u", "-c", "print(1)"], 0),
        (["python", "-c", "import sys; sys.exit('gone')"], 1),
        (["python", "-c", "raise SystemExit(7)"], 7),
        (["python", "-c", "1 / 0"], 1),
        (["python", "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"], -signal.SIGKILL),
        (["python", "-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"], -signal.SIGTERM),
        (["python", "-m", "vqa.cli", "--version"], 0),
        (["vqa", "--version"], 0),
        (["vqa", "score"], 2),
    ],
)
def test_a_warm_command_says_what_the_installed_one_says(
    warm_commands: Path, tmp_path: Path, words: list[str], code: int
) -> None:
    found, wanted = (run(commands, *words, cwd=tmp_path) for commands in (warm_commands, INSTALLED))
    assert found[:2] == wanted[:2]
    assert found[2].splitlines()[-1:] == wanted[2].splitlines()[-1:]  # a traceback has other frames
    assert found[0] == code


WAITS = """
import os, time
try:
    print(os.getpid(), os.getsid(0) == os.getsid({parent}), flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    raise SystemExit(130)
"""


@pytest.mark.skipif(not warm.IS_SUPPORTED, reason="no warm commands here")
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, -15, ""), (signal.SIGKILL, -9, "")],
)
def test_a_signal_to_a_warm_command_reaches_the_fork(
    warm_commands: Path, number: signal.Signals, code: int, said: str
) -> None:
    command = [warm_commands / "python", "-c", WAITS.format(parent=os.getpid())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    fork, shares = process.stdout.readline().split()
    assert (int(fork) != process.pid, shares) == (True, "False"), "a session of its own, as its client has"
    process.send_signal(number)
    assert (process.stdout.read(), process.wait(60)) == (said, code)
    deadline = time.monotonic() + 60
    while psutil.pid_exists(int(fork)):
        assert time.monotonic() < deadline, "the fork outlives its command"
        time.sleep(0.02)


@pytest.mark.skipif(not warm.IS_SUPPORTED, reason="no warm commands here")
def test_a_warm_command_has_the_heavy_imports_behind_it(warm_commands: Path) -> None:
    code, said, _ = run(warm_commands, "python", "-c", f"import sys; print({set(warm.HEAVY)!r} <= set(sys.modules))")
    assert (code, said) == (0, "True\n")


ENDS = """
import os, psutil, subprocess, threading, time
from tests.support import warm

os.environ.pop(warm.VARIABLE, None)
warm._import_all = lambda **_: None
warm._work_for_ray = lambda _: time.sleep(300)
end = warm.serve(with_ray=False)
said = {"stdout": subprocess.PIPE, "text": True}
code = "import time; print(1, flush=True); time.sleep(300)"
waits = subprocess.Popen([warm.commands() / "python", "-c", code], **said)
assert waits.stdout.readline() == "1\\n"
raylet = subprocess.Popen(["sh", "-c", f"{warm.commands()}/ray-worker & wait"])

def is_fork(one):
    try:
        return one.status() != "zombie" and one.cmdline() == psutil.Process().cmdline()
    except psutil.NoSuchProcess:  # it has ended since
        return False

def forks():
    return [one for one in psutil.Process().children(recursive=True) if is_fork(one)]

def until(count):
    deadline = time.monotonic() + 20
    while len(found := forks()) != count:
        if time.monotonic() > deadline:
            print(count, found, flush=True)
            for one in found:
                one.kill()
            os._exit(1)
        time.sleep(0.05)

until(5)  # the server; the command and the worker, each with the server of its guards
raylet.kill()
raylet.wait()
until(3)
threading.Thread(target=end).start()
until(0)
waits.wait(60)
"""


@pytest.mark.skipif(not warm.IS_SUPPORTED, reason="no warm commands here")
def test_no_fork_outlives_its_raylet_or_the_server() -> None:
    """Two workers, whose raylets had been killed, had kept the server, and the run, from ending."""
    subprocess.run([sys.executable, "-c", ENDS], check=True, timeout=120)
