"""Published train and test lists: which clip of a data set belongs to which part."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from vqa.data.public.layouts import ImportRequest, LabelledFile, label_rows, recognise
from vqa.data.public.specs import DIALECTS, PublishedList, SetSpec, load_set, set_names
from vqa.errors import UsageError, first_few

UNUSED = "unused"  # of a clip that no list names: neither trained on nor tested on


def assign_splits(
    request: ImportRequest, spec: SetSpec, dialects: Sequence[str], rows: Sequence[LabelledFile]
) -> list[str]:
    """Set splits by the lists asked for, else by the first that comes with vqa.

    What the labels, or the request, say of all rows stays where no list is asked for.

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
    if not names and (request.split or all(row.split for row in rows)):
        return []
    chosen = _asked(names[0], spec) if names else next((one for one in spec.lists.values() if one.is_here), None)
    parts = _parts(chosen, rows) if chosen else []
    if chosen and any(parts):
        for row, part in zip(rows, parts, strict=True):
            row.split = part or UNUSED
        return [f"split: {_counted(rows)}, as in {chosen.source}", *([chosen.note] if chosen.note else [])]
    if names:
        raise UsageError(
            f"--split-list {names[0]}: it names none of the {len(rows)} clips in {request.labels}, such as "
            f"{first_few([row.name for row in rows])}. Give the labels of this set."
        )
    way = f"no split, so that vqa train refuses them. Published lists: {described(spec.lists)}"
    return [way] if spec.lists else []


def _asked(name: str, spec: SetSpec) -> PublishedList:
    """The list of this name. Raises UsageError for one that is unknown, or not here."""
    if name not in spec.lists:
        known = ", ".join(spec.lists) or "none"
        raise UsageError(f"--split-list {name}: no published list of that name comes with the set. Known are: {known}.")
    chosen = spec.lists[name]
    if not chosen.is_here:
        way = (
            "the file {}, and give it as --labels"
            if chosen.in_labels
            else ("the files from {}, and give each as --split-list PART=FILE")
        )
        raise UsageError(f"--split-list {name}: its names do not come with vqa. Take {way.format(chosen.source)}.")
    return chosen


def _parts(chosen: PublishedList, rows: Sequence[LabelledFile]) -> list[str | None]:
    """The part of each row, None for one that the list does not name."""
    part_of = chosen.part_of()
    if chosen.names:
        part_of = dict(zip(_as_labelled(list(part_of), [row.name for row in rows]), part_of.values(), strict=True))
    return [part_of.get(row.name if chosen.names else row.content) for row in rows]


def ways_to_split(dataset: str) -> str:
    """Advice for a data set without a split: the public files with its lists."""
    lists = load_set(dataset).lists if dataset in set_names() else {}
    if not lists:
        return "Import it with a list of each part (vqa data import --split-list), or divide it by vqa data split."
    way = next((name for name, one in lists.items() if one.is_here), "PART=FILE")
    return f"Import it with a published list (vqa data import --split-list {way}): {described(lists)}."


def described(lists: dict[str, PublishedList]) -> str:
    """Each list's name, counts and source, in words."""
    return "; ".join(
        f"{name}: {', '.join(f'{part} {count}' for part, count in one.counts.items())} ({one.source})"
        for name, one in lists.items()
    )


def _by_files(
    files: Sequence[str], request: ImportRequest, spec: SetSpec, dialects: Sequence[str], rows: Sequence[LabelledFile]
) -> list[str]:
    by_name = {row.name: row for row in rows}
    part_of: dict[str, str] = {}
    for one in files:
        part, _, path = one.partition("=")
        listed = _as_labelled(_names(Path(path), request, spec, dialects), list(by_name))
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


def _as_labelled(listed: Sequence[str], labelled: Sequence[str]) -> list[str]:
    """Listed names in the spelling of the labels.

    Lists often name files in folders of their own project. A name that the labels lack is found by its file's name
    alone, where one clip of the labels and one of the list have it.
    """
    known, files = set(labelled), Counter(map(_file_name, labelled))
    only = {_file_name(name): name for name in labelled if files[_file_name(name)] == 1}
    here = Counter(map(_file_name, listed))
    return [
        name if name in known or here[_file_name(name)] > 1 else only.get(_file_name(name), name) for name in listed
    ]


def _file_name(name: str) -> str:
    return PurePosixPath(name).name


def _counted(rows: Sequence[LabelledFile]) -> str:
    return ", ".join(f"{part} {count}" for part, count in sorted(Counter(row.split or "none" for row in rows).items()))


def _matched(counts: Counter[str], lists: dict[str, PublishedList]) -> str:
    """Whether the counts are those of a published list, in words."""
    for name, one in lists.items():
        if counts == one.counts:
            return f"as many as in {name} ({one.source})"
    return f"no published list has these counts. Known are {described(lists) or 'none'}."
