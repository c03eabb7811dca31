"""`vqa` and `python` for the commands of pages, forked from a process that has the heavy imports behind it.

They run the same code over the same streams, folder and environment, and end with the same exit code as the installed
command; what each of them would import (12 s), and the server of its guards (1 s), is shared.
"""

import json
import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context, util
from pathlib import Path

_FORK = get_context("fork")
_CODES = 4  # bytes of an exit code on its way back
# What stands on the PATH: hands its words, folder, environment and streams over, and ends as the fork does.
_CLIENT = f"""#!{sys.executable} -IS
import json, os, socket, sys
there = socket.socket(socket.AF_UNIX)
there.connect(os.path.join(os.path.dirname(os.path.abspath(__file__)), "socket"))
asked = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(there, [len(asked).to_bytes({_CODES}, "big")], [0, 1, 2])
there.sendall(asked)
code = there.recv({_CODES})
sys.exit(int.from_bytes(code, "big") if code else 1)
"""


@contextmanager
def warm_commands(folder: Path) -> Iterator[Path]:
    """Serve `vqa WORDS` and `python -c CODE` out of a short folder, for the PATH of a shell.

    The server is forked when the block begins; what was imported until then, its commands need not import.
    """
    from vqa.imports import uncollected

    with uncollected():
        import scipy.stats

        import jobs.plan
        import jobs.score
        import vqa.cli
        import vqa.train.runner
        from vqa import Scorer

        assert jobs.plan and jobs.score and vqa.cli and vqa.train.runner and scipy.stats
        Scorer.load("embedded")  # imports what transformers puts off
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    listener.listen()
    for name in ("vqa", "python"):
        (folder / name).write_text(_CLIENT, encoding="utf-8")
        (folder / name).chmod(0o755)
    server = _FORK.Process(target=_serve, args=(listener,))
    server.start()
    try:
        yield folder
    finally:
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(folder / "socket"))
        server.join()
        listener.close()


def _serve(listener: socket.socket) -> None:
    while True:
        asked, _ = listener.accept()
        length, streams, _, _ = socket.recv_fds(asked, _CODES, 3)
        if not length:
            return
        _FORK.Process(target=_answer, args=(asked, int.from_bytes(length, "big"), streams)).start()
        for one in (*streams, asked):
            os.close(one) if isinstance(one, int) else one.close()


def _answer(asked: socket.socket, length: int, streams: list[int]) -> None:
    with asked.makefile("rb") as said:
        words, folder, environment = json.loads(said.read(length))
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    logging.root.handlers.clear()  # those of pytest
    os.chdir(folder)
    os.environ.clear()
    os.environ |= environment
    sys.argv = words
    _fork_server_of_guards()
    code = 1
    try:
        if Path(words[0]).name == "python":
            exec(compile(words[2], "<page>", "exec"), {"__name__": "__main__"})
            code = 0
        else:
            from vqa.cli import main

            main()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        asked.sendall(code.to_bytes(_CODES, "big"))


def _fork_server_of_guards() -> None:
    """Fork the server of this command's guards, while it has no threads, where they would start one that imports."""
    from vqa.media import sandbox

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
        sandbox._server().ensure_running()
    finally:
        util.spawnv_passfds = start
