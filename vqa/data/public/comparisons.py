"""Import a set's comparisons: table as shipped in, manifest of pairs out."""

from collections.abc import Iterator
from dataclasses import dataclass

from vqa.data.pair_manifest import ACROSS, PairManifest, make_pair_manifest
from vqa.data.public.importer import assign_folds, people_notes, people_set_of, resolve_set
from vqa.data.public.layouts import ImportRequest, LabelledFile, content_of, file_name_of
from vqa.data.public.lists import assign_splits
from vqa.data.public.locate import join, locate
from vqa.data.subjective.pairs import Comparisons, holds_pairs, read_pairs
from vqa.data.tables import format_of, read_columns
from vqa.errors import UsageError, first_few


@dataclass(frozen=True, slots=True, kw_only=True)
class PairImport:
    """A manifest of pairs, and notes for the user on how it was made."""

    manifest: PairManifest
    notes: list[str]


def lists_comparisons(request: ImportRequest) -> bool:
    """Whether the columns of the request's labels are those of comparisons.

    A file that cannot be read is none: the reader of labels says why.
    """
    try:
        if format_of(request.labels) in ("txt", "mat"):
            return False
        return holds_pairs(read_columns(request.labels, dialect=request.dialect))
    except UsageError:
        return False


def import_pairs(request: ImportRequest) -> PairImport:
    """Read a set's comparisons, find the files, name clips as its manifest does.

    Args:
        request: What to import; `name` is a data set of configs/data or a dialect, `labels` a table as `read_pairs`
            reads it.

    Returns:
        The manifest of pairs, and notes: clips and comparisons, what was left out, where the split is from.

    Raises:
        UsageError: If an option does not go with comparisons, the table is wrong, files are missing, or two names are
            one file.
    """
    _refuse_options(request)
    dataset, spec, dialects = resolve_set(request)
    pairs = read_pairs(request.labels, dialect=request.dialect)
    notes: list[str] = []
    rows = []
    for number, listed in enumerate(pairs.clips, start=1):
        name = file_name_of(spec, listed)
        rows.append(
            LabelledFile(number=number, listed=listed, name=name, split=spec.split, content=content_of(spec, name))
        )
    notes += assign_splits(request, spec, dialects, rows)
    base = locate(request, spec, rows, notes)
    _refuse_one_file(rows, request)
    people = people_set_of(request, spec)
    if people:
        assign_folds(people, rows)
    manifest = make_pair_manifest(_judged(pairs, rows, dataset, base, split=request.split))
    left_out = len(pairs.result) - manifest.table.num_rows
    if left_out:
        notes.append(f"{left_out} of {len(pairs.result)} comparisons are with one of these, and left out")
    by = f" by {len(pairs.subjects)} subjects" if pairs.subjects else ""
    notes.append(f"{len(rows)} clips in {manifest.table.num_rows} comparisons{by}")
    return PairImport(manifest=manifest, notes=[*notes, *people_notes(people, assigned="split")])


def _refuse_options(request: ImportRequest) -> None:
    for option, given in (("scale", request.scale), ("names", request.names), ("mos-column", request.mos_column)):
        if given is not None:
            raise UsageError(
                f"--{option} {given}: {request.labels} holds comparisons, which have no opinion. Leave it out."
            )


def _refuse_one_file(rows: list[LabelledFile], request: ImportRequest) -> None:
    by_name: dict[str, str] = {}
    for row in rows:
        before = by_name.setdefault(row.name, row.listed)
        if before != row.listed:
            raise UsageError(
                f"{request.labels}: {before!r} and {row.listed!r} are both {row.name}. Give each clip one name."
            )


def _judged(
    pairs: Comparisons, rows: list[LabelledFile], dataset: str, base: str, *, split: str | None
) -> Iterator[dict[str, object]]:
    """Rows of the manifest: comparisons of two of `rows`. Raises UsageError for none."""
    known = {row.listed: row for row in rows}
    clips = [known.get(name) for name in pairs.clips]
    held = False
    for at, (one, other) in enumerate(zip(pairs.first, pairs.second, strict=True)):
        first, second = clips[one], clips[other]
        if first is None or second is None:
            continue
        held = True
        yield {
            "first": f"{dataset}/{first.name}",
            "second": f"{dataset}/{second.name}",
            "dataset": dataset,
            "split": split or (first.split if first.split == second.split else ACROSS),
            "result": int(pairs.result[at]),
            "count": float(pairs.count[at]),
            "subject": pairs.subjects[pairs.subject[at]] if pairs.subjects else None,
            "first_uri": join(base, first.name),
            "second_uri": join(base, second.name),
        }
    if not held:
        lost = [name for name in pairs.clips if name not in known]
        raise UsageError(
            f"no comparison has both of its clips; {len(lost)} of {len(pairs.clips)} are missing: {first_few(lost)}. "
            "Download them, or import with --no-check."
        )
