"""Answers by vLLM itself, where it is installed: vLLM and the trainer see the same pictures."""

import contextlib
import importlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from trl.generation.vllm_client import VLLMClient

from tests.support import rehearsal
from vqa.errors import UsageError
from vqa.prompt import parse

pytest.importorskip("vllm")
if not torch.cuda.is_available() and not importlib.import_module("vllm.platforms").current_platform.is_cpu():
    pytest.skip("vLLM's build for GPUs, and no GPU", allow_module_level=True)


class _Rounded(transformers.TrainerCallback):
    """The trainer's weights in the steps of float16, in which vLLM takes them."""

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        with torch.no_grad():
            for one in model.parameters():
                one.copy_(one.half())


@pytest.mark.slow
def test_answers_are_as_likely_to_vllm_as_to_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Cache of a CPU machine in GiB, and the engine in this process: both are read from the environment alone.
    for name, value in {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}.items():
        monkeypatch.setenv(name, value)
    trainer = rehearsal.trainer(
        tmp_path, vllm_mode="colocate", num_generations=4, max_steps=3, max_completion_length=64
    )
    trainer.add_callback(_Rounded())
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "rewards/format" in entry]
    assert len(log) == 3  # the last sees the first one's clips again, after two updates that vLLM was given
    for entry in log:
        assert entry["sampling/sampling_logp_difference/max"] < 0.05  # vLLM also counts in float16


@pytest.mark.slow
@pytest.mark.parametrize("reward", ["vq_insight", "refine_iqa"])
def test_a_second_request_feeds_the_terms_that_need_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reward: str
) -> None:
    for name, value in {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}.items():
        monkeypatch.setenv(name, value)
    trainer = rehearsal.trainer(
        tmp_path,
        vllm_mode="colocate",
        num_generations=8,
        max_steps=2,
        max_completion_length=64,
        reward=reward,
        allow_silent=("format",) if reward == "refine_iqa" else (),
        check_first_batch=False,
    )
    columns: list[dict[str, list[Any]]] = []
    usual = trainer._perturbed

    def noted(*given: Any) -> dict[str, list[Any]]:
        columns.append(usual(*given))
        return columns[-1]

    monkeypatch.setattr(trainer, "_perturbed", noted)
    trainer.train()
    assert len(columns) == 2
    if reward == "vq_insight":
        for one in columns:
            assert [text is None for text in one["perturbed"]] == ([False] * 4 + [True] * 4) * 2
        read = [parse(text, 2) for one in columns for text in one["perturbed"] if text is not None]
        assert len(set(filter(None, read))) > 1
        paid = [entry["rewards/temporal"] for entry in trainer.state.log_history if "rewards/temporal" in entry]
        assert max(paid) > 0
    else:
        for name in ("think", "no_think"):
            chances = [value for one in columns for value in one[name] if value == value]
            assert chances and all(0 < value < 1 for value in chances)


SERVED = ["--dtype", "float16", "--max-model-len", "4096", "--enforce-eager", "--enable-scale-out"]
SERVED += ["--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1", "--limit-mm-per-prompt", '{"image": 20}']
PATIENCE_SECONDS = 600.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `vllm serve` with the embedded model, which can be given no weights."""
    with _serving(tmp_path_factory.mktemp("server") / "log") as address:
        yield address


@contextlib.contextmanager
def _serving(said: Path, *more: str) -> Iterator[str]:
    """The address of `vllm serve` while it runs; it writes to `said`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(rehearsal.ASSETS / "embedded"), *SERVED]
    environment = os.environ | {"VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    with said.open("w") as log:
        process = subprocess.Popen(
            [*command, *more, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log, env=environment
        )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_SECONDS
    try:
        while True:
            assert process.poll() is None and time.monotonic() < deadline, said.read_text()[-2000:]
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health") as answer:
                if answer.status == 200:
                    break
            time.sleep(1.0)
        yield address
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_answers_of_a_server_are_as_likely_to_it_as_to_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after updates, whose weights go to it over the CPU (see store_engine)."""
    from trl.generation import vllm_client

    from tests.support import store_engine

    # trl refuses any device but a GPU before it comes to the sending, the two functions of which are replaced.
    begin = VLLMClient.init_communicator
    monkeypatch.setattr(VLLMClient, "init_communicator", lambda self, device: begin(self, device="cuda"))
    monkeypatch.setattr(vllm_client, "open_trainer_endpoint", store_engine.meet)
    monkeypatch.setattr(vllm_client, "packed_nccl_broadcast_producer", store_engine.send)
    more = [
        "--weight-transfer-config",
        '{"backend": "store"}',
        "--worker-extension-cls",
        "tests.support.store_engine.Import",
    ]
    with _serving(tmp_path / "log", *more) as address:
        trainer = rehearsal.trainer(
            tmp_path,
            vllm_mode="server",
            vllm_server_base_url=address,
            num_generations=4,
            max_steps=3,
            learning_rate=1e-3,
            max_completion_length=64,
        )
        trainer.add_callback(_Rounded())
        trainer.train()
    log = [entry for entry in trainer.state.log_history if "rewards/format" in entry]
    assert len(log) == 3
    for entry in log:
        assert entry["sampling/sampling_logp_difference/max"] < 0.05


def test_a_server_that_cannot_be_given_weights_is_refused(tmp_path: Path, server: str) -> None:
    with pytest.raises(
        UsageError, match=rf"vllm_server_base_url {server}: The vLLM server .* has no weight-transfer engine"
    ):
        rehearsal.trainer(tmp_path, vllm_mode="server", vllm_server_base_url=server)


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"vllm_server_base_url http://127\.0\.0\.1:9: .* can't be reached"):
        rehearsal.trainer(
            tmp_path, vllm_mode="server", vllm_server_base_url="http://127.0.0.1:9", vllm_server_timeout=1.0
        )
