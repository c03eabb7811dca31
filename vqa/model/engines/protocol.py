"""Questions to a model engine and its answers, the same for all; without torch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vqa.errors import ClipError
from vqa.model.card import GenerationConfig
from vqa.model.readout import Said
from vqa.types import Views


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What one clip is asked."""

    name: str  # its clip_id, or of a second question a name of its own: seeds follow from it
    views: Views
    words: str | None  # in place of the prompt's own question
    k: int  # answers

    def seeds(self, generation: GenerationConfig) -> list[int]:
        """Seed of each answer, 63 bits."""
        return [_seed(generation.seed, self.name, rollout) for rollout in range(self.k)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """K answers to a question, with the seconds and the tokens that they took."""

    said: tuple[Said, ...]
    seconds: float
    prompt_tokens: int | None = None  # pictures among them, once for all K answers
    answer_tokens: int | None = None  # of all K, without their ends


class ModelEngine(Protocol):
    """What a Scorer needs of an engine."""

    @property
    def model_id(self) -> str:
        """Model: "embedded", a hub id, a folder, or its name on the servers."""

    @property
    def model_revision(self) -> str:
        """Hub commit, folder digest, or `served` where a server does not say."""

    def ask(self, questions: Sequence[Question]) -> list[Answered | ClipError]:
        """Answer each question, in order; a ClipError for each on which the model fails.

        Raises ModelError where this engine can answer nothing more.
        """

    def close(self) -> None:
        """Let the model go."""


def _seed(seed: int, clip_id: str, rollout: int) -> int:
    name = f"{seed}\0{clip_id}\0{rollout}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1
