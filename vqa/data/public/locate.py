"""Find the files of a set's labels below the user's folder."""

import os
from pathlib import Path, PurePosixPath
from typing import TypeVar

from vqa.data.public.layouts import ImportRequest, LabelledFile
from vqa.data.public.specs import SetSpec
from vqa.data.sources import MEDIA_SUFFIXES, path_to_uri
from vqa.errors import UsageError, first_few
from vqa.media.storage.open import composed

Named = TypeVar("Named", bound=LabelledFile)


def locate(request: ImportRequest, spec: SetSpec, rows: list[Named], notes: list[str]) -> str:
    """Folder that names are relative to: with `check`, the first to hold any file.

    A file may have another suffix than its label (a .yuv that was encoded); the row then takes the file's name.

    Args:
        request: The import; `check`, `root` and `skip_missing` are those asked for.
        spec: The data set, whose files may lie in a folder below the root.
        rows: Of the labels. Names are changed in place; with `skip_missing`, rows without a file are removed.
        notes: For the user; lines are added.

    Raises:
        UsageError: If files are missing, and `skip_missing` is not asked for.
    """
    first = join(request.root, spec.folder)
    if not request.check:
        return first
    if "://" in request.root:
        raise UsageError(
            f"--root {request.root}: files of a store are not checked on import. Add --no-check, then "
            "run vqa data check."
        )
    for base in dict.fromkeys((first, request.root)):
        for flat in (False, True):
            folders: dict[str, dict[str, list[str]]] = {}
            names = [PurePosixPath(row.name).name if flat else row.name for row in rows]
            found = [_in_folder(base, name, folders) for name in names]
            if not any(found):
                continue
            missing = [name for name, there in zip(names, found, strict=True) if there is None]
            if missing and request.skip_missing:
                notes.append(
                    f"{len(missing)} of {len(rows)} labelled files are missing and left out: {first_few(missing)}"
                )
                kept = [at for at, there in enumerate(found) if there is not None]
                rows[:] = [rows[at] for at in kept]
                names, found = [names[at] for at in kept], [found[at] for at in kept]
            elif missing:
                raise UsageError(
                    f"{len(missing)} of {len(rows)} labelled files are not in {base}: {first_few(missing)}. "
                    "Download them, leave them out by --skip-missing, or import with --no-check."
                )
            others = [f"{name} as {there}" for name, there in zip(names, found, strict=True) if name != there]
            if others:
                notes.append(
                    f"{len(others)} files are spelled otherwise than in their label: {first_few(others, most=2)}"
                )
            for row, there in zip(rows, found, strict=True):
                row.name = there or row.name
            return base
    raise UsageError(
        f"none of the {len(rows)} labelled files is in {first} (expected {join(first, rows[0].name)}). "
        "Give their folder by --root, or import with --no-check."
    )


def _in_folder(base: str, name: str, folders: dict[str, dict[str, list[str]]]) -> str | None:
    """The name, or the one file that differs in suffix or accents alone, else None."""
    if os.path.lexists(join(base, name)):
        return name
    parent, stem = str(PurePosixPath(name).parent), PurePosixPath(name).stem
    if parent not in folders:
        folders[parent] = {}
        folder = Path(join(base, parent))
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.suffix.lower() in MEDIA_SUFFIXES:
                folders[parent].setdefault(composed(path.stem), []).append(path.name)
    same = folders[parent].get(composed(stem), [])
    same = [one for one in same if composed(one) == composed(PurePosixPath(name).name)] or same
    return str(PurePosixPath(parent, same[0])) if len(same) == 1 else None


def join(base: str, name: str) -> str:
    """URI of a name below a folder or URL."""
    if "://" in base:
        return f"{base.rstrip('/')}/{name}" if name else base
    return path_to_uri(os.path.join(base, name))  # noqa: PTH118 (keeps a name's bytes as they are)
