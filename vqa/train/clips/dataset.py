"""What a recipe learns from: clips of ladders, prepared folders and manifests, listed first, loaded when asked for."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vqa.data.manifest import read_manifest
from vqa.errors import ClipError, UsageError
from vqa.prompt import HIGHEST, LOWEST, PresetName, answer_text, messages
from vqa.train.clips.degradation import QUESTION, Damage, damage_of, tell_damage
from vqa.train.clips.ladder import answer, look_at, read_ladder
from vqa.types import Clip, Views
from vqa.views import ViewsConfig, look

Say = Callable[[np.random.Generator, int], str]  # an answer, with so many numbers
HELD_OUT = ("validation", "val")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A clip as listed: nothing of it is loaded yet."""

    clip_id: str
    dataset: str
    split: str  # train, validation, test, ...
    content_id: str
    opinion: float  # 1-5
    place: str  # the ladder, prepared folder or manifest
    source: Any  # its row there


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """A clip to learn from. `say` is None where there is no reason; `chat` where the prompt's own question is asked;
    `damage` where nobody knows it, or it has no name (see `vqa.train.clips.degradation`)."""

    clip_id: str
    dataset: str
    opinion: float | None
    load: Callable[[], Views]
    say: Say | None = None
    chat: Callable[[Views], list[dict[str, Any]]] | None = None
    damage: Damage | None = None
    distortions: tuple[str, ...] = ()  # known to be there, by a ladder's names

    def views(self) -> Views:
        """Its pictures. Raises UsageError where they do not load."""
        try:
            return self.load()
        except (ClipError, OSError, ValueError) as error:
            words = " ".join(str(error).split())[:300]
            raise UsageError(
                f"clip {self.clip_id} of {self.dataset}: its pictures do not load ({words}); prepare the data again, "
                "or leave the clip out"
            ) from error


def listed(places: Iterable[str], *, datasets: Sequence[str] = ()) -> list[Known]:
    """All clips of the places (of these data sets, if any are named). Raises UsageError for what cannot teach."""
    every = [clip for place in places for clip in _list(Path(place))]
    clips = [clip for clip in every if not datasets or clip.dataset in datasets]
    missing = set(datasets) - {clip.dataset for clip in clips}
    if missing:
        there = ", ".join(sorted({clip.dataset for clip in every})) or "none"
        raise UsageError(
            f"data: no clips of {', '.join(sorted(missing))} in {', '.join(places) or 'no place'}, which hold {there}; "
            "give --data with them, or mend `datasets`"
        )
    by_set: dict[str, list[Known]] = defaultdict(list)
    for clip in clips:
        if not LOWEST <= clip.opinion <= HIGHEST:
            raise UsageError(
                f"{clip.place}: clip {clip.clip_id} has the opinion {clip.opinion:g}, wanted {LOWEST:g}-{HIGHEST:g}; "
                "import it with its scale: vqa data import --scale LOW,HIGH"
            )
        by_set[clip.dataset].append(clip)
    for name, some in by_set.items():
        if len(some) < 2:
            raise UsageError(
                f"data set {name!r} in {some[0].place} has one clip, {some[0].clip_id}: nothing to compare it with; "
                "add clips or leave the set out"
            )
    return clips


def _list(place: Path) -> list[Known]:
    if (place / "ladder.parquet").is_file():
        rows = read_ladder(place)
        return [_known(row, str(place), row) for row in rows]
    if place.suffix == ".parquet" and place.is_file():
        rows = read_manifest(place).table.to_pylist()
        return [_known(row | {"opinion": row["mos"]}, str(place), row) for row in rows]
    if place.is_file():
        raise UsageError(f"data {place}: no manifest (.parquet); make one of a label file by `vqa data import`")
    if not place.is_dir():
        raise UsageError(
            f"data {place}: no such folder; make it by `vqa data synth` (a ladder) or `vqa prepare` (a data set)"
        )
    from vqa.data.view_cache import read_prepared  # here, so that ladders need nothing of it

    found = []
    for clip in read_prepared(place):
        fields = ("clip_id", "dataset", "split", "content_id", "opinion")
        found.append(_known({name: getattr(clip, name) for name in fields}, str(place), clip))
    return found


def _known(row: dict[str, Any], place: str, source: Any) -> Known:
    if row["opinion"] is None:
        raise UsageError(f"{place}: clip {row['clip_id']} has no opinion; import the set with its labels")
    return Known(
        clip_id=row["clip_id"],
        dataset=row.get("dataset") or "ladder",
        split=row["split"] or "train",
        content_id=row.get("content_id") or row["clip_id"],
        opinion=float(row["opinion"]),
        place=place,
        source=source,
    )


