"""Import a public data set: label file in, manifest out, opinions on 1-5."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from vqa.data.manifest import Manifest, RatingScale, make_manifest
from vqa.data.people import PeopleSet, find_people_set
from vqa.data.public.layouts import ImportRequest, LabelledFile, LabelRow, label_rows, recognise, refuse_repeats
from vqa.data.public.lists import assign_splits
from vqa.data.public.locate import join, locate
from vqa.data.public.specs import DIALECTS, LabelForm, SetSpec, load_set
from vqa.data.tables import format_of, read_columns
from vqa.errors import UsageError, first_few

MANY, CORNER = 30, 0.1  # so many opinions within so small a share of the scale most likely belong to another scale
LADDER = "vmaf-stand-in-ladder"  # the name says that its opinions are VMAF, not people's


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """A manifest, and notes for the user on how it was made."""

    manifest: Manifest
    notes: list[str]


def import_labels(request: ImportRequest) -> Import:
    """Read a public data set's labels, find its files and map its opinions to 1-5.

    Args:
        request: What to import; `name` is a data set of configs/data or a dialect.

    Returns:
        The manifest, and notes: the dialect, rows skipped, counts beside the published ones.

    Raises:
        UsageError: If the labels fit no known layout or scale, or files are missing; the message names row and value.
    """
    dataset, spec, dialects = resolve_set(request)
    form, cells, dialect = recognise(request, spec, dialects)
    notes = [] if dialect is None else [f"labels are in dialect {dialect}"]
    notes += [form.note] if form.note else []
    rows, unrated = label_rows(request, spec, form, cells)
    if unrated:
        notes.append(f"{len(unrated)} rows without an opinion left out (rows {first_few(unrated)} of the labels)")
    refuse_repeats(rows, request.labels)
    scale = _scale(request, spec, form, dialect, dataset, rows)
    _check_direction(spec, rows, scale, request.labels)
    notes += assign_splits(request, spec, dialects, rows)
    base = locate(request, spec, rows, notes)
    people = people_set_of(request, spec)
    folds = assign_folds(people, rows) if people else []
    std_scale = RatingScale(low=spec.std_within[0], high=spec.std_within[1]) if spec.std_within else scale
    manifest = make_manifest(
        (
            {
                "clip_id": f"{dataset}/{row.name}",
                "uri": join(base, row.name),
                "dataset": dataset,
                "split": request.split or row.split,
                "content_id": f"{dataset}/{row.content}",
                "kind": request.kind or spec.kind,
                "mos_raw": row.raw,
                "mos": scale.to_mos(row.raw),
                "mos_std": None if row.std is None else std_scale.to_mos_std(row.std),
                "aspects": sorted(row.aspects.items()) or None,
                "reference_uri": row.reference and join(join(request.root, spec.reference_folder or ""), row.reference),
            }
            for row in rows
        ),
        scales={dataset: scale},
    )
    notes += _count_notes(spec, len(rows))
    if people:
        manifest = replace(manifest, table=manifest.table.append_column("fold", pa.array(folds, pa.int64())))
    if people and people.shown_size:
        width, height = people.shown_size
        shown = pa.array([f"{width}x{height}"] * len(rows))
        manifest = replace(manifest, table=manifest.table.append_column("shown_size", shown))
    notes += people_notes(people, assigned="split and fold")
    return Import(manifest=manifest, notes=notes)


def resolve_set(request: ImportRequest) -> tuple[str, SetSpec, tuple[str, ...]]:
    """Name and specification of the set, dialects to try; one that is named, alone.

    Raises UsageError for a set that is unknown, and a dialect without one.
    """
    if request.name in DIALECTS:
        if request.dataset is None:
            raise UsageError(
                f"import {request.name}: a dialect names no data set. Give --dataset NAME (a known one, or your own)."
            )
        try:
            spec = load_set(request.dataset)
        except UsageError:
            spec = SetSpec(kind=request.kind or "video")
        return request.dataset, spec.model_copy(update={"forms": ()}), (request.name,)
    return request.dataset or request.name, load_set(request.name), tuple(DIALECTS)


def _scale(
    request: ImportRequest, spec: SetSpec, form: LabelForm, dialect: str | None, dataset: str, rows: Sequence[LabelRow]
) -> RatingScale:
    """Scale asked for, else of the form, the dialect or the set. Raises UsageError."""
    if request.scale is not None:
        scale = parse_scale(request.scale, [row.raw for row in rows], source=str(request.labels.name))
    else:
        of_dialect = spec.dialect_scales.get(dialect or "") or (DIALECTS[dialect].scale if dialect else None)
        known = form.scale or of_dialect or spec.scale
        if known is None:
            low, high = min(row.raw for row in rows), max(row.raw for row in rows)
            raise UsageError(
                f"{dataset}: its rating scale is not documented (opinions here range from {low:g} to {high:g}). Give "
                "--scale LOW,HIGH (add ,lower if lower is better), or --scale observed for the range in this file."
            )
        scale = known.scale()
        _refuse_corner(scale, [row.raw for row in rows], dataset, request.labels)
    for row in rows:
        if not scale.low <= row.raw <= scale.high:
            raise UsageError(
                f"{request.labels}, row {row.number} ({row.listed}): opinion {row.raw:g} is outside the scale {scale}"
                f"{f' ({scale.source})' if scale.source else ''}. Give the right scale by --scale LOW,HIGH."
            )
    return scale


def _refuse_corner(scale: RatingScale, opinions: Sequence[float], dataset: str, labels: Path) -> None:
    """Refuse many opinions in a small part of the scale: most likely another set's."""
    low, high = min(opinions), max(opinions)
    if len(opinions) >= MANY and high - low < CORNER * (scale.high - scale.low):
        raise UsageError(
            f"{labels}: {len(opinions)} opinions from {low:g} to {high:g}, but those of {dataset} lie "
            f"on {scale}. If the "
            "file is not of another set, give its scale by --scale LOW,HIGH."
        )


