"""Which layout a label file is in, and its rows: names, opinions and what else it tells, still on their own scale."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vqa.data.manifest import Kind
from vqa.data.public.label_files import Cells, column, format_of, has_column, number, read_cells
from vqa.data.public.specs import DIALECTS, Form, SetSpec
from vqa.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What `vqa data import` was asked for; see its help."""

    name: str
    labels: Path
    root: str
    check: bool = True
    dataset: str | None = None
    scale: str | None = None
    names: Path | None = None
    mos_column: str | None = None
    split: str | None = None
    kind: Kind | None = None


@dataclass(slots=True, kw_only=True)
class LabelRow:
    """One labelled clip, as the file tells it."""

    number: int  # in the file, from 1, headers not counted
    listed: str  # the name as written
    name: str  # the file's path below the set's folder
    raw: float
    std: float | None
    split: str | None
    content: str
    reference: str | None
    aspects: dict[str, float] = field(default_factory=dict)


def few(items: Sequence[object], *, most: int = 5) -> str:
    """The first few, and how many more there are."""
    return ", ".join(map(str, items[:most])) + (f" and {len(items) - most} more" if len(items) > most else "")


def recognise(request: Request, spec: SetSpec, dialects: Sequence[str]) -> tuple[Form, Cells, str | None]:
    """The first form that fits the file, its cells, and the dialect it belongs to. Raises UsageError."""
    kind = format_of(request.labels)
    forms: list[tuple[Form, str | None]] = [(form, None) for form in spec.forms]
    forms += [(form, name) for name in dialects for form in DIALECTS[name].forms]
    if request.mos_column:
        forms = [(form.model_copy(update={"mos": request.mos_column}), dialect) for form, dialect in forms]
    read: dict[Any, Cells] = {}
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
            read[key] = read_cells(request.labels, separator=form.separator, beside=form.beside)
        cells = read[key]
        if form.positional:
            cells = cells | {str(at): values for at, values in enumerate(cells.values(), start=1)}
        if _fits(form, cells):
            return form, cells, dialect
        expected.append(_wanted(form))
    if not expected:
        formats = sorted({form.format for form, _ in forms})
        raise UsageError(f"{request.labels}: {request.name} ships labels as {', '.join(formats)}, not {kind}")
    found = "; ".join(f"{len(cells)} fields" if kind == "txt" else ", ".join(cells) for cells in read.values() if cells)
    raise UsageError(
        f"{request.labels}: no layout of {request.name}; expected {' | '.join(dict.fromkeys(expected))}; "
        f"found {found or 'nothing'}"
    )


def _wanted(form: Form) -> str:
    if form.fields:
        return f"{form.fields} fields parted by {form.separator} (field {form.mos} a number)"
    return "columns " + ", ".join(form.columns())


def _fits(form: Form, cells: Cells) -> bool:
    if form.fields is not None and len(cells) != form.fields:
        return False
    if not all(has_column(cells, name) for name in form.columns()):
        return False
    numbers = [form.mos, *(name for name in (form.std, form.variance) if name)]
    try:
        for name in numbers:
            number(next(iter(column(cells, name)), None), decimal_comma=form.decimal_comma)
        if form.aspects_within is not None:
            low, high = form.aspects_within
            first = [number(column(cells, name)[0]) for name in form.aspects.values() if column(cells, name)]
            return all(value is not None and low <= value <= high for value in first)
    except (TypeError, ValueError):
        return False
    return True


def read_rows(request: Request, spec: SetSpec, form: Form, cells: Cells) -> tuple[list[LabelRow], list[int]]:
    """The rows of the set, and the numbers of those without an opinion."""
    columns = {name: column(cells, name) for name in form.columns()}
    total = len(columns[form.mos])
    uneven = {name: len(values) for name, values in columns.items() if len(values) != total}
    if uneven or not total:
        raise UsageError(
            f"{request.labels}: {form.mos} has {total} entries, {uneven or 'which is none'}; wanted as many"
        )
    listed = _names(request, form, columns, total)
    rows, left_out = [], []
    for at in range(form.skip, total):
        where = f"{request.labels}, row {at + 1} ({listed[at]})"
        if any(str(columns[name][at]) != value for name, value in form.keep.items()):
            continue

        def read(name: str | None, at: int = at, where: str = where) -> float | None:
            try:
                return number(columns[name][at], decimal_comma=form.decimal_comma) if name else None
            except (TypeError, ValueError) as error:
                raise UsageError(f"{where}: {name} = {columns[name or ''][at]!r}; wanted a number") from error

        raw = read(form.mos)
        if raw is None:
            left_out.append(at + 1)
            continue
        variance, name = read(form.variance), _renamed(spec, listed[at])
        aspects = {aspect: read(source) for aspect, source in form.aspects.items()}
        content = str(columns[form.content][at]) if form.content else _group(spec.content, name)
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
        raise UsageError(f"{request.labels}: no row of {request.name} among {total}; wanted {form.keep or 'opinions'}")
    return rows, left_out


def _names(request: Request, form: Form, columns: Mapping[str, list[Any]], total: int) -> list[str]:
    if form.name:
        return ["/".join(str(columns[name][at]).strip() for name in form.name) for at in range(total)]
    if request.names is None:
        raise UsageError(
            f"{request.labels}: names no files; give --names FILE, a txt with the {total} files in the order of its"
            " rows"
        )
    lines = request.names.read_text(encoding="utf-8").splitlines()
    names = [line.split(",")[0].strip() for line in lines if line.strip()]
    if len(names) != total:
        raise UsageError(f"--names {request.names}: {len(names)} names for the {total} rows of {request.labels}")
    return names


def _renamed(spec: SetSpec, listed: str) -> str:
    name = listed.replace("\\", "/")
    for pattern, replacement in spec.rename:
        name = re.sub(pattern, replacement, name)
    return name


def _group(pattern: str, name: str) -> str:
    """Group 1 where the expression finds itself in the name, else the name."""
    found = re.search(pattern, name)
    return found[1] if found else name


def refuse_repeats(rows: Sequence[LabelRow], labels: Path) -> None:
    """Raises UsageError where a name has two opinions."""
    repeated = [name for name, count in Counter(row.name for row in rows).items() if count > 1]
    if repeated:
        first = [row.number for row in rows if row.name == repeated[0]]
        raise UsageError(
            f"{labels}: {len(repeated)} names occur more than once, {repeated[0]!r} in rows {few(first)}; "
            "each clip needs one opinion"
        )
