"""A model for whole runs: Qwen2.5-VL classes, a few thousand weights, writes a digit and then spaces for a while."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from vqa.console import Engine


@pytest.fixture(scope="session")
def model_card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card whose model scores each clip by the luck of its own seed: any mix-up of clips shows in the numbers."""
    from tests.references.make_checkpoints import make_chain  # torch: not to collect tests

    folder = tmp_path_factory.mktemp("model")
    digits = {str(n): 0.2 for n in range(1, 6)}
    make_chain(folder / "chain", {"\n": digits, **{d: {" ": 1.0} for d in digits}, " ": {" ": 0.9, "": 0.1}})
    card = folder / "chain.yaml"
    card.write_text(
        f"source: {folder / 'chain'}\n"
        "prompt: visualquality_r1\n"
        "cpu_threads: 1\n"  # more only get into each other's way with so small a model
        "views: {keyframes: 4, global_pixels: 112, local_pictures: 1, crop_pixels: 56}\n"
        "generation: {generation: sample, k: 3, max_new_tokens: 30, batch_size: 3}\n",
        encoding="utf-8",
    )
    return card


@pytest.fixture(params=[Engine.LOCAL, pytest.param(Engine.RAY, marks=pytest.mark.ray)])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Either engine; Ray is started for the one that needs it."""
    if request.param is Engine.RAY:
        request.getfixturevalue("local_ray")
    return Engine(request.param)


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """The URL of a bucket of S3."""
    from tests.support.buckets import s3  # boto3: not to collect tests

    with s3() as url:
        yield url
