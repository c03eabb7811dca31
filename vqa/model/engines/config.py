"""Model engines: settings, checks and start; only the start imports torch."""

import os
import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field

from vqa.config import Strict, build
from vqa.errors import UsageError
from vqa.imports import require
from vqa.model.card import GenerationConfig, ModelCard
from vqa.model.engines.protocol import ModelEngine

EngineName = Literal["transformers", "vllm", "endpoint"]
SERVED = "served"  # the revision of a model whose server does not say which weights it has
_KEY = re.compile(r"[\x21-\x7e]+")


class EngineConfig(Strict):
    """Engine that answers; its name and `served_model` are part of the run key."""

    name: EngineName = Field("transformers", description="endpoint: servers with OpenAI's chat interface")
    endpoints: tuple[str, ...] = Field((), description="base addresses, such as http://127.0.0.1:8000/v1")
    served_model: str | None = Field(None, description="the model's name on the servers; null = the card's source")
    api_key_env: str = Field("VQA_API_KEY", description="environment variable that holds the servers' key")
    api_key_file: Path | None = Field(None, description="file that holds it, in place of the variable")
    concurrency: int = Field(16, ge=1, description="clips at the servers at once, for each model process")
    tries: int = Field(8, ge=1, description="requests for one answer before its clip fails")
    first_wait_seconds: float = Field(0.5, gt=0, description="before the second try; doubled from then on, up to 30")
    deadline_seconds: float = Field(600.0, gt=0, description="for all tries of one clip")
    tensor_parallel: int = Field(1, ge=1, description="of vllm: GPUs that share one model")
    compile: bool | None = Field(
        None,
        description="torch.compile for steps of an answer, with vllm CUDA graphs too; starts later; null = vllm alone",
    )
    gpu_memory: float = Field(0.9, gt=0, le=1, description="of vllm: share of a GPU's memory that it takes")
    max_model_len: int | None = Field(
        None, ge=1, description="of vllm: tokens of prompt and answer; null = the model's"
    )


def engine_of(card: ModelCard, given: EngineConfig | None = None) -> EngineConfig:
    """Settings of an engine, on top of what the card says. Raises UsageError."""
    values = given.model_dump(exclude_unset=True) if given else {}
    return build(EngineConfig, card.model_engine | values, where=f"model {card.name or card.source}, model_engine")


def check_engine(engine: EngineConfig, card: ModelCard, generation: GenerationConfig) -> None:
    """Refuse what cannot work, before anything is loaded or asked.

    Raises:
        UsageError: a missing extra, no or a bad address, settings of another engine, a missing key, a model or
            setting that the engine cannot serve.
    """
    if engine.name != "endpoint" and engine.endpoints:
        raise UsageError(
            f"model_engine.endpoints = {', '.join(engine.endpoints)}: not used by model_engine.name = {engine.name}; "
            "set the name to endpoint (--endpoint does both), or leave them out"
        )
    if engine.name != "endpoint" and engine.served_model:
        raise UsageError(
            f"model_engine.served_model = {engine.served_model} (--served-model): not used without --endpoint; "
            "leave it out"
        )
    if engine.name == "vllm":
        require("vllm", "vllm", doing="--model-engine vllm")
    if engine.name == "endpoint":
        require("endpoint", "httpx2", doing="--model-engine endpoint")
        if not engine.endpoints:
            raise UsageError("--model-engine endpoint: no address; give --endpoint http://HOST:PORT/v1")
        for address in engine.endpoints:
            _check_address(address)
        api_key(engine)
        if generation.folder_sampling:
            raise UsageError(
                "generation.folder_sampling: a server's folder cannot be read; set temperature, top_p, top_k and "
                "repetition_penalty, or use --model-engine transformers"
            )
        if generation.deterministic:
            raise UsageError(
                "--deterministic: --model-engine endpoint cannot promise it, since the server chooses its batches. "
                "Start the server so (VLLM_BATCH_INVARIANT=1 vllm serve), and leave --deterministic out here"
            )
    if engine.name != "transformers" and card.modality == "video":
        raise UsageError(
            f"model {card.name or card.source}: shown as one video, which --model-engine {engine.name} does not "
            "send; use --model-engine transformers"
        )


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_good = False
    if not is_good:
        raise UsageError(
            f"model_engine.endpoints (--endpoint): {address!r} is not an address; give http://HOST:PORT/v1"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(
            f"model_engine.endpoints (--endpoint): {parts.scheme}://{parts.hostname} comes with a password or "
            "query, which would be written to run.json; give the key by an environment variable "
            "(model_engine.api_key_env) or api_key_file"
        )


def api_key(engine: EngineConfig) -> str | None:
    """Key of the servers, or None; UsageError where a named one is missing or bad."""
    if engine.api_key_file is not None:
        where = f"model_engine.api_key_file {engine.api_key_file}"
        try:
            key = engine.api_key_file.expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{where}: cannot be read ({type(error).__name__}); write the key into it") from error
    else:
        where = f"environment variable {engine.api_key_env}"
        key = os.environ.get(engine.api_key_env, "").strip()
        if not key:
            if "api_key_env" in engine.model_fields_set:
                raise UsageError(f"{where}: not set on this machine; export it, or give model_engine.api_key_file")
            return None
    if not _KEY.fullmatch(key):
        raise UsageError(f"{where}: {'empty' if not key else 'no key: more than one word, or not ASCII'}; correct it")
    return key


def meet(engine: EngineConfig, card: ModelCard, generation: GenerationConfig) -> None:
    """Check, before a job begins, that each server answers and has the model.

    The other engines need no check. Raises ModelError for the first server that fails.
    """
    if engine.name == "endpoint":
        from vqa.model.engines.endpoint import EndpointEngine

        EndpointEngine(engine, card=card, generation=generation, needs_all=True).close()


def start(engine: EngineConfig, card: ModelCard, generation: GenerationConfig, *, alone: bool = False) -> ModelEngine:
    """Start the engine: load the model, or meet the servers.

    `alone`: see `vqa.model.load.load_model`.

    Raises:
        UsageError: the key is missing.
        ModelError: the model cannot be loaded, or no server answers or has it.
    """
    if engine.name == "endpoint":
        from vqa.model.engines.endpoint import EndpointEngine  # an HTTP client, for those who need it

        return EndpointEngine(engine, card=card, generation=generation)
    if engine.name == "vllm":
        from vqa.model.engines.vllm import VllmEngine

        return VllmEngine(engine, card=card, generation=generation)
    from vqa.model.engines.transformers import TransformersEngine  # torch: seconds that only the worker pays
    from vqa.model.load import load_model

    policy = load_model(card, alone=alone and not engine.compile)
    return TransformersEngine(policy, card=card, generation=generation, compiled=bool(engine.compile))
