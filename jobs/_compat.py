"""Private parts of Ray and why we need each; held by test_ray_contract.py."""

import contextlib
import functools
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

FETCHER = "iter_threaded"  # name of the threads of Ray Data's iterators
STORE_LEAST_BYTES = 80 * 2**20  # Ray refuses a smaller object store than 75 MiB

# Read when Ray is imported or started; what the user has set counts.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its C++ parts write to our stderr otherwise
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray warns on each start without it
    "RAY_prestart_worker_first_driver": "0",  # a process for each core, before it is known how many are needed
}


def set_environment() -> None:
    """Set what Ray reads from the environment; call it before the first `import ray`."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def few_processes() -> Iterator[None]:
    """Start a Ray here without processes that nobody asks anything of.

    They take 1 to 2 s each, and `ray.init` has no options for them: an autoscaler, a reader of logs, and the
    dashboard's server, which `include_dashboard=False` only makes smaller.
    """
    from ray._private import node, parameter

    params, start_api_server = parameter.RayParams, node.Node.start_api_server
    few = functools.partial(params, no_monitor=True, include_log_monitor=False)  # type: ignore[arg-type]  # says str
    parameter.RayParams = few  # type: ignore[misc, assignment]
    node.Node.start_api_server = lambda self, **_: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        parameter.RayParams = params  # type: ignore[misc]
        node.Node.start_api_server = start_api_server  # type: ignore[method-assign]


def wait_for_fetchers(seconds: float) -> None:
    """Wait until the threads that fetch for Ray Data's iterators have ended.

    Ray tells them to end and does not wait. One that asks for a block of a Ray that has gone by then ends this process,
    with code 1 and without a word (Ray 2.60).
    """
    until = time.monotonic() + seconds
    for thread in threading.enumerate():
        if thread.name == FETCHER:
            thread.join(max(0.0, until - time.monotonic()))


def silence_worker_logs() -> None:
    """Keep messages on lost workers and retried tasks off stderr, in Ray's log files.

    `ray.init(log_to_driver=False)` leaves the raylet's own messages on, and no public call turns them off.
    """
    import ray
    import ray.data  # which gives its logger the handlers

    ray._private.worker._worker_logs_enabled = False
    for handler in logging.getLogger("ray.data").handlers:
        if not isinstance(handler, logging.FileHandler) and "File" not in type(handler).__name__:
            handler.setLevel(logging.CRITICAL)


def log_folder() -> str:
    """This session's log folder, or empty; the public call needs the dashboard."""
    import ray

    node = ray._private.worker._global_node if ray.is_initialized() else None
    return f"{node.get_session_dir_path()}/logs" if node else ""


def lost_workers() -> int:
    """Count this job's lost workers; `ray.util.state` needs the dashboard."""
    import ray

    job = ray.get_runtime_context().get_job_id()
    actors = [one for one in ray._private.state.actors().values() if one["JobID"] == job]
    return sum(int(one["NumRestarts"]) + (one["State"] == "RESTARTING") for one in actors)


def head_address() -> tuple[str, int]:
    """Host and port of the head's server (GCS) that this process is connected to."""
    import ray

    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    return host.strip("[]"), int(port)


def head_patience_seconds() -> float:
    """Seconds without its head until Ray silently ends this process (60 in Ray 2.60)."""
    return float(os.environ.get("RAY_gcs_rpc_server_reconnect_timeout_s") or 60)  # noqa: SIM112 (Ray's name)


def alive_actors(stage: str) -> int:
    """Count this job's actors of a stage; `ray.util.state` needs the dashboard."""
    import ray

    job = ray.get_runtime_context().get_job_id()
    actors = ray._private.state.actors(actor_state_name="ALIVE").values()
    return sum(one["JobID"] == job and f"({stage})" in one["ActorClassName"] for one in actors)


def train_workers() -> int:
    """Count this job's live Ray Train workers; `ray.util.state` needs the dashboard."""
    import ray

    job = ray.get_runtime_context().get_job_id()
    actors = ray._private.state.actors(actor_state_name="ALIVE").values()
    return sum(one["JobID"] == job and one["ActorClassName"] == "RayTrainWorker" for one in actors)


@contextlib.contextmanager
def private_token() -> Iterator[None]:
    """Give a Ray started here its own token, unless the user has chosen a mode.

    Ray 2.60 would write one to ~/.ray, which fails where HOME cannot be written, and makes every later `ray start` of
    this account ask for tokens.
    """
    if "RAY_AUTH_MODE" in os.environ:
        yield
        return
    made = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in made}
    os.environ.update(made)
    _read_authentication()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _read_authentication()


def asks_for_token(address: str) -> bool:
    """Whether the head at HOST:PORT refuses a client that sends no token.

    No public call tells before `ray.init`, which waits.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    try:
        GcsClient(address=address)
    except AuthenticationError:
        return True
    except Exception:  # `ray.init` says what is wrong
        return False
    return False


def send_token() -> None:
    """Send the account's token, as Ray does to `auto`, and ask our workers for it."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    _read_authentication()


def token_file() -> Path | None:
    """Path of the token that Ray left for this account, where no mode is chosen."""
    if "RAY_AUTH_MODE" in os.environ:
        return None
    with contextlib.suppress(RuntimeError, OSError):  # no home, or one that cannot be read
        path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
        return path if path.is_file() else None
    return None


def _read_authentication() -> None:
    """Have Ray's C++ parts read the environment again."""
    import ray._raylet as raylet

    raylet.Config.initialize("")  # type: ignore[attr-defined]
    if loader := getattr(raylet, "AuthenticationTokenLoader", None):  # older versions have no tokens
        loader.instance().reset_cache()
