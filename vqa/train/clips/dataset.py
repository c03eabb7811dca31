"""Training clips of ladders, prepared folders and manifests, loaded on request."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vqa.data.manifest import read_manifest
from vqa.data.public.importer import LADDER
from vqa.data.public.lists import ways_to_split
from vqa.data.synthetic.ladder import read_ladder
from vqa.data.view_cache import prepared_with, read_prepared
from vqa.errors import ClipError, UsageError
from vqa.prompt import HIGHEST, LOWEST, PROMPTS, PromptName, answer_text, messages
from vqa.train.clips.degradation import QUESTION, Damage, damage_answer, damage_of
from vqa.train.clips.ladder import ladder_answer
from vqa.train.types import Chat, Record
from vqa.types import Clip, Views
from vqa.views import ViewsConfig, look

if TYPE_CHECKING:
    from vqa.data.view_cache import PreparedClip

AnswerWriter = Callable[[np.random.Generator, PromptName], str]  # an answer in the form of the prompt
HELD_OUT = ("validation", "val")
STAND_INS = ("ladder", LADDER)  # data sets of ladders, prepared and imported


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedClip:
    """A clip as listed, with its label; no picture of it is loaded yet."""

    clip_id: str
    dataset: str
    split: str | None  # train, validation, test, ...; None: not known, which training refuses
    content_id: str
    opinion: float  # 1-5; NaN for a stand-in that is not to be learned
    place: str  # the ladder, prepared folder or manifest
    uri: str  # the file to decode
    seed: int = 0  # of a ladder's clip
    reason: str | None = None  # an answer's words, of the data set
    distortions: tuple[str, ...] | None = None  # by a ladder's names; None: not known
    severities: tuple[float, ...] = ()  # 0-1, one for each distortion
    prepared: "PreparedClip | None" = None  # where its views are cached

    @property
    def has_stand_in(self) -> bool:
        """Whether its opinion is a ladder's VMAF, and no person's."""
        return self.is_of_ladder or self.dataset in STAND_INS

    @property
    def is_of_ladder(self) -> bool:
        """Whether it is decoded from a ladder's folder."""
        return (Path(self.place) / "ladder.parquet").is_file()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingClip:
    """A clip with the views to load and the answer to learn.

    `write_answer` is None where there is no reason to learn, `chat` where the prompt's own question is asked, `damage`
    where the damage is not known or not one of Q-Insight's classes (see `vqa.train.clips.degradation`).
    """

    clip_id: str
    dataset: str
    opinion: float | None
    load: Callable[[], Views]
    write_answer: AnswerWriter | None = None
    chat: Callable[[Views], Chat] | None = None
    damage: Damage | None = None
    distortions: tuple[str, ...] = ()  # known to be there, by a ladder's names

    def views(self) -> Views:
        """Load the pictures. Raises UsageError where they do not load."""
        try:
            return self.load()
        except (ClipError, OSError, ValueError) as error:
            words = " ".join(str(error).split())[:300].rstrip(".")
            raise UsageError(
                f"clip {self.clip_id} of {self.dataset}: its pictures do not load ({words}). Prepare the data again, "
                "or remove the clip."
            ) from error


