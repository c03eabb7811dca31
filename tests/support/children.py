"""Processes that train beside a test: forked from one server that has the heavy imports behind it."""

import multiprocessing
import socket
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from typing import Any

import torch.multiprocessing

# The server is one for the whole test process and imports when it starts: torch, transformers and trl, 12 s of work.
_PRELOADED = ["vqa.train.runner", "vqa.train.grpo.build", "tests.support.rehearsal"]


def forked() -> ForkServerContext:
    """The context whose processes come from the server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def both(work: Callable[..., Any], *arguments: Any) -> None:
    """Runs `work(rank, port, *arguments)` in two processes; `port` is free. An error of either is raised here."""
    forked()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(work, args=(port, *arguments), nprocs=2, start_method="forkserver")
