"""A student: its folder, weights, scores; transformers only for towers of it."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save as as_bytes
from scipy.optimize import least_squares

from vqa.errors import ClipError, ModelError
from vqa.files import replacing
from vqa.light.basis import BASIS_PARTS, Basis
from vqa.light.card import (
    EMBEDDED_STUDENT,
    WEIGHTS,
    StudentCard,
    read_card,
    write_card,
)
from vqa.light.cascade import Width
from vqa.light.embedding import PLAIN, SIZE, embed, from_usual
from vqa.light.encoder import EfficientNetLite0
from vqa.light.enlargement import Enlargement
from vqa.light.regression import RadialPart, Regressor
from vqa.light.statistics import Vector
from vqa.light.weights import finite_tensors
from vqa.types import Score, Views

if TYPE_CHECKING:
    from vqa.light.clip import ClipEncoder
    from vqa.light.tower import TowerEncoder

# Of the radial part of a regressor, as the file has them.
RADIAL_PARTS = {
    "centre": torch.float32,
    "scale": torch.float32,
    "axes": torch.float16,
    "centres": torch.float16,
    "coefficients": torch.float32,
}
Encoder: TypeAlias = "EfficientNetLite0 | ClipEncoder | TowerEncoder"
NEAREST = "nearest basis: "  # before words that no model wrote


class Student:
    """A light model of what people say: `Student.load().score(views)`."""

    def __init__(
        self,
        network: "Encoder",
        head: "Line | Basis",
        card: StudentCard,
        width: Width | None = None,
        usual: Vector | None = None,
    ) -> None:
        """Put the parts together; weights are rounded to what the file holds.

        `usual`: what a clip gets for what it has not, as of `from_usual`; None for CLIP's encoder.
        """
        self.card, self._width, self._usual = card, width, usual
        self._head = _rounded_head(head)
        self._network = rounded(network) if isinstance(network, EfficientNetLite0) else network

    @classmethod
    def load(cls, folder: Path = EMBEDDED_STUDENT) -> Self:
        """Load a student's folder.

        Raises:
            ModelError: a folder that holds no student, or not a whole one.
        """
        card = read_card(folder)
        try:
            tensors = finite_tensors(folder / WEIGHTS)
            network, size = _encoder_of(tensors, card)
            head = _head_of(tensors, card, size=size)
            usual = tensors["usual"].numpy() if "usual" in tensors else None
        except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, TypeError, ModelError) as error:
            what = " ".join(str(error).split())[:200]
            raise ModelError(
                f"student {folder}: {WEIGHTS} cannot be used ({what}); make it anew with `vqa distill`"
            ) from error
        return cls(network, head, card, Width.load(folder, size=size), usual)

    def save(self, folder: Path) -> None:
        """Write weights (an encoder's in float16), student.yaml, the width if any.

        What the folder carries of another student goes, as of `write_card`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        kept = torch.float32 if self.card.encoder == "clip" else torch.float16
        tensors = {
            f"encoder.{name}": (t.to(kept) if t.is_floating_point() else t).contiguous()
            for name, t in self._network.state_dict().items()
        }
        tensors |= _tensors_of(self._head)
        if self._usual is not None:
            tensors["usual"] = _tensor(self._usual)
        with replacing(folder / WEIGHTS) as draft:
            draft.write_bytes(as_bytes(tensors))
        write_card(folder, self.card)
        if self._width:
            self._width.save(folder)

    def embed(self, views: Views) -> Vector:
        """The clip's embedding, float32 [D]."""
        if self.card.encoder == "clip":
            return cast("ClipEncoder", self._network).embed(views.global_pictures)
        found = embed(
            cast("EfficientNetLite0 | TowerEncoder", self._network), views.global_pictures, self.card.embedding
        )
        return found if self._usual is None else from_usual(found, self._usual)

    def opinion(
        self, embeddings: NDArray[np.floating[Any]], enlargements: Sequence[float | None] | None = None
    ) -> NDArray[np.float64]:
        """Scores on 1-5, [N], of embeddings [N, D]."""
        rows = np.asarray(embeddings, dtype=np.float64)
        if isinstance(self._head, Basis):
            return self._head.opinions(rows)
        return self._head.opinions(rows, enlargements)

    def score(self, views: Sequence[Views]) -> list[Score | ClipError]:
        """Score clips, each by itself: a clip's score does not depend on the others.

        Args:
            views: of each clip, made with the card's settings of views.

        Returns:
            In order, a Score on 1-5 without answers, `score_std` the error to expect of it (null without a `Width`), or
            a ClipError "model" where the pictures cannot be used. Of a student whose scale is severity `score` is None
            and `score_raw` has the number: it is no opinion until a calibration makes it one.
        """
        return [self._score(one) for one in views]

    def _score(self, views: Views) -> Score | ClipError:
        started = time.perf_counter()
        try:
            embedding = self.embed(views).astype(np.float64)
            found = float(self.opinion(embedding[None], [views.enlargement])[0])
            words = self._head.nearest(embedding)
            width = float(self._width.of(embedding[None], np.array([found]))[0]) if self._width else None
        except (RuntimeError, ValueError, MemoryError) as error:
            return ClipError(
                "model", f"{views.clip.clip_id}: the student failed ({type(error).__name__}: {str(error)[:300]})"
            )
        is_opinion = self.card.scale == "opinions"
        return Score(
            score=found if is_opinion else None,
            score_raw=None if is_opinion else found,
            score_std=width,
            score_global=None,
            score_local=None,
            reason=words and f"{NEAREST}{words}",
            answers=(),
            score_seconds=time.perf_counter() - started,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Regressor of embeddings, and a map from places on its line to opinions."""

    regressor: Regressor
    map: "OpinionMap"
    enlargement: Enlargement | None = None  # None: how far a picture was enlarged does not count

    def opinions(
        self, embeddings: NDArray[np.float64], enlargements: Sequence[float | None] | None = None
    ) -> NDArray[np.float64]:
        """On 1-5, [N], of embeddings [N, D]; enlargements are times, None: not known."""
        places = self.regressor.along(embeddings)
        if self.enlargement and enlargements:
            places = self.enlargement.placed(places, enlargements)
        return self.map.opinions(places)

    def nearest(self, embedding: NDArray[np.float64]) -> None:
        """No words: a line has none."""


def _rounded_head(head: Line | Basis) -> Line | Basis:
    """The head with weights rounded to float32, as in the file, computing in float64."""

    def kept(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        return numbers.astype(np.float32).astype(np.float64)

    if isinstance(head, Line):
        return replace(head, regressor=replace(head.regressor, weights=kept(head.regressor.weights)))
    return replace(
        head,
        projection=kept(head.projection),
        offset=kept(head.offset),
        vectors=kept(head.vectors),
        scores=kept(head.scores),
    )


def _tensors_of(head: Line | Basis) -> dict[str, torch.Tensor]:
    if isinstance(head, Line):
        weights, scale = head.regressor.weights, [head.regressor.bias, head.map.middle, head.map.gain]
        found = {"direction": _tensor(weights), "scale": torch.tensor(scale, dtype=torch.float64)}
        if radial := head.regressor.radial:
            found |= {f"radial.{name}": _tensor(getattr(radial, name), dtype) for name, dtype in RADIAL_PARTS.items()}
            found["radial.sharpness"] = torch.tensor([radial.sharpness], dtype=torch.float64)
        if head.enlargement:
            found["enlargement"] = torch.tensor(astuple(head.enlargement), dtype=torch.float64)
        return found
    parts = {f"basis.{name}": _tensor(getattr(head, name)) for name in BASIS_PARTS}
    return parts | {"basis.temperature": torch.tensor([head.temperature], dtype=torch.float64)}


def _tensor(numbers: NDArray[np.floating[Any]], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(numbers).to(dtype)


def _encoder_of(tensors: Mapping[str, torch.Tensor], card: StudentCard) -> tuple[Encoder, int]:
    """Encoder in a student's file, and the size of its embeddings.

    Raises RuntimeError, ValueError, KeyError or ModelError where file and card do not fit.
    """
    inside = {
        name.removeprefix("encoder."): t.float() if t.is_floating_point() else t
        for name, t in tensors.items()
        if name.startswith("encoder.")
    }
    if card.encoder == "efficientnet-lite0":
        lite0 = EfficientNetLite0()
        lite0.load_state_dict(inside, assign=True)
        return lite0.eval(), SIZE
    if card.encoder == "tower":
        if card.tower is None:
            raise ValueError("the card has no tower")
        from vqa.light.tower import TowerEncoder  # transformers: only where one of its models looks

        tower = TowerEncoder(card.tower, {name.removeprefix("tower."): t for name, t in inside.items()})
        return tower, PLAIN + 3 * tower.size
    if card.clip is None:
        raise ValueError("the card has no clip")
    from vqa.light.clip import ClipEncoder

    clip = ClipEncoder(card.clip)
    clip.load_state_dict(inside, assign=True)
    return clip.eval(), clip.size


def _head_of(tensors: Mapping[str, torch.Tensor], card: StudentCard, *, size: int) -> Line | Basis:
    """Head in a student's file. Raises KeyError (part missing), ValueError (size)."""
    if "direction" in tensors:
        weights = tensors["direction"].double().numpy()
        bias, middle, gain = tensors["scale"].double().tolist()
        if weights.shape != (size,):
            raise ValueError(f"{weights.size} weights for embeddings of {size}")
        regressor = Regressor(weights=weights, bias=bias, radial=_radial_of(tensors, size=size))
        taken = Enlargement(*tensors["enlargement"].tolist()) if "enlargement" in tensors else None
        return Line(regressor=regressor, map=OpinionMap(middle=middle, gain=gain), enlargement=taken)
    parts = {name: tensors[f"basis.{name}"].double().numpy() for name in BASIS_PARTS}
    count, axes = parts["vectors"].shape
    sizes = {"projection": (size, axes), "offset": (axes,), "scores": (count,)}
    wrong = [
        f"{name} {parts[name].shape} where {size} is wanted"
        for name, size in sizes.items()
        if parts[name].shape != size
    ]
    if wrong or len(card.words) not in (0, count):
        raise ValueError("; ".join(wrong) or f"words of {len(card.words)} vectors, but there are {count}")
    return Basis(**parts, temperature=tensors["basis.temperature"].item(), words=tuple(card.words))


def _radial_of(tensors: Mapping[str, torch.Tensor], *, size: int) -> RadialPart | None:
    """Radial part in a student's file; None without one. Raises as `_head_of`."""
    if "radial.axes" not in tensors:
        return None
    found = {name: tensors[f"radial.{name}"].double().numpy() for name in RADIAL_PARTS}
    shapes = [found[name].shape for name in RADIAL_PARTS]
    (count, axes) = found["centres"].shape
    if shapes != [(size,), (size,), (size, axes), (count, axes), (count,)]:
        raise ValueError(f"a radial part of {shapes} for embeddings of {size}")
    found["axes"] = found["axes"].astype(np.float32)
    return RadialPart(**found, sharpness=tensors["radial.sharpness"].item())


class OpinionMap:
    """Monotone map from a place on the direction to 1-5: a logistic function."""

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
    """The network, weights rounded to float16, computing in float32, ready to call."""
    return network.half().float().eval().to(memory_format=torch.channels_last)
