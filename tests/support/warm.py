"""`vqa` and `python` as forks of a process that has the heavy imports behind it; workers of Ray, too.

They run the same code over the same streams, folder, environment and session as a new interpreter, get the signals that
it would get, and end as it would; what each of them would import (3 to 12 s), and the server of its guards (1 s), is
shared.
"""

import atexit
import ctypes
import gc
import importlib
import json
import logging
import multiprocessing
import os
import runpy
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import types
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context, util
from multiprocessing.context import ForkProcess
from pathlib import Path

import numpy as np

from jobs import _compat
from tests.support.scale import FULL

VARIABLE = "VQA_TEST_WARM"  # the folder of commands, for the processes of pytest-xdist
HEAVY = ("scipy.stats", "jobs.plan", "jobs.score", "vqa.cli", "vqa.train.runner")
RAY = ("ray.data", "ray.train.torch", "jobs.ray_executor", "jobs.train")
IS_SUPPORTED = sys.platform == "linux" and not FULL  # at full size each command is started anew

_FORK = get_context("fork")
_NUMBER = 4  # bytes of a length, a process id or an exit code on its way
_JOB = "01000000"  # the first of a Ray; a worker of another one is started anew
_RAY_WORKER, _SETUP_WORKER = "ray-worker", "setup_worker.py"  # ours, and what Ray has
_PYTEST_WORKER = "pytest-worker"
# What stands on the PATH: hands its words, folder, environment and streams over, passes signals on, and ends as the
# fork does.
_CLIENT = f"""#!{sys.executable} -IS
import json, os, signal, socket, sys
there = socket.socket(socket.AF_UNIX)
there.connect(os.path.join(os.path.dirname(os.path.abspath(__file__)), "socket"))
leads = [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()]
asked = json.dumps([sys.argv, os.getcwd(), dict(os.environ), leads]).encode()
socket.send_fds(there, [len(asked).to_bytes({_NUMBER}, "big")], [0, 1, 2])
there.sendall(asked)
parent = os.getppid()
there.settimeout(1.0)
def number():
    while os.getppid() == parent or os.path.basename(sys.argv[0]) != {_RAY_WORKER!r}:  # whose raylet may be killed
        try:
            return int.from_bytes(there.recv({_NUMBER}, socket.MSG_WAITALL) or b"\\1", "big", signed=True)
        except TimeoutError:
            pass
    os._exit(1)
process = number()
for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(one, lambda one, _: os.kill(process, one))
code = number()
if code < 0:
    if code != -signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def commands() -> Path:
    """The folder with `python` and `vqa` of this run: warm ones where a server runs."""
    return Path(os.environ.get(VARIABLE) or Path(sys.executable).parent)


def pytest_worker() -> str | None:
    """The interpreter for a process of pytest-xdist, if it is a warm one."""
    return str(commands() / _PYTEST_WORKER) if VARIABLE in os.environ else None


@contextmanager
def importing_ray() -> Iterator[None]:
    """Let Ray, where it is imported in this block, read what it wants to know in a worker and reads once."""
    if not IS_SUPPORTED:
        yield
        return
    _compat.set_environment()
    wanted = {"RAY_JOB_ID": _JOB, "RAY_RAYLET_PID": str(os.getpid())}  # a worker ends when that process is gone
    os.environ |= wanted
    try:
        yield
    finally:
        for name in wanted:
            del os.environ[name]


@contextmanager
def ray_workers_anew() -> Iterator[None]:
    """Start nodes of Ray whose workers are new interpreters, as everywhere but in the gate."""
    from ray._private import ray_constants

    name = ray_constants.SETUP_WORKER_FILENAME
    ray_constants.SETUP_WORKER_FILENAME = _SETUP_WORKER
    try:
        yield
    finally:
        ray_constants.SETUP_WORKER_FILENAME = name


def serve(*, with_ray: bool) -> Callable[[], None]:
    """Serve the `commands` of this process and its children until the returned function is called.

    The server is forked here, when this process may have no threads; what was imported until then, its commands need
    not import. Workers of each Ray that they and this process start are forks, too, where `with_ray` says so.
    """
    if not IS_SUPPORTED or VARIABLE in os.environ:
        return lambda: None
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    _import_all(with_ray=with_ray)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    listener.listen(64)
    for command in ("vqa", "python", _RAY_WORKER, _PYTEST_WORKER):
        (folder / command).write_text(_CLIENT, encoding="utf-8")
        (folder / command).chmod(0o755)
    if with_ray:
        from ray._private import ray_constants

        ray_constants.SETUP_WORKER_FILENAME = str(folder / _RAY_WORKER)  # joined to the folder of its own
    os.environ[VARIABLE] = str(folder)
    server = _FORK.Process(target=_serve, args=(listener,))
    server.start()

    def end() -> None:
        del os.environ[VARIABLE]
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(folder / "socket"))
        server.join()
        listener.close()
        shutil.rmtree(folder)

    return end


def _import_all(*, with_ray: bool) -> None:
    from vqa import Scorer
    from vqa.imports import uncollected

    with uncollected():
        for module in HEAVY:
            importlib.import_module(module)
        if with_ray:
            os.environ["RAY_TRAIN_V2_ENABLED"] = "1"  # as jobs.train; read on import
            with importing_ray():
                for module in RAY:
                    importlib.import_module(module)
        Scorer.load("embedded")  # imports what transformers puts off


def _serve(listener: socket.socket) -> None:
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # commands have their own
    gc.freeze()
    with selectors.DefaultSelector() as ready:
        ready.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if ready.get_map().get(key.fd) != key:
                    continue  # a command that ended in this round with its client
                if key.fileobj is listener:
                    asked, _ = listener.accept()
                    first, streams, _, _ = socket.recv_fds(asked, _NUMBER, 3)
                    if not first:
                        for one in multiprocessing.active_children():
                            one.kill()  # else they would be waited for
                        return
                    said = asked.recv(int.from_bytes(first, "big"), socket.MSG_WAITALL)
                    process = _FORK.Process(target=_answer, args=(said, streams))
                    process.start()
                    for stream in streams:
                        os.close(stream)
                    _tell(asked, process.pid or 0)
                    ready.register(asked, selectors.EVENT_READ, process)
                    ready.register(process.sentinel, selectors.EVENT_READ, (process, asked))
                elif isinstance(key.data, ForkProcess):  # its client is gone
                    key.data.kill()
                    ready.unregister(key.fileobj)
                else:
                    process, asked = key.data
                    process.join()
                    _tell(asked, process.exitcode or 0)
                    ready.unregister(key.fileobj)
                    with suppress(KeyError):
                        ready.unregister(asked)
                    asked.close()
                    process.close()


def _tell(asked: socket.socket, number: int) -> None:
    with suppress(OSError):  # the client is gone
        asked.sendall(number.to_bytes(_NUMBER, "big", signed=True))


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _answer(said: bytes, streams: list[int]) -> None:
    words, folder, environment, (leads_session, leads_group) = json.loads(said)
    _die_with_parent()
    if leads_session:
        os.setsid()
    elif leads_group:
        os.setpgid(0, 0)  # Ray ends the whole group of a worker that dies
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    _as_new(folder, environment)
    name = Path(words[0]).name
    try:
        if name != _PYTEST_WORKER:  # whose tests are also about that server
            _fork_server_of_guards()
        if name == _RAY_WORKER:
            _work_for_ray(words[1:])
        elif name == "vqa":
            from vqa.cli import main

            sys.argv = words
            main()
        else:
            _run_python(words)
    except (Exception, KeyboardInterrupt) as error:
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        raise SystemExit(1) from None
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()


def _as_new(folder: str, environment: dict[str, str]) -> None:
    """Leave nothing of pytest in this process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.stdin, sys.stdout, sys.stderr = (open(one, "rww"[one], closefd=False) for one in range(3))  # noqa: SIM115 (to its end)
    sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")
    logging.root.handlers.clear()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)  # as in a new interpreter
    os.chdir(folder)
    os.environ.clear()
    os.environ |= environment
    sys.path[:0] = [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one and one not in sys.path]
    np.random.seed()
    atexit._clear()
    weakref.finalize._registry.clear()
    weakref.finalize._registered_with_atexit = False
    if "ray" in sys.modules:
        import ray

        atexit.register(ray.shutdown, _exiting_interpreter=True)
        _compat._read_authentication()


