"""A student: its folder, its weights, and the score it gives a clip. Imports torch, never transformers."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as as_bytes
from scipy.optimize import least_squares

from vqa.errors import ClipError, ModelError
from vqa.files import replacing
from vqa.light.card import CARD, EMBEDDED, WEIGHTS, WIDTH, StudentCard, read_card
from vqa.light.cascade import Width
from vqa.light.embedding import SIZE, Vector, embed
from vqa.light.encoder import EfficientNetLite0
from vqa.light.regression import Direction
from vqa.types import Score, Views


class Student:
    """A light model of what people say: `Student.load().score(views)`."""

    def __init__(
        self,
        network: EfficientNetLite0,
        direction: Direction,
        opinion: "OpinionMap",
        card: StudentCard,
        width: Width | None = None,
    ) -> None:
        """Put the parts together; weights are rounded to what the file holds."""
        kept = direction.weights.astype(np.float32).astype(np.float64)
        self.card, self._map, self._width = card, opinion, width
        self._direction = Direction(weights=kept, bias=direction.bias)
        self._network = rounded(network)

    @classmethod
    def load(cls, folder: Path = EMBEDDED) -> Self:
        """Load a student's folder.

        Raises:
            ModelError: a folder that holds no student, or not a whole one.
        """
        card = read_card(folder)
        try:
            tensors = load_file(folder / WEIGHTS)
            network = EfficientNetLite0()
            inside = {
                name.removeprefix("encoder."): t.float() for name, t in tensors.items() if name.startswith("encoder.")
            }
            network.load_state_dict(inside)
            weights = tensors["direction"].double().numpy()
            bias, middle, gain = tensors["scale"].double().tolist()
        except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
            what = " ".join(str(error).split())[:200]
            raise ModelError(
                f"student {folder}: {WEIGHTS} cannot be used ({what}); make it anew with `vqa distill`"
            ) from error
        if weights.shape != (SIZE,):
            raise ModelError(
                f"student {folder}: {weights.size} weights for embeddings of {SIZE}; make it anew with `vqa distill`"
            )
        opinion, width = OpinionMap(middle=middle, gain=gain), Width.load(folder, size=SIZE)
        return cls(network, Direction(weights=weights, bias=bias), opinion, card, width)

    def save(self, folder: Path) -> None:
        """Write the folder: student.safetensors (the encoder in float16) and student.yaml."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"encoder.{name}": t.half().contiguous() for name, t in self._network.state_dict().items()}
        tensors["direction"] = torch.from_numpy(self._direction.weights.astype(np.float32))
        tensors["scale"] = torch.tensor([self._direction.bias, self._map.middle, self._map.gain], dtype=torch.float64)
        with replacing(folder / WEIGHTS) as draft:
            draft.write_bytes(as_bytes(tensors))
        text = yaml.safe_dump(self.card.model_dump(mode="json"), sort_keys=False, width=120)
        with replacing(folder / CARD) as draft:
            draft.write_text(text, encoding="utf-8")
        (folder / WIDTH).unlink(missing_ok=True)
        if self._width:
            self._width.save(folder)

    def embed(self, views: Views) -> Vector:
        """The clip's embedding, float32 [SIZE]."""
        return embed(self._network, views.global_pictures, self.card.embedding)

    def opinion(self, embeddings: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Scores on 1-5 of embeddings [N, SIZE], [N]."""
        return self._map.opinions(self._direction.along(np.asarray(embeddings, dtype=np.float64)))

    def score(self, views: Sequence[Views]) -> list[Score | ClipError]:
        """Score clips, each by itself: a clip's score does not depend on the others.

        Args:
            views: of each clip, made with the card's settings of views.

        Returns:
            In order, a Score on 1-5 without answers, `score_std` the error to expect of it (null without a `Width`), or
            a ClipError "model" where the pictures cannot be used.
        """
        return [self._score(one) for one in views]

    def _score(self, views: Views) -> Score | ClipError:
        started = time.perf_counter()
        try:
            embedding = self.embed(views).astype(np.float64)
            found = float(self.opinion(embedding[None])[0])
            width = float(self._width.of(embedding[None])[0]) if self._width else None
        except (RuntimeError, ValueError, MemoryError) as error:
            return ClipError(
                "model", f"{views.clip.clip_id}: the student failed ({type(error).__name__}: {str(error)[:300]})"
            )
        return Score(
            score=found,
            score_std=width,
            score_global=None,
            score_local=None,
            reason=None,
            answers=(),
            score_seconds=time.perf_counter() - started,
        )


class OpinionMap:
    """The monotone map from a place on the direction to 1-5: a logistic between the scale's two ends."""

    def __init__(self, *, middle: float, gain: float) -> None:
        """`middle` is where 3 is given, `gain` > 0 the slope."""
        self.middle, self.gain = middle, gain

    @classmethod
    def fit(cls, places: NDArray[np.float64], opinions: NDArray[np.float64]) -> Self:
        """Fit to opinions on 1-5 [N] by least squares."""

        def error(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
            return cls(middle=float(parameters[0]), gain=math.exp(parameters[1])).opinions(places) - opinions

        start = np.array([places.mean(), math.log(1 / max(float(places.std()), 1e-9))])
        middle, log_gain = least_squares(error, start).x.tolist()
        return cls(middle=middle, gain=math.exp(log_gain))

    def opinions(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """On 1-5, [N]."""
        return np.asarray(1 + 4 / (1 + np.exp(-np.clip(self.gain * (places - self.middle), -60, 60))))


def rounded(network: EfficientNetLite0) -> EfficientNetLite0:
    """The network with weights as float16 holds them, computing in float32, ready to be called."""
    return network.half().float().eval().to(memory_format=torch.channels_last)
