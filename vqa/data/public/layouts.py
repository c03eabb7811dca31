"""Recognise a label file's layout and read its rows, on the scale of the authors."""

import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vqa.data.dialects import AS_SEEN, LARGEST, Columns, Dialect, parse_number
from vqa.data.manifest import MediaKind
from vqa.data.public.specs import DIALECTS, LabelForm, SetSpec
from vqa.data.tables import column, format_of, has_column, read_columns, read_lines
from vqa.errors import UsageError, first_few


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """Arguments of `vqa data import`."""

    name: str  # of a set of configs/data, of a dialect, or `ladder`
    labels: Path
    root: str  # folder or URL of the clips
    check: bool = True  # every labelled file must exist
    skip_missing: bool = False  # leave out the rows of files that do not
    dataset: str | None = None  # of a dialect: which set
    scale: str | None = None  # LOW,HIGH or LOW,HIGH,lower or observed
    names: Path | None = None  # the files in the order of labels that name none
    mos_column: str | None = None
    split: str | None = None
    split_lists: tuple[str, ...] = ()  # a published list's name, or PART=FILE
    kind: MediaKind | None = None
    dialect: Dialect = AS_SEEN


@dataclass(slots=True, kw_only=True)
class LabelledFile:
    """A clip that labels name."""

    number: int  # in the file, from 1, headers not counted
    listed: str  # the name as written
    name: str  # the file's path below the set's folder
    split: str | None
    content: str


@dataclass(slots=True, kw_only=True)
class LabelRow(LabelledFile):
    """One labelled clip, on the scale of the file."""

    raw: float
    std: float | None
    reference: str | None
    aspects: dict[str, float] = field(default_factory=dict)


def recognise(request: ImportRequest, spec: SetSpec, dialects: Sequence[str]) -> tuple[LabelForm, Columns, str | None]:
    """Find the layout of a label file.

    Args:
        request: The import; its `labels` are read.
        spec: The data set, whose own forms are tried first.
        dialects: Names of DIALECTS whose forms are tried then, in this order.

    Returns:
        The first form that fits the file, the cells of the file, and the name of the form's dialect (None: the set's
        own form).

    Raises:
        UsageError: If no form fits; the message lists the expected layouts and the one found.
    """
    kind = format_of(request.labels)
    forms: list[tuple[LabelForm, str | None]] = [(form, None) for form in spec.forms]
    forms += [(form, name) for name in dialects for form in DIALECTS[name].forms]
    if request.mos_column:
        forms = [(form.model_copy(update={"mos": request.mos_column}), dialect) for form, dialect in forms]
    read: dict[tuple[str, tuple[str, ...]], Columns] = {}
    expected = []
    for form, dialect in forms:
        if form.format != kind:
            continue
        key = (form.separator, form.beside)
        if key not in read:
            missing = [name for name in form.beside if not request.labels.with_name(name).is_file()]
            if missing:
                expected.append(f"{', '.join(missing)} beside it")
                continue
            read[key] = read_columns(
                request.labels, separator=form.separator, beside=form.beside, dialect=request.dialect
            )
        cells = read[key]
        if form.positional:
            cells = cells | {str(at): values for at, values in enumerate(cells.values(), start=1)}
        if _fits(form, cells):
            return form, cells, dialect
        expected.append(_wanted(form))
    if not expected:
        formats = sorted({form.format for form, _ in forms})
        raise UsageError(
            f"{request.labels}: {request.name} ships labels as {', '.join(formats)}, not {kind}. Give them."
        )
    found = "; ".join(f"{len(cells)} fields" if kind == "txt" else ", ".join(cells) for cells in read.values() if cells)
    raise UsageError(
        f"{request.labels}: no layout of {request.name}: expected {' | '.join(dict.fromkeys(expected))}; "
        f"found {found or 'nothing'}. Check that the file belongs to this set, or name a dialect."
    )


def _wanted(form: LabelForm) -> str:
    if form.fields:
        return f"{form.fields} fields separated by {form.separator} (field {form.mos} a number)"
    return "columns " + ", ".join(form.columns())


def _fits(form: LabelForm, cells: Columns) -> bool:
    if form.fields is not None and len(cells) != form.fields:
        return False
    if not all(has_column(cells, name) for name in form.columns()):
        return False
    numbers = [form.mos, *(name for name in (form.std, form.variance) if name)]
    try:
        for name in numbers:
            parse_number(next(iter(column(cells, name)), None), decimal_comma=form.decimal_comma)
        if form.aspects_within is not None:
            low, high = form.aspects_within
            first = [parse_number(column(cells, name)[0]) for name in form.aspects.values() if column(cells, name)]
            return all(value is not None and low <= value <= high for value in first)
    except (TypeError, ValueError):
        return False
    return True