def parted(clips: Sequence[Known], *, held_out: int, seed: int) -> tuple[list[Known], list[Known]]:
    """Clips to learn from, and at most `held_out` to choose and judge by; those of other splits are left alone.

    Without a validation split, whole contents are held out, a tenth of the clips at most.
    """
    train = [clip for clip in clips if clip.split in ("train", "training")]
    kept = [clip for clip in clips if clip.split in HELD_OUT]
    if not kept:
        most, chosen = min(held_out, len(train) // 10), set[tuple[str, str]]()
        sizes = Counter((clip.dataset, clip.content_id) for clip in train)
        for content in sorted(sizes, key=lambda content: _digest(seed, *content)):
            if sum(sizes[one] for one in chosen) + sizes[content] <= most:
                chosen.add(content)
        kept = [clip for clip in train if (clip.dataset, clip.content_id) in chosen]
        train = [clip for clip in train if (clip.dataset, clip.content_id) not in chosen]
    if len(kept) > held_out:
        order = sorted(kept, key=lambda clip: _digest(seed, clip.clip_id))
        few = {clip.clip_id for clip in order[:held_out]}
        kept = [clip for clip in kept if clip.clip_id in few]
    if len({clip.opinion for clip in train}) < 2:
        where = ", ".join(sorted({clip.place for clip in clips})) or "data"
        raise UsageError(f"{where}: {len(train)} train clips without two different opinions; add clips")
    return train, kept


def samples(clips: Sequence[Known], *, views: ViewsConfig, seed: int, looks: int = 1, threads: int = 1) -> list[Sample]:
    """The clips ready to be loaded. Those of ladders are looked at here and now, `looks` times, and kept in memory."""
    found: list[Sample] = []
    by_place: dict[str, list[Known]] = defaultdict(list)
    for clip in clips:
        by_place[clip.place].append(clip)
    for place, some in by_place.items():
        if (Path(place) / "ladder.parquet").is_file():
            found += _of_ladder(Path(place), some, views=views, seed=seed, looks=looks, threads=threads)
        elif isinstance(some[0].source, dict):
            found += [_sample(clip, _look(clip, views, seed)) for clip in some]
        else:
            is_ladder = any(clip.source.distortions for clip in some)  # then one without any is whole
            found += [_sample(clip, clip.source.load, is_ladder=is_ladder) for clip in some]
    return found


def _of_ladder(
    folder: Path, clips: Sequence[Known], *, views: ViewsConfig, seed: int, looks: int, threads: int
) -> list[Sample]:
    of = {clip.clip_id: clip for clip in clips}
    found = []
    rows = [clip.source for clip in clips]
    for number in range(looks):
        settings = partial(_drawn, views, number)
        seen = look_at(rows, folder, settings=settings, seed=seed + number, threads=threads)
        found += [_sample(of[one.views.clip.clip_id], partial(_same, one.views)) for one in seen]
    return found


def _drawn(views: ViewsConfig, number: int, row: dict[str, Any]) -> ViewsConfig:
    """The first look sees what scoring sees. Later ones draw their frames and boxes afresh, and how many there are: a
    model that has only met twelve local pictures writes nothing that can be read of three."""
    if number == 0:
        return views
    generator = np.random.default_rng((number, row["seed"]))
    drawn = {
        "temporal": "segment",
        "spatial": "grid",
        "keyframes": max(1, int(views.keyframes * generator.choice((0.5, 1, 2)))),
        "global_pixels": max(64, views.global_pixels // int(generator.choice((1, 2)))),
        "local_pictures": int(generator.integers(min(1, views.local_pictures), views.local_pictures + 1)),
    }
    return views.model_copy(update=drawn)


def _same(views: Views) -> Views:
    return views


def _look(clip: Known, views: ViewsConfig, seed: int) -> Callable[[], Views]:
    source = Clip(clip_id=clip.clip_id, uri=clip.source["uri"])
    return partial(look, source, views, seed=seed)


def _sample(clip: Known, load: Callable[[], Views], *, is_ladder: bool = False) -> Sample:
    harms = _harms(clip, is_ladder=is_ladder)
    return Sample(
        clip_id=clip.clip_id,
        dataset=clip.dataset,
        opinion=clip.opinion,
        load=load,
        say=saying(clip, is_ladder=is_ladder),
        damage=None if harms is None else damage_of(*harms),
        distortions=tuple(harms[0]) if harms else (),
    )


def saying(clip: Known, *, is_ladder: bool = False) -> Say | None:
    """What a clip teaches to say: its own reason, or what was done to it on a ladder; None for neither."""
    reason, harms = _told(clip, "reason"), _harms(clip, is_ladder=is_ladder)
    if reason:
        return partial(_reasoned, reason, clip.opinion)
    return harms and partial(answer, opinion=clip.opinion, distortions=harms[0], severities=harms[1])


def _harms(clip: Known, *, is_ladder: bool) -> tuple[Sequence[str], Sequence[float]] | None:
    """What was done to the clip, and how strongly (0-1); None where nobody knows. None done is known of a ladder."""
    done = _told(clip, "distortions")
    is_known = done or (done is not None and (is_ladder or isinstance(clip.source, dict)))
    return (done, _told(clip, "severities")) if is_known else None


def _told(clip: Known, name: str) -> Any:
    return clip.source.get(name) if isinstance(clip.source, dict) else getattr(clip.source, name)


def damage_asked(samples: Sequence[Sample], prompt: PresetName) -> list[Sample]:
    """The clips whose damage is known, asked for it, with an answer that is true."""
    return [
        replace(
            one,
            say=partial(tell_damage, one.damage),
            chat=partial(_asking, prompt),
        )
        for one in samples
        if one.damage is not None
    ]


def _asking(prompt: PresetName, views: Views) -> list[dict[str, Any]]:
    counts = {"global_count": len(views.global_pictures), "local_count": len(views.local_pictures)}
    return messages(prompt, **counts, question=QUESTION)


def _reasoned(reason: str, opinion: float, _: np.random.Generator, numbers: int) -> str:
    return answer_text(reason, [opinion] * numbers)


def digest_of(clips: Sequence[Known]) -> str:
    """Of what is learned from: ids, sets, splits and opinions, in their order."""
    return _digest(*((clip.clip_id, clip.dataset, clip.split, clip.opinion) for clip in clips))


def _digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def seed_of(*parts: object) -> int:
    """The same seed for the same parts, on any machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest())