def parse_scale(text: str, opinions: Sequence[float], *, source: str) -> RatingScale:
    """Parse `LOW,HIGH` with `,lower` or `,higher` as the better end, or `observed`.

    Args:
        text: The value of `--scale`.
        opinions: The opinions of the file, whose least and greatest are the ends of `observed`.
        source: Name of the file, recorded with the scale.

    Raises:
        UsageError: If the text is none of these.
    """
    if text == "observed":
        return RatingScale(low=min(opinions), high=max(opinions), source=f"least and greatest opinion in {source}")
    parts = text.split(",")
    try:
        low, high = float(parts[0]), float(parts[1])
    except (ValueError, IndexError) as error:
        raise UsageError(
            f"--scale {text!r} is no scale. Give LOW,HIGH or LOW,HIGH,lower or observed, e.g. 0,100."
        ) from error
    if parts[2:] not in ([], ["lower"], ["higher"]):
        raise UsageError(f"--scale {text!r}: only lower or higher (which end is better) may follow LOW,HIGH.")
    return RatingScale(low=low, high=high, higher_is_better=parts[2:] != ["lower"], source="given by --scale")


def _check_direction(spec: SetSpec, rows: Sequence[LabelRow], scale: RatingScale, labels: Path) -> None:
    """Raise UsageError unless opinions fall with the distortion level in the names."""
    if spec.level is None:
        return
    pairs = [(float(found[1]), row.raw) for row in rows if (found := re.search(spec.level, row.name))]
    levels, raws = np.array(pairs).reshape(-1, 2).T
    if len(pairs) < 100 or levels.std() == 0 or raws.std() == 0:
        return  # too few to tell
    falls = float(np.corrcoef(levels, raws)[0, 1]) < 0
    if falls != scale.higher_is_better:
        raise UsageError(
            f"{labels}: opinions {'fall' if falls else 'rise'} with the level of distortion, but the scale is {scale}. "
            f"Give --scale {scale.low:g},{scale.high:g}{',higher' if falls else ',lower'}."
        )