def list_training_clips(places: Iterable[str], *, datasets: Sequence[str] = ()) -> list[ListedClip]:
    """All clips of the places: ladders, folders of `vqa prepare`, and manifests.

    Args:
        places: paths.
        datasets: names of data sets to take; empty for all.

    Raises:
        UsageError: for a place that holds no clips, a data set that is not there or has a single clip, a clip without a
            split, and an opinion that is missing or not on 1-5.
    """
    every = [clip for place in places for clip in _list(Path(place))]
    clips = [clip for clip in every if not datasets or clip.dataset in datasets]
    missing = set(datasets) - {clip.dataset for clip in clips}
    if missing:
        there = ", ".join(sorted({clip.dataset for clip in every})) or "none"
        raise UsageError(
            f"data: no clips of {', '.join(sorted(missing))} in {', '.join(places) or 'no place'}, which hold {there}. "
            "Give --data with them, or correct `datasets`."
        )
    by_set: dict[str, list[ListedClip]] = defaultdict(list)
    for clip in clips:
        if not LOWEST <= clip.opinion <= HIGHEST:
            raise UsageError(
                f"{clip.place}: clip {clip.clip_id} has the opinion {clip.opinion:g}, not on {LOWEST:g}-{HIGHEST:g}. "
                "Import it with its scale: vqa data import --scale LOW,HIGH."
            )
        by_set[clip.dataset].append(clip)
    for name, some in by_set.items():
        if bare := [clip.clip_id for clip in some if not clip.split]:
            raise UsageError(
                f"data set {name!r} in {some[0].place}: {len(bare)} of {len(some)} clips have no split, such as "
                f"{bare[0]}; they may be its test clips. {ways_to_split(name)}"
            )
        if len(some) < 2:
            raise UsageError(
                f"data set {name!r} in {some[0].place} has one clip, {some[0].clip_id}, and nothing to compare it "
                "with. Add clips, or remove the data set."
            )
    return clips


def check_views(place: str, wanted: ViewsConfig) -> None:
    """Check that a place was prepared with the views that a recipe wants.

    Raises:
        UsageError: naming the keys and values that differ.
    """
    before = prepared_with(Path(place)).get("views") if Path(place).is_dir() else None
    if before is None:
        return
    now = wanted.identity()
    changed = [key for key in dict.fromkeys([*now, *before]) if before.get(key) != now.get(key)]
    if changed:
        said = "; ".join(f"views.{key} = {before.get(key)}, where the recipe has {now.get(key)}" for key in changed)
        own = " ".join(f"--set views.{key}={before.get(key)}" for key in changed)
        raise UsageError(
            f"data {place}: its clips were prepared with {said}. Prepare them by `vqa prepare MANIFEST --for RECIPE` "
            f"into another folder, or train on what is there by {own}."
        )


def _list(place: Path) -> Iterator[ListedClip]:
    if (place / "ladder.parquet").is_file():
        yield from (_of_row(row, place, opinion=row["opinion"], folder=place) for row in read_ladder(place))
        return
    if place.suffix == ".parquet" and place.is_file():
        yield from (_of_row(row, place, opinion=row["mos"]) for row in read_manifest(place).table.to_pylist())
        return
    if place.is_file():
        raise UsageError(f"data {place}: not a manifest (.parquet). Make one of a label file by `vqa data import`.")
    if place.suffix == ".parquet" and not place.exists():
        raise UsageError(f"data {place}: no such file. Make a manifest of a label file by `vqa data import`.")
    if not place.is_dir():
        raise UsageError(
            f"data {place}: no such folder. Make it by `vqa data synth` (a ladder) or `vqa prepare` (a data set)."
        )
    for clip in read_prepared(place):
        yield ListedClip(
            clip_id=clip.clip_id,
            dataset=clip.dataset or "ladder",
            split=clip.split,
            content_id=clip.content_id or clip.clip_id,
            opinion=_opinion(clip.opinion, clip.clip_id, place),
            place=str(place),
            uri=clip.uri,
            reason=clip.reason,
            distortions=clip.distortions,
            severities=clip.severities,
            prepared=clip,
        )


def _of_row(row: Record, place: Path, *, opinion: float | None, folder: Path | None = None) -> ListedClip:
    done = row.get("distortions")
    return ListedClip(
        clip_id=row["clip_id"],
        dataset=row.get("dataset") or "ladder",
        split=row["split"],
        content_id=row.get("content_id") or row["clip_id"],
        opinion=_opinion(opinion, row["clip_id"], place),
        place=str(place),
        uri=str(folder / row["uri"]) if folder else row["uri"],
        seed=row["seed"] if folder else 0,
        reason=row.get("reason"),
        distortions=None if done is None else tuple(done),
        severities=tuple(row.get("severities") or ()),
    )


