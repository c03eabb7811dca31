"""Published train and test lists: which clip of a data set belongs to which part."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vqa.data.public.layouts import ImportRequest, LabelRow, label_rows, recognise
from vqa.data.public.specs import DIALECTS, PublishedList, SetSpec
from vqa.errors import UsageError, first_few

UNUSED = "unused"  # of a clip that no list names: neither trained on nor tested on


def assign_splits(
    request: ImportRequest, spec: SetSpec, dialects: Sequence[str], rows: Sequence[LabelRow]
) -> list[str]:
    """Set splits by the lists asked for, else by the set's first if it has contents.

    Args:
        request: The import; `split_lists` holds a list's name, or `PART=FILE` for each part.
        spec: The data set.
        dialects: Names of DIALECTS that a file may be written in.
        rows: Of the labels; changed in place. Those in no list become `unused`.

    Returns:
        Notes for the user: source and counts.

    Raises:
        UsageError: For a list that is not known, a file that names clips which the labels lack, and parts that overlap.
    """
    files = [one for one in request.split_lists if "=" in one]
    names = [one for one in request.split_lists if "=" not in one]
    if len(names) > 1 or (names and files):
        raise UsageError(f"--split-list {' '.join(request.split_lists)}: give one name, or PART=FILE for each part.")
    if files:
        return _by_files(files, request, spec, dialects, rows)
    if not names and not (spec.lists and next(iter(spec.lists.values())).contents):
        return []
    name = names[0] if names else next(iter(spec.lists))
    if name not in spec.lists:
        known = ", ".join(spec.lists) or "none"
        raise UsageError(f"--split-list {name}: no published list of that name comes with the set ({known}).")
    chosen = spec.lists[name]
    if not chosen.contents:
        raise UsageError(
            f"--split-list {name}: its names do not come with vqa. Take the files from {chosen.source}, and give "
            "each as --split-list PART=FILE."
        )
    part_of = {content.lower(): part for part, contents in chosen.contents.items() for content in contents}
    for row in rows:
        row.split = part_of.get(row.content, UNUSED)
    return [f"split: {_counted(rows)}, as in {chosen.source}", *([chosen.note] if chosen.note else [])]


def _by_files(
    files: Sequence[str], request: ImportRequest, spec: SetSpec, dialects: Sequence[str], rows: Sequence[LabelRow]
) -> list[str]:
    by_name = {row.name: row for row in rows}
    part_of: dict[str, str] = {}
    for one in files:
        part, _, path = one.partition("=")
        listed = _names(Path(path), request, spec, dialects)
        missing = [name for name in listed if name not in by_name]
        if missing and not request.skip_missing:
            raise UsageError(
                f"--split-list {one}: {len(missing)} of its {len(listed)} clips are not in {request.labels}: "
                f"{first_few(missing)}. Give the list of this set, or leave them out by --skip-missing."
            )
        twice = [name for name in listed if part_of.get(name, part) != part]
        if twice:
            raise UsageError(
                f"--split-list {one}: {len(twice)} of its clips are in {part_of[twice[0]]} too, such as {twice[0]}. A "
                "clip belongs to one part."
            )
        part_of |= dict.fromkeys(listed, part)
    for name, row in by_name.items():
        row.split = part_of.get(name, UNUSED)
    return [f"split: {_counted(rows)}", _matched(Counter(part_of.values()), spec.lists)]


def _names(path: Path, request: ImportRequest, spec: SetSpec, dialects: Sequence[str]) -> list[str]:
    """The names in a list, which is a label file of the set or of any dialect."""
    of_list = replace(request, labels=path, names=None, mos_column=None)
    form, cells, _ = recognise(of_list, spec, dialects or tuple(DIALECTS))
    return [row.name for row in label_rows(of_list, spec, form, cells)[0]]


def _counted(rows: Sequence[LabelRow]) -> str:
    return ", ".join(f"{part} {count}" for part, count in sorted(Counter(row.split or "none" for row in rows).items()))


def _matched(counts: Counter[str], lists: dict[str, PublishedList]) -> str:
    """Whether the counts are those of a published list, in words."""
    for name, one in lists.items():
        if counts == one.counts:
            return f"as many as in {name} ({one.source})"
    known = "; ".join(
        f"{name}: {', '.join(f'{part} {count}' for part, count in one.counts.items())} ({one.source})"
        for name, one in lists.items()
    )
    return f"no published list has these counts. Known are {known or 'none'}."
