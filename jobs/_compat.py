"""Private parts of Ray that we lean on, each with the reason; tests/contracts/test_ray_contract.py holds them."""

import logging
import os

# Read when Ray is imported or started; what the user has set counts.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its C++ parts write to our stderr otherwise
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray warns on each start without it
}


def set_environment() -> None:
    """Set what Ray reads from the environment; call it before the first `import ray`."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def silence_worker_logs() -> None:
    """Keep messages of the raylet off stderr; those on lost workers and retried tasks stay in Ray's log files.

    `ray.init(log_to_driver=False)` leaves the raylet's own messages on, and no public call turns them off.
    """
    import ray
    import ray.data  # which gives its logger the handlers

    ray._private.worker._worker_logs_enabled = False
    for handler in logging.getLogger("ray.data").handlers:
        if not isinstance(handler, logging.FileHandler) and "File" not in type(handler).__name__:
            handler.setLevel(logging.CRITICAL)


def log_folder() -> str:
    """The folder of this session's logs, empty without a session; the public way to it needs the dashboard."""
    import ray

    node = ray._private.worker._global_node if ray.is_initialized() else None
    return f"{node.get_session_dir_path()}/logs" if node else ""


def train_workers() -> int:
    """How many workers of this job's Ray Train groups are alive; `ray.util.state` needs the dashboard."""
    import ray

    job = ray.get_runtime_context().get_job_id()
    actors = ray._private.state.actors(actor_state_name="ALIVE").values()
    return sum(one["JobID"] == job and one["ActorClassName"] == "RayTrainWorker" for one in actors)
