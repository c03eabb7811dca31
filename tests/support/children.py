"""Processes that train beside a test: forked from it, with the heavy imports behind them (12 s of work)."""

import gc
import multiprocessing
import socket
from collections.abc import Callable
from multiprocessing.context import ForkContext
from typing import Any

import torch.multiprocessing
from accelerate.state import AcceleratorState


def forked() -> ForkContext:
    """The context whose processes are forks of this one."""
    return multiprocessing.get_context("fork")


def both(work: Callable[..., Any], *arguments: Any) -> None:
    """Runs `work(rank, port, *arguments)` in two processes; `port` is free. An error of either is raised here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(_as_new, args=(work, port, *arguments), nprocs=2, start_method="fork")


def _as_new(rank: int, work: Callable[..., Any], port: int, *arguments: Any) -> None:
    gc.freeze()  # what is there by now needs no visit by the collectors that each run of a trainer starts
    AcceleratorState._reset_state(reset_partial_state=True)  # what trainers of the test left says: one process
    work(rank, port, *arguments)
