"""A guarded child starts whatever is killed meanwhile, and ends with its parent."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support import native_faults
from tests.support.alive import is_alive, wait_until
from tests.support.scale import full
from vqa.errors import MachineError
from vqa.media import forked
from vqa.media.sandbox import Guard


def start_script(tmp_path: Path, body: str, *, group: bool = False) -> subprocess.Popen[str]:
    """A plain script without a main guard, stopped by Ctrl-C even where the tests run in the background of a shell,
    which has SIGINT ignored there; `print` of it is not buffered."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(body))
    return subprocess.Popen(
        [sys.executable, "-u", str(script)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=group,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.alone
def test_a_plain_script_needs_no_main_guard_and_ends_quietly(tmp_path) -> None:
    script = start_script(
        tmp_path,
        """
        print("imported")
        from tests.support import native_faults
        from vqa.media import Guard
        from vqa.errors import ClipError
        guard = Guard(deadline_seconds=0.5, memory_bytes=None)
        for fault in (native_faults.segfault, native_faults.sleep_in_native_code, native_faults.leave):
            try:
                guard.run(fault)
            except (ClipError, SystemExit) as error:
                print(getattr(error, "kind", "exit"))
        print(guard.run(native_faults.echo, "answer"))
        """,  # and no close
    )
    out, err = script.communicate(timeout=60)
    assert (script.returncode, out.split(), err) == (0, ["imported", "crashed", "timeout", "exit", "answer"], "")


def test_a_forked_process_starts_children_of_its_own(tmp_path) -> None:
    script = start_script(
        tmp_path,
        """
        import os
        from tests.support import native_faults
        from vqa.media import Guard
        guard = Guard(deadline_seconds=60.0, memory_bytes=None)
        print(guard.run(native_faults.echo, "before"), flush=True)
        if process_id := os.fork():
            print("exit", os.waitpid(process_id, 0)[1])
            print(guard.run(native_faults.echo, "after"))
        else:
            with Guard(deadline_seconds=60.0, memory_bytes=None) as own:
                print(own.run(native_faults.echo, "forked"), flush=True)
            os._exit(0)
        """,
    )
    out, err = script.communicate(timeout=60)
    assert (script.returncode, out.split(), err) == (0, ["before", "forked", "exit", "0", "after"], "")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_busy_child_dies_with_its_parent(tmp_path, how) -> None:
    script = start_script(
        tmp_path,
        f"""
        from tests.support import native_faults
        from vqa.media import Guard
        guard = Guard(deadline_seconds=60.0, memory_bytes=None)
        guard.run(native_faults.report_then_sleep, {str(tmp_path / "id")!r}, 60.0)
        """,
    )
    child = tmp_path / "id"
    assert wait_until(lambda: child.exists() and child.read_text() != "", 60)
    process_id = int(child.read_text())
    assert is_alive(process_id)
    script.send_signal(how)
    script.wait(timeout=60)
    assert wait_until(lambda: not is_alive(process_id))
    script.communicate()


def test_ctrl_c_stops_a_busy_call_at_once_with_one_traceback_only(tmp_path) -> None:
    script = start_script(
        tmp_path,
        f"""
        from tests.support import native_faults
        from vqa.media import Guard
        guard = Guard(deadline_seconds=60.0, memory_bytes=None)
        try:
            guard.run(native_faults.report_then_sleep, {str(tmp_path / "id")!r}, 60.0)
        except KeyboardInterrupt:
            print("stopped")
            print(guard.run(native_faults.echo, "alive"))
        """,
        group=True,
    )
    child = tmp_path / "id"
    assert wait_until(lambda: child.exists() and child.read_text() != "", 60)
    os.killpg(script.pid, signal.SIGINT)  # as a terminal does: to the script, the server and the child
    out, err = script.communicate(timeout=60)
    assert (script.returncode, out.split(), err) == (0, ["stopped", "alive"], "")
    assert not is_alive(int(child.read_text()))


def test_ctrl_c_while_the_server_imports_ends_at_once_and_quietly(tmp_path) -> None:
    """As torch takes seconds. What is left behind, a server and a child that it begins, says nothing."""
    (tmp_path / "slow_start.py").write_text(
        f"import pathlib, time; pathlib.Path({str(tmp_path / 'begun')!r}).touch(); time.sleep(10)"
    )
    script = start_script(
        tmp_path,
        f"""
        import os
        from tests.support import native_faults
        from vqa.media import Guard
        os.environ["PYTHONPATH"] += {os.pathsep + str(tmp_path)!r}
        try:
            Guard(deadline_seconds=60.0, memory_bytes=None, preload=["slow_start"]).run(native_faults.echo, "never")
        except KeyboardInterrupt:
            print("stopped")
        """,
        group=True,
    )
    assert wait_until((tmp_path / "begun").exists, 60)
    os.killpg(script.pid, signal.SIGINT)
    assert script.wait(timeout=8) == 0
    assert script.communicate(timeout=60) == ("stopped\n", "")


@pytest.mark.alone
def test_killing_the_server_while_it_starts_the_child_loses_no_call() -> None:
    rng = np.random.default_rng(1)

    def kill_the_server(delay_seconds: float) -> None:
        assert wait_until(lambda: forked.server_of()._forkserver_pid is not None)
        time.sleep(delay_seconds)
        os.kill(forked.server_of()._forkserver_pid, signal.SIGKILL)

    for _ in range(full(8, gate=3)):
        forked._servers.clear()
        killer = threading.Thread(target=kill_the_server, args=(float(rng.uniform(0.0, 0.3)),))
        killer.start()
        start = time.monotonic()
        with Guard(deadline_seconds=10.0, memory_bytes=None) as fresh:
            assert fresh.run(native_faults.echo, 7) == 7
            killer.join()
            assert fresh.run(native_faults.echo, 8) == 8
        assert time.monotonic() - start < 10.0, "a broken pool was waited for"


def test_a_child_is_started_whatever_the_length_of_tmpdir(tmp_path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    code = "from vqa.media.sandbox import Guard; print(Guard(deadline_seconds=60, memory_bytes=None).run(abs, -7))"
    environment = {**os.environ, "TMPDIR": str(long)}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert (ended.stdout, ended.returncode) == ("7\n", 0), ended.stderr


def test_a_child_that_cannot_be_started_is_the_machines_fault(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with Guard(deadline_seconds=60.0, memory_bytes=None) as guard:
        monkeypatch.setattr(forked._Popen, "_fork", refuse)
        with pytest.raises(MachineError, match=r"no process for decoding can be started: .*ulimit -n"):
            guard.run(native_faults.echo, 7)
        monkeypatch.undo()
        assert guard.run(native_faults.echo, 7) == 7
