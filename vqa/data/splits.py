"""Seeded splits within each data set; clips of one content stay together."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vqa.data.manifest import Manifest
from vqa.errors import UsageError


def parse_parts(text: str) -> dict[str, float]:
    """Parse `train=0.8,test=0.2` into shares by name. Raises UsageError."""
    parts: dict[str, float] = {}
    for item in text.split(","):
        name, _, share = item.partition("=")
        try:
            parts[name.strip()] = float(share)
        except ValueError as error:
            raise UsageError(f"--parts {text!r}: {item!r} is not NAME=SHARE. Give e.g. train=0.8,test=0.2.") from error
    return parts


def split_manifest(
    manifest: Manifest,
    *,
    parts: Mapping[str, float],
    seed: int = 0,
    count: int = 1,
    copies: Sequence[Sequence[int]] = (),
) -> Manifest:
    """Split a manifest by content.

    The split of a data set depends on the seed alone, not on what else is in the manifest.

    Args:
        manifest: The clips.
        parts: Share of the clips by name of the part; the shares sum to 1.
        seed: Seed of the shuffle.
        count: Number of splits. One is written to the column `split`; several to split_00, split_01, ..., and `split`
            is left as it is.
        copies: Groups of rows that are copies of one another (copies.py): their contents count as one.

    Raises:
        UsageError: If the shares do not sum to 1, or a data set has fewer contents than parts.
    """
    if abs(sum(parts.values()) - 1) > 1e-6 or not all(0 < share < 1 for share in parts.values()):
        raise UsageError(
            f"split {dict(parts)}: give two or more shares above 0 that sum to 1, e.g. train=0.8,test=0.2."
        )
    datasets = manifest.table.column("dataset").to_pylist()
    contents = _joined(datasets, manifest.table.column("content_id").to_pylist(), copies)
    sizes: dict[str, dict[str, int]] = {}
    for dataset, content in zip(datasets, contents, strict=True):
        of_set = sizes.setdefault(dataset, {})
        of_set[content] = of_set.get(content, 0) + 1
    table = manifest.table
    for number in range(count):
        part_of = {
            (dataset, content): part
            for dataset, of_set in sizes.items()
            for content, part in _assigned(
                of_set, parts, seed=[seed, number, _number(dataset)], dataset=dataset
            ).items()
        }
        column = pa.array([part_of[key] for key in zip(datasets, contents, strict=True)], pa.string())
        name = "split" if count == 1 else f"split_{number:02d}"
        at = table.schema.get_field_index(name)
        table = table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
    return Manifest(table=table, scales=manifest.scales)


def _joined(datasets: Sequence[str], contents: list[str], copies: Sequence[Sequence[int]]) -> list[str]:
    """Content of each row; contents that share a copy go by the first one's name."""
    name_of = {key: key[1] for key in zip(datasets, contents, strict=True)}
    for group in copies:
        for dataset in {datasets[row] for row in group}:
            names = {name_of[dataset, contents[row]] for row in group if datasets[row] == dataset}
            name_of |= {key: min(names) for key, name in name_of.items() if key[0] == dataset and name in names}
    return [name_of[key] for key in zip(datasets, contents, strict=True)]


def across_parts(manifest: Manifest, copies: Sequence[Sequence[int]]) -> list[str]:
    """Copies in different parts of column `split`, in words; rows without one aside."""
    clips, parts = (manifest.table.column(name).to_pylist() for name in ("clip_id", "split"))
    found = []
    for group in copies:
        own = {parts[row]: row for row in reversed(group) if parts[row]}
        if len(own) > 1:
            found.append(" and ".join(f"{clips[row]} ({part})" for part, row in sorted(own.items())))
    return found


def take_part(manifest: Manifest, part: str) -> Manifest:
    """The clips of a part. Raises UsageError, naming the parts, where there are none."""
    splits = manifest.table.column("split")
    chosen = manifest.table.filter(pc.equal(splits, part))
    if not chosen.num_rows:
        known = ", ".join(sorted(filter(None, set(splits.to_pylist())))) or "none"
        raise UsageError(f"split {part!r}: no clips of that part. There are {known}.")
    return Manifest(table=chosen, scales=manifest.scales)


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def _assigned(
    sizes: Mapping[str, int], parts: Mapping[str, float], *, seed: Sequence[int], dataset: str
) -> dict[str, str]:
    """Part by content: shuffled, cut where the clips counted come nearest the shares."""
    if len(sizes) < len(parts):
        raise UsageError(
            f"split: {dataset} has {len(sizes)} contents for {len(parts)} parts. Each part needs a content."
        )
    contents = sorted(sizes)
    np.random.default_rng(seed).shuffle(contents)
    reached = np.cumsum([sizes[content] for content in contents])
    cuts = [0]
    for at, share in enumerate(np.cumsum(list(parts.values()))[:-1], start=1):
        nearest = int(np.argmin(abs(reached - share * reached[-1]))) + 1
        cuts.append(min(max(nearest, cuts[-1] + 1), len(contents) - (len(parts) - at)))  # no part is left empty
    cuts.append(len(contents))
    names = list(parts)
    return {content: names[part] for part in range(len(names)) for content in contents[cuts[part] : cuts[part + 1]]}