def label_rows(
    request: ImportRequest, spec: SetSpec, form: LabelForm, cells: Columns
) -> tuple[list[LabelRow], list[int]]:
    """Rows of the set, and the numbers (from 1) of the rows without an opinion.

    Raises:
        UsageError: If a cell is no number, columns differ in length, or no row belongs to the set.
    """
    columns = {name: column(cells, name) for name in form.columns()}
    total = len(columns[form.mos])
    uneven = {name: len(values) for name, values in columns.items() if len(values) != total}
    if uneven or not total:
        raise UsageError(
            f"{request.labels}: {form.mos} has {total} entries, {uneven or 'which is none'}. All columns need as many."
        )
    listed = _names(request, form, columns, total)
    rows, unrated = [], []
    for at in range(form.skip, total):
        where = f"{request.labels}, row {at + 1} ({listed[at]})"
        if any(str(columns[name][at]) != value for name, value in form.keep.items()):
            continue

        def read(name: str | None, at: int = at, where: str = where) -> float | None:
            try:
                return parse_number(columns[name][at], decimal_comma=form.decimal_comma) if name else None
            except (TypeError, ValueError) as error:
                raise UsageError(
                    f"{where}: {name} = {columns[name or ''][at]!r} is no number of at most {LARGEST:g}. Mend the cell."
                ) from error

        raw = read(form.mos)
        if raw is None:
            unrated.append(at + 1)
            continue
        variance, name = read(form.variance), file_name_of(spec, listed[at])
        aspects = {aspect: read(source) for aspect, source in form.aspects.items()}
        content = str(columns[form.content][at]) if form.content else content_of(spec, name)
        rows.append(
            LabelRow(
                number=at + 1,
                listed=listed[at],
                name=name,
                raw=raw,
                std=read(form.std) if variance is None else math.sqrt(max(0.0, variance)),
                split=str(columns[form.split][at]) if form.split else spec.split,
                content=content.strip().lower(),
                reference=str(columns[form.reference][at]) if form.reference else None,
                aspects={k: v for k, v in aspects.items() if v is not None and v != form.aspect_unknown},
            )
        )
    if not rows:
        raise UsageError(
            f"{request.labels}: no row of {request.name} among {total}. Its rows have {form.keep or 'opinions'}."
        )
    return _of_votes(rows) if form.subject else rows, unrated


def _of_votes(votes: Sequence[LabelRow]) -> list[LabelRow]:
    """A row per name: mean and sample deviation of its votes, the rest of its first."""
    by_name: dict[str, list[LabelRow]] = {}
    for vote in votes:
        by_name.setdefault(vote.name, []).append(vote)
    rows = []
    for first, *others in by_name.values():
        raws = [first.raw, *(vote.raw for vote in others)]
        std = statistics.stdev(raws) if others else None
        rows.append(replace(first, raw=statistics.fmean(raws), std=std, aspects={"votes": float(len(raws))}))
    return rows


def _names(request: ImportRequest, form: LabelForm, columns: Columns, total: int) -> list[str]:
    if form.name:
        return ["/".join(str(columns[name][at]).strip() for name in form.name) for at in range(total)]
    if request.names is None:
        raise UsageError(
            f"{request.labels} names no files. Give --names FILE, a text file with the {total} files in the order of "
            "its rows."
        )
    names = [line.split(",")[0].strip() for line in read_lines(request.names) if line.strip()]
    if len(names) != total:
        raise UsageError(
            f"--names {request.names}: {len(names)} names for the {total} rows of {request.labels}. Give one for each."
        )
    return names


def file_name_of(spec: SetSpec, listed: str) -> str:
    """Path below the set's folder of a clip, from its name in labels."""
    name = listed.replace("\\", "/")
    for pattern, replacement in spec.rename:
        name = re.sub(pattern, replacement, name)
    return name


def content_of(spec: SetSpec, name: str) -> str:
    """Content by the set's pattern, in lower case; where it does not match, the name."""
    found = re.search(spec.content, name)
    return (found[1] if found else name).strip().lower()


def refuse_repeats(rows: Sequence[LabelRow], labels: Path) -> None:
    """Raise UsageError if a name has two opinions."""
    repeated = [name for name, count in Counter(row.name for row in rows).items() if count > 1]
    if repeated:
        first = [row.number for row in rows if row.name == repeated[0]]
        raise UsageError(
            f"{labels}: {len(repeated)} names occur more than once, {repeated[0]!r} in rows {first_few(first)}. "
            "Each clip needs one opinion."
        )
