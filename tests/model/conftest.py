"""Small checkpoints of real classes, made once for all tests of this folder."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.references.make_checkpoints import Family, make, make_chain
from vqa.model.card import ModelCard
from vqa.model.load import Policy, load_model

# Two threads on two busy cores wait for each other: these matrices are small enough for one.
torch.set_num_threads(1)

# One number with two decimals a line; the words that may follow each other, with their chances.
CHAIN = {
    "\n": {"2": 0.2, "3": 0.5, "4": 0.3},
    "2": {".": 1.0},
    "3": {".": 1.0},
    "4": {".": 1.0},
    ".": {"5": 0.1, "6": 0.6, "7": 0.3},
    "5": {"0": 1.0},
    "6": {"0": 1.0},
    "7": {"0": 1.0},
    "0": {"\n": 0.4, "": 0.6},
}


# What `load_model` reads of a card.
LOADED = {"source", "revision", "subfolder", "dtype", "attention", "device_map", "cpu_threads", "trust_remote_code"}
LOADED |= {"min_pixels", "max_pixels", "modality"}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Path]:
    """The folder of a family's random checkpoint."""
    return cache(lambda family: make(family, tmp_path_factory.mktemp("checkpoints") / family))


@pytest.fixture(scope="session")
def policy(checkpoint: Callable[[Family], Path]) -> Callable[[Family], Policy]:
    """A family's random checkpoint, loaded."""
    return cache(lambda family: load_model(ModelCard(source=str(checkpoint(family)), device_map="cpu")))


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes numbers with chances that we know."""
    return make_chain(tmp_path_factory.mktemp("checkpoints") / "chain", CHAIN)


@pytest.fixture(scope="module")
def read_once() -> Iterator[None]:
    """A checkpoint is read once, and each scorer gets a copy of the model; reading is the subject of test_load.py."""
    read: dict[str, Policy] = {}

    def load_once(card: ModelCard, *, alone: bool = False) -> Policy:
        key = repr(card.model_dump(include=LOADED))
        if key not in read:
            read[key] = load_model(card, alone=alone)
        return replace(read[key], model=copy.deepcopy(read[key].model))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vqa.model.load.load_model", load_once)
        yield