def _opinion(given: float | None, clip_id: str, place: Path) -> float:
    if given is None:
        raise UsageError(f"{place}: clip {clip_id} has no opinion. Import the data set with its labels.")
    return float(given)


def split_clips(clips: Sequence[ListedClip], *, held_out: int, seed: int) -> tuple[list[ListedClip], list[ListedClip]]:
    """Clips to train on and to validate on; those of other splits are in neither.

    Args:
        clips: as listed.
        held_out: how many to validate on, at most. Without a validation split, whole contents are held out, a tenth of
            the clips at most.
        seed: of the choice.

    Raises:
        UsageError: where fewer than two different opinions are left to train on.
    """
    train = [clip for clip in clips if clip.split in ("train", "training")]
    validation = [clip for clip in clips if clip.split in HELD_OUT and not math.isnan(clip.opinion)]
    if not validation:
        most, chosen = min(held_out, len(train) // 10), set[tuple[str, str]]()
        sizes = Counter((clip.dataset, clip.content_id) for clip in train if not math.isnan(clip.opinion))
        for content in sorted(sizes, key=lambda content: _digest(seed, *content)):
            if sum(sizes[one] for one in chosen) + sizes[content] <= most:
                chosen.add(content)
        validation = [clip for clip in train if (clip.dataset, clip.content_id) in chosen]
        train = [clip for clip in train if (clip.dataset, clip.content_id) not in chosen]
    if len(validation) > held_out:
        order = sorted(validation, key=lambda clip: _digest(seed, clip.clip_id))
        few = {clip.clip_id for clip in order[:held_out]}
        validation = [clip for clip in validation if clip.clip_id in few]
    if len({clip.opinion for clip in train if not math.isnan(clip.opinion)}) < 2:
        where = ", ".join(sorted({clip.place for clip in clips})) or "data"
        raise UsageError(f"{where}: {len(train)} train clips without two different opinions. Add clips.")
    return train, validation


def load_clips(
    clips: Sequence[ListedClip], *, views: ViewsConfig, seed: int, views_per_clip: int = 1, threads: int = 1
) -> list[TrainingClip]:
    """Clips with their views to load.

    Args:
        clips: of one or several places.
        views: how a clip is decoded; prepared clips have been decoded already.
        seed: of samplers that draw.
        views_per_clip: how often each clip of a ladder is decoded, with other frames and crops.
        threads: that decode ladders.

    Returns:
        One training clip per clip, or `views_per_clip` for those of ladders, which are decoded at once and kept in
        memory; clips of a ladder that cannot be decoded are skipped.
    """
    found: list[TrainingClip] = []
    by_place: dict[str, list[ListedClip]] = defaultdict(list)
    for clip in clips:
        by_place[clip.place].append(clip)
    for some in by_place.values():
        if some[0].is_of_ladder:
            for number in range(views_per_clip):
                shown = _ladder_views(some, number, views=views, seed=seed + number, threads=threads)
                found += [_training_clip(clip, partial(_same, one)) for clip, one in shown]
        elif some[0].prepared is None:
            found += [_training_clip(clip, partial(_decode, clip, views, seed)) for clip in some]
        else:
            is_ladder = any(clip.distortions for clip in some)  # then a clip without any is undamaged
            found += [_training_clip(clip, clip.prepared.load, is_ladder=is_ladder) for clip in some if clip.prepared]
    return found


def _ladder_views(
    clips: Sequence[ListedClip], number: int, *, views: ViewsConfig, seed: int, threads: int
) -> list[tuple[ListedClip, Views]]:
    """The clips that can be decoded, in their order."""

    def one(clip: ListedClip) -> Views | None:
        try:
            return _decode(clip, _varied(views, number, clip.seed), seed + clip.seed % 1_000_003)
        except ClipError:
            return None

    with ThreadPoolExecutor(threads) as pool:
        return [(clip, found) for clip, found in zip(clips, pool.map(one, clips), strict=True) if found is not None]


def _varied(views: ViewsConfig, number: int, seed: int) -> ViewsConfig:
    """View settings of decoding `number` of a clip: 0 as in scoring, others varied.

    They draw frames and boxes, and how many there are: a model that has only met twelve local pictures writes nothing
    that can be parsed for three.
    """
    if number == 0:
        return views
    generator = np.random.default_rng((number, seed))
    drawn = {
        "temporal": "segment",
        "spatial": "grid",
        "keyframes": max(1, int(views.keyframes * generator.choice((0.5, 1, 2)))),
        "global_pixels": max(64, views.global_pixels // int(generator.choice((1, 2)))),
        "local_pictures": int(generator.integers(min(1, views.local_pictures), views.local_pictures + 1)),
    }
    return views.model_copy(update=drawn)


def view_of(clip: ListedClip, views: ViewsConfig) -> Views:
    """Views of a clip, cached or decoded; UsageError where they do not load."""
    load = clip.prepared.load if clip.prepared else partial(_decode, clip, views, 0)
    return TrainingClip(clip_id=clip.clip_id, dataset=clip.dataset, opinion=clip.opinion, load=load).views()


def knows_damage(clip: ListedClip) -> bool:
    """Whether the clip's damage is known: a ladder's, of a single distortion."""
    return bool(clip.distortions) and damage_of(clip.distortions or (), clip.severities) is not None


def _decode(clip: ListedClip, views: ViewsConfig, seed: int) -> Views:
    return look(Clip(clip_id=clip.clip_id, uri=clip.uri), views, seed=seed)


def _same(views: Views) -> Views:
    return views


def _training_clip(clip: ListedClip, load: Callable[[], Views], *, is_ladder: bool = False) -> TrainingClip:
    done = _distortions(clip, is_ladder=is_ladder)
    return TrainingClip(
        clip_id=clip.clip_id,
        dataset=clip.dataset,
        opinion=None if math.isnan(clip.opinion) else clip.opinion,
        load=load,
        write_answer=answer_writer(clip, is_ladder=is_ladder),
        damage=None if done is None else damage_of(done, clip.severities),
        distortions=done or (),
    )


def answer_writer(clip: ListedClip, *, is_ladder: bool = False) -> AnswerWriter | None:
    """Answer to learn: the clip's own reason or its ladder's facts; None without."""
    if math.isnan(clip.opinion):
        return None
    if clip.reason:
        return partial(_reasoned, clip.reason, clip.opinion)
    done = _distortions(clip, is_ladder=is_ladder)
    if done is None:
        return None
    return partial(ladder_answer, opinion=clip.opinion, distortions=done, severities=clip.severities)


def _distortions(clip: ListedClip, *, is_ladder: bool) -> tuple[str, ...] | None:
    """Distortions of a clip; None where not known.

    An empty list in a view cache means none only on a ladder.
    """
    is_known = clip.distortions or (clip.distortions is not None and (is_ladder or clip.prepared is None))
    return clip.distortions if is_known else None


def damage_clips(clips: Sequence[TrainingClip], prompt: PromptName) -> list[TrainingClip]:
    """Clips of known damage, each with the question about it and the true answer."""
    return [
        replace(clip, write_answer=partial(damage_answer, clip.damage), chat=partial(_damage_chat, prompt))
        for clip in clips
        if clip.damage is not None
    ]


def _damage_chat(prompt: PromptName, views: Views) -> Chat:
    return messages(prompt, **views.counts, question=QUESTION)


def _reasoned(reason: str, opinion: float, _: np.random.Generator, prompt: str) -> str:
    return answer_text(reason, [opinion] * PROMPTS[prompt].dimensions, PROMPTS[prompt].form)


def digest_of(clips: Sequence[ListedClip]) -> str:
    """Digest of ids, data sets, splits and opinions, in their order."""
    return _digest(*((clip.clip_id, clip.dataset, clip.split, clip.opinion) for clip in clips))


def _digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def seed_of(*parts: object) -> int:
    """A seed that depends on the parts alone, not on machine or process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest())
