"""Answers by vLLM itself, where it is installed: vLLM and the trainer see the same pictures."""

from pathlib import Path

import pytest
import rehearsal

pytest.importorskip("vllm")


@pytest.mark.slow
def test_answers_are_as_likely_to_vllm_as_to_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Cache of a CPU machine in GiB, and the engine in this process: both are read from the environment alone.
    for name, value in {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}.items():
        monkeypatch.setenv(name, value)
    trainer = rehearsal.trainer(tmp_path, vllm="colocate", k=4, steps=3, max_new_tokens=64)
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "rewards/format" in entry]
    assert len(log) == 3  # the last sees the first one's clips again, after two updates that vLLM was given
    for entry in log:
        assert entry["sampling/sampling_logp_difference/max"] < 0.05  # vLLM takes the weights as stored, in float16
