"""Settings of an engine that cannot work are refused before anything is loaded or asked."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from vqa.errors import UsageError
from vqa.model.card import GenerationConfig, ModelCard
from vqa.model.engines.config import EngineConfig, check_engine

CARD = ModelCard(name="m", source="m")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"endpoints": ()}, r"no address; give --endpoint http://HOST:PORT/v1"),
        ({"endpoints": ("localhost:8000",)}, r"'localhost:8000' is not an address"),
        ({"endpoints": ("ftp://a/v1",)}, r"^model_engine\.endpoints \(--endpoint\): 'ftp://a/v1' is not an address"),
        ({"endpoints": ("http://user:secret@host/v1",)}, r"http://host comes with a password or query"),
        (
            {"name": "transformers", "endpoints": ("ftp://a/v1",)},
            r"^model_engine\.endpoints = ftp://a/v1: not used by model_engine\.name = transformers; set the name",
        ),
        (
            {"name": "transformers", "endpoints": (), "served_model": "x"},
            r"^model_engine\.served_model = x .*not used without --endpoint",
        ),
        ({"api_key_env": "VQA_NO_SUCH_KEY"}, "environment variable VQA_NO_SUCH_KEY: not set on this machine"),
        ({"api_key_file": Path("absent.key")}, r"api_key_file absent\.key: cannot be read"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict[str, Any], message: str) -> None:
    engine = EngineConfig(**{"name": "endpoint", "endpoints": ("http://127.0.0.1:9/v1",)} | given)
    with pytest.raises(UsageError, match=message) as caught:
        check_engine(engine, CARD, GenerationConfig())
    assert "secret" not in str(caught.value)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_an_engine_that_is_not_installed_is_named_with_its_extra() -> None:
    with pytest.raises(UsageError, match=r"--model-engine vllm needs vllm, .* `pip install 'vqa\[vllm\]'`"):
        check_engine(EngineConfig(name="vllm"), CARD, GenerationConfig())


def test_what_a_server_cannot_do_is_refused_before_it_is_asked() -> None:
    engine = EngineConfig(name="endpoint", endpoints=("http://127.0.0.1:9/v1",))
    with pytest.raises(UsageError, match=r"^--deterministic: .* cannot promise it, .*\. Start the server so"):
        check_engine(engine, CARD, GenerationConfig(deterministic=True))
    with pytest.raises(UsageError, match="folder_sampling"):
        check_engine(engine, CARD, GenerationConfig(folder_sampling=True))
    with pytest.raises(UsageError, match="one video"):
        check_engine(engine, CARD.model_copy(update={"modality": "video"}), GenerationConfig())