def _run_python(words: Sequence[str]) -> None:
    """As `python [-u] -c CODE …`, `-m MODULE …` or a script's path."""
    words = [word for word in words[1:2] if word != "-u"] + list(words[2:])
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path.insert(0, "")
        exec(compile(words[1], "<string>", "exec"), main.__dict__)
    elif words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, str(Path.cwd()))
        package, _, name = words[1].rpartition(".")
        if sys.modules.pop(words[1], None) and package:  # imported by a test: a new interpreter has not seen it
            delattr(sys.modules[package], name)
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words[:]
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")


def _work_for_ray(words: Sequence[str]) -> None:
    """As Ray's setup_worker.py, which ends in an `exec` of its default_worker.py."""
    from ray._private.runtime_env.context import RuntimeEnvContext
    from ray._private.workers import setup_worker

    if os.environ.get("RAY_JOB_ID") != _JOB:
        os.execv(sys.executable, [sys.executable, setup_worker.__file__, *words])
    asked, sys.argv = setup_worker.parser.parse_known_args(words)
    context = RuntimeEnvContext.deserialize(asked.serialized_runtime_env_context or "{}")
    assert not context.command_prefix
    os.environ |= context.env_vars
    _compat._read_authentication()
    runpy.run_path(sys.argv[0], run_name="__main__")


def _fork_server_of_guards() -> None:
    """Fork the server of this command's guards, while it has no threads, where they would start one that imports."""
    from vqa.media import forked

    start = util.spawnv_passfds

    def fork(path: bytes, words: Sequence[str], passed: Sequence[int]) -> int:
        if "forkserver" not in words[-1]:  # the tracker of resources
            return start(path, words, passed)
        if child := os.fork():
            return child
        code = 1
        try:
            for number in {int(one.name) for one in Path("/dev/fd").iterdir()} - {0, 1, 2, *passed}:
                with suppress(OSError):  # the listing's own
                    os.close(number)  # the end of a pipe tells the server that its command is gone
            exec(words[-1], {})
            code = 0
        except SystemExit:
            code = 0
        finally:
            os._exit(code)

    util.spawnv_passfds = fork
    try:
        forked.server_of().ensure_running()
    finally:
        util.spawnv_passfds = start