def people_set_of(request: ImportRequest, spec: SetSpec) -> PeopleSet | None:
    """The set's file of configs/people, or None. Raises UsageError for one not there."""
    name = request.dataset if request.name in DIALECTS else request.name
    return find_people_set(name) if spec.people and name else None


def people_notes(people: PeopleSet | None, *, assigned: str) -> list[str]:
    """Notes for the user: whence columns were assigned, how pictures were shown."""
    if people is None:
        return []
    notes = [f"{assigned}: as published in configs/people/{people.name}.yaml"]
    if people.shown_size:
        width, height = people.shown_size
        notes.append(
            f"people saw each picture at {width}x{height}: --set 'views.shown_size=[{width}, {height}]' scores it so"
        )
    return notes


def assign_folds(people: PeopleSet, rows: Sequence[LabelledFile]) -> list[int | None]:
    """Fold of each row or None; sets its split: test fold, next fold `val`, `train`."""
    folds = {group.lower(): fold for fold, groups in enumerate(people.folds or ()) for group in groups}
    count = people.modulo or len(people.folds or ())
    names: dict[int | None, str | None] = {None: None, people.test_fold: "test", (people.test_fold + 1) % count: "val"}
    found = []
    for row in rows:
        fold = int(row.content) % people.modulo if people.modulo else folds.get(row.content)
        row.split = names.get(fold, "train")
        found.append(fold)
    return found


def _count_notes(spec: SetSpec, count: int) -> list[str]:
    if count in spec.counts:
        return [f"{count} clips, as in {spec.counts[count]}"]
    known = ", ".join(f"{known} ({source})" for known, source in spec.counts.items())
    return [f"{count} clips; known counts: {known}" if known else f"{count} clips"]


def import_ladder(request: ImportRequest) -> Import:
    """Import a ladder of `vqa data synth`; its name says the opinions are a stand-in.

    Args:
        request: `labels` is the ladder.parquet, `root` its folder.

    Raises:
        UsageError: If the file is no ladder, or clips are missing.
    """
    cells = read_columns(request.labels)
    wanted = ("clip_id", "uri", "content_id", "split", "opinion")
    if format_of(request.labels) != "parquet" or not all(name in cells for name in wanted):
        raise UsageError(
            f"{request.labels} is no ladder. It needs columns {', '.join(wanted)}; found {', '.join(cells)}."
        )
    dataset = request.dataset or LADDER
    root = request.root
    missing = [uri for uri in cells["uri"] if request.check and not Path(root, uri).is_file()]
    if missing:
        raise UsageError(
            f"{len(missing)} of {len(cells['uri'])} clips are not in {root}: {first_few(missing)}. Give --root."
        )
    scale = RatingScale(low=1, high=5, source="1 + 4 * VMAF / 100: a stand-in, not rated by people")
    rows = (
        {
            "clip_id": f"{dataset}/{clip_id}",
            "uri": join(root, uri),
            "dataset": dataset,
            "split": split,
            "content_id": f"{dataset}/{content}",
            "kind": "video",
            "mos_raw": opinion,
            "mos": opinion,
        }
        for clip_id, uri, content, split, opinion in zip(*(cells[name] for name in wanted), strict=True)
    )
    manifest = make_manifest(rows, scales={dataset: scale})
    for name in ("distortions", "severities"):  # what was done to each clip; older ladders lack it
        if name in cells:
            manifest = replace(manifest, table=manifest.table.append_column(name, pa.array(cells[name])))
    return Import(
        manifest=manifest, notes=[f"{len(cells['uri'])} clips; opinions are VMAF, a stand-in for ratings by people"]
    )
