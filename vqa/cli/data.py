"""`vqa data ...`: import, check, split, merge, inspect and synthesise data sets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vqa.cli.options import DecimalOption, DelimiterOption, Exclude, Include

if TYPE_CHECKING:
    from vqa.data.manifest import Manifest

data_app = typer.Typer(
    help="Import, check, split, merge and inspect data sets; make synthetic ones.", no_args_is_help=True
)

ManifestPath = Annotated[Path, typer.Argument(metavar="MANIFEST", help="Manifest of `vqa data import` (.parquet).")]
ManifestOut = Annotated[Path, typer.Option(help="Manifest to write (.parquet).")]
Workers = Annotated[int, typer.Option(min=1, help="Number of files opened at a time.")]


@data_app.command()
def synth(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="Pristine pictures and videos, or folders of them.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the clips and ladder.parquet; the same folder again resumes.")],
    clips_per_content: Annotated[int, typer.Option(min=1, help="Number of distorted clips per content.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of splits and distortions.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 2,
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        typer.Option(help="Put all contents into this split. [default: train, validation and test by content]"),
    ] = None,
    damage: Annotated[
        Literal["common", "rare"],
        typer.Option(help="Damage that most clips have, or that is seldom met (tape, film, sensors, old codecs)."),
    ] = "common",
    include: Include = None,
    exclude: Exclude = None,
) -> None:
    """Make a ladder of distorted clips, labelled by VMAF as a stand-in for people."""
    from vqa.imports import require

    require("synth", "imageio_ffmpeg", doing="vqa data synth")
    from vqa.data.sources import Selection
    from vqa.data.synthetic.ladder import synthesise

    for done, planned, problem in synthesise(
        sources,
        out=out,
        clips_per_content=clips_per_content,
        seed=seed,
        workers=workers,
        split=split,
        selection=Selection(include=tuple(include or ()), exclude=tuple(exclude or ())),
        damage=damage,
    ):
        if problem or done % 50 == 0 or done == planned:
            typer.echo(f"{done}/{planned} {problem}".rstrip(), err=True)
    typer.echo(f"{out / 'ladder.parquet'}")


@data_app.command()
def demo(out: Annotated[Path, typer.Option(help="Folder for the clips.")]) -> None:
    """Make a few clips to try scoring on.

    The bundled ones, distorted copies, a truncated file and a text named .mp4.
    """
    from vqa.imports import require

    require("synth", "imageio_ffmpeg", doing="vqa data demo")
    from vqa.data.synthetic.demo import make_demo

    typer.echo(f"{len(make_demo(out))} clips in {out}")


@data_app.command("import")
def import_(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a set of configs/data, of a dialect, or ladder.")
    ],
    labels: Annotated[Path, typer.Option(help="Label file as published: opinions, single votes or comparisons.")],
    out: ManifestOut,
    root: Annotated[str, typer.Option(help="Folder or URL of the clips.")] = ".",
    check: Annotated[bool, typer.Option(help="Refuse the import if a labelled file is missing.")] = True,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out labelled files that are missing.")
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(help="Data set of the labels, required if NAME is a dialect: a known set, or a name of your own."),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            help="Rating scale: LOW,HIGH (LOW,HIGH,lower if lower is better), or observed for the range of the file."
        ),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(help="Text file with the names of the clips, for labels without names, in the same order."),
    ] = None,
    mos_column: Annotated[
        str | None, typer.Option(help="Column with the opinions, if it is not named as in the published file.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Value of the split column of every row.")] = None,
    split_list: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME | PART=FILE",
            help="Split by a published list that comes with vqa, or by files that name the clips of a part (give it "
            "again for each part).",
        ),
    ] = None,
    kind: Annotated[
        Literal["video", "image"] | None,
        typer.Option(help="Kind of the clips of a data set without a built-in specification."),
    ] = None,
    delimiter: DelimiterOption = None,
    decimal: DecimalOption = None,
) -> None:
    """Import the labels of a data set as a manifest.

    Files are located, opinions are mapped to 1-5, and the scale is recorded. Of comparisons a manifest of pairs is
    made, for `vqa data recover` and `vqa distill`.
    """
    from vqa.console import printable
    from vqa.data.dialects import Dialect
    from vqa.data.manifest import write_manifest
    from vqa.data.pair_manifest import write_pair_manifest
    from vqa.data.public.comparisons import import_pairs, lists_comparisons
    from vqa.data.public.importer import import_labels, import_ladder
    from vqa.data.public.layouts import ImportRequest

    request = ImportRequest(
        name=name,
        labels=labels,
        root=root,
        check=check,
        skip_missing=skip_missing,
        dataset=dataset,
        scale=scale,
        names=names,
        mos_column=mos_column,
        split=split,
        split_lists=tuple(split_list or ()),
        kind=kind,
        dialect=Dialect(delimiter=delimiter, decimal=decimal),
    )
    if name != "ladder" and lists_comparisons(request):
        judged = import_pairs(request)
        write_pair_manifest(out, judged.manifest)
        notes = judged.notes
    else:
        done = import_ladder(request) if name == "ladder" else import_labels(request)
        write_manifest(out, done.manifest)
        notes = [*done.notes, *(f"scale of {known}: {scale}" for known, scale in done.manifest.scales.items())]
    for line in (*notes, str(out)):
        typer.echo(printable(line), err=True)


Copies = Annotated[
    Literal["none", "content", "frames"],
    typer.Option(
        help="How copies of a clip are found: by their bytes, or also by frames that look alike (re-encoded; decodes "
        "five frames of each clip)."
    ),
]


def _copies(manifest: "Manifest", copies: str) -> list[list[int]]:
    """Groups of rows that are copies, reported on stderr."""
    from vqa.data.copies import find_copies

    if copies == "none":
        return []
    uris = manifest.table.column("uri").to_pylist()
    groups = find_copies(uris, by="frames" if copies == "frames" else "content")
    if groups:
        typer.echo(f"{sum(map(len, groups))} clips are copies of one another, in {len(groups)} groups", err=True)
    if copies == "content":
        typer.echo("re-encoded copies were not looked for (--copies frames)", err=True)
    return groups


@data_app.command()
def split(
    manifest: ManifestPath,
    out: ManifestOut,
    parts: Annotated[str, typer.Option(help="Share of the clips per part: NAME=SHARE,...")] = "train=0.8,test=0.2",
    count: Annotated[
        int,
        typer.Option(min=1, max=100, help="Number of splits; several are written to columns split_00, split_01, ..."),
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the splits.")] = 0,
    copies: Copies = "content",
) -> None:
    """Split a manifest by content: clips of one scene, and copies, stay together."""
    from collections import Counter

    from vqa.data.manifest import read_manifest, write_manifest
    from vqa.data.splits import parse_parts, split_manifest

    read = read_manifest(manifest)
    groups = _copies(read, copies)
    made = split_manifest(read, parts=parse_parts(parts), seed=seed, count=count, copies=groups)
    write_manifest(out, made)
    for name in ["split"] if count == 1 else [f"split_{number:02d}" for number in range(count)]:
        sizes = sorted(Counter(made.table.column(name).to_pylist()).items())
        typer.echo(f"{name}: " + ", ".join(f"{part} {size}" for part, size in sizes), err=True)


@data_app.command()
def merge(
    manifests: Annotated[list[Path], typer.Argument(metavar="MANIFEST...", help="Manifests of `vqa data import`.")],
    out: ManifestOut,
    copies: Copies = "content",
) -> None:
    """Merge manifests; repeated clips and contradicting scales are refused.

    Copies in different parts are reported.
    """
    from vqa.console import printable
    from vqa.data.manifest import merge_manifests, read_manifest, write_manifest
    from vqa.data.splits import across_parts

    merged = merge_manifests([(str(path), read_manifest(path)) for path in manifests])
    write_manifest(out, merged)
    for words in across_parts(merged, _copies(merged, copies)):
        typer.echo(printable(f"copies in different parts: {words}"), err=True)
    typer.echo(f"{merged.table.num_rows} clips of {len(merged.scales)} data sets in {out}", err=True)


@data_app.command()
def check(
    manifest: ManifestPath,
    root: Annotated[
        Path | None, typer.Option(help="Folder with the media; files without a label are reported too.")
    ] = None,
    every_frame: Annotated[bool, typer.Option(help="Decode every frame instead of five per clip.")] = False,
    workers: Workers = 2,
    deadline_seconds: Annotated[
        float, typer.Option(min=1, help="Seconds after which the check of one file is aborted.")
    ] = 60.0,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST",
            help="Another set, such as the test set: references and contents of one name and clips that look alike are "
            "reported too (decodes five frames of each clip).",
        ),
    ] = None,
    parts: Annotated[
        str | None,
        typer.Option(
            metavar="OWN,OTHER", help="With --against: which splits are compared, e.g. train,test. [default: all clips]"
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="CSV file for all failed checks.")] = None,
    max_rows: Annotated[int, typer.Option(min=0, help="Number of failed checks that the table shows.")] = 50,
    include: Include = None,
    exclude: Exclude = None,
) -> None:
    """Check that files exist, decode, have the labelled length and occur once.

    Exit codes: 0 all checks passed; 1 could not run; 2 wrong usage; 3 some checks failed.
    """
    from rich.console import Console

    from vqa.cli.tables import findings_table
    from vqa.data.audit import check_files, count_by_check, find_shared, write_findings
    from vqa.data.manifest import read_manifest
    from vqa.data.sources import Selection
    from vqa.data.splits import take_part
    from vqa.errors import UsageError

    if parts is not None and (against is None or parts.count(",") != 1):
        raise UsageError(f"--parts {parts}: give OWN,OTHER, such as train,test, beside --against.")

    def progress(done: int, total: int) -> None:
        if done % 100 == 0 or done == total:
            typer.echo(f"{done}/{total}", err=True)

    read = read_manifest(manifest)
    found = check_files(
        read,
        root=root,
        selection=Selection(include=tuple(include or ()), exclude=tuple(exclude or ())),
        every_frame=every_frame,
        workers=workers,
        deadline_seconds=deadline_seconds,
        progress=progress,
    )
    if against is not None:
        own, beside = read, read_manifest(against)
        if parts is not None:
            own, beside = (take_part(one, part) for one, part in zip((own, beside), parts.split(","), strict=True))
        found += find_shared(own, beside, other_name=str(against))
    if csv is not None:
        write_findings(csv, found)
    if found[:max_rows]:
        Console().print(findings_table(found[:max_rows], total=len(found)))
    checks = ", ".join(f"{check} {count}" for check, count in count_by_check(found).items())
    typer.echo(f"{read.table.num_rows} clips, {len(found)} failed checks" + (f": {checks}" if checks else ""))
    raise typer.Exit(3 if found else 0)


@data_app.command()
def show(
    manifest: ManifestPath,
    out: Annotated[Path | None, typer.Option(help="Contact sheet to write (.png). [default: histograms only]")] = None,
    top: Annotated[
        int, typer.Option(min=1, max=24, help="Number of best, worst and most disputed clips per data set.")
    ] = 6,
    workers: Workers = 2,
) -> None:
    """Show the opinions of each data set, and a contact sheet of its extreme clips."""
    from vqa.console import printable
    from vqa.data.manifest import read_manifest
    from vqa.files import replacing
    from vqa.report.contact_sheet import contact_sheet, sparkline, summarise_sets

    found = summarise_sets(read_manifest(manifest), top=top)
    for one in found:
        facts = f"{one.count} clips, {one.minimum:.2f} to {one.maximum:.2f}, mean {one.mean:.2f}"
        typer.echo(f"1 |{sparkline(one.histogram)}| 5  {printable(one.dataset)}: {facts}")
    if out is None:
        return
    sheet, missing = contact_sheet(found, workers=workers)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as draft:
        sheet.save(draft, format="PNG")
    for error in missing.values():
        typer.echo(f"no picture: {printable(str(error))}", err=True)
    typer.echo(f"{out}", err=True)
