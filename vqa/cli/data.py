"""`vqa data ...`: make, import and check data sets."""

from pathlib import Path
from typing import Annotated, Literal

import typer

data_app = typer.Typer(help="Make and check data sets.", no_args_is_help=True)


@data_app.command()
def synth(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Pristine pictures, videos, folders.")],
    out: Annotated[Path, typer.Option(help="Folder for the clips and ladder.parquet.")],
    clips_per_content: Annotated[int, typer.Option(min=1, help="Distorted clips of each content.")] = 8,
    seed: Annotated[int, typer.Option(help="Another seed, another ladder.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        typer.Option(help="All contents in this split, to widen another ladder (three splits by content otherwise)."),
    ] = None,
) -> None:
    """Make a ladder of distorted clips labelled by VMAF (a stand-in for opinions, not people's)."""
    from vqa.imports import require

    require("synth", "imageio_ffmpeg", doing="vqa data synth")
    from vqa.data.synthetic.ladder import synthesise

    for done, planned, trouble in synthesise(
        sources, out=out, clips_per_content=clips_per_content, seed=seed, workers=workers, split=split
    ):
        if trouble or done % 50 == 0 or done == planned:
            typer.echo(f"{done}/{planned} {trouble}".rstrip(), err=True)
    typer.echo(f"{out / 'ladder.parquet'}")


@data_app.command()
def demo(out: Annotated[Path, typer.Option(help="Folder for the clips.")]) -> None:
    """Make a few clips to try scoring on: damaged copies of the bundled ones, a cut-off file, a text named .mp4."""
    from vqa.imports import require

    require("synth", "imageio_ffmpeg", doing="vqa data demo")
    from vqa.data.synthetic.demo import make_demo

    typer.echo(f"{len(make_demo(out))} clips in {out}")


@data_app.command("import")
def import_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A set of configs/data, a dialect, or ladder.")],
    labels: Annotated[Path, typer.Option(help="The label file, as shipped.")],
    out: Annotated[Path, typer.Option(help="The manifest to write (.parquet).")],
    root: Annotated[str, typer.Option(help="The folder (or URL) with the clips.")] = ".",
    check: Annotated[bool, typer.Option(help="Every labelled file must be there.")] = True,
    dataset: Annotated[str | None, typer.Option(help="For a dialect: which set it is, or a name of yours.")] = None,
    scale: Annotated[
        str | None, typer.Option(help="LOW,HIGH of the opinions (LOW,HIGH,lower where low is good), or observed.")
    ] = None,
    names: Annotated[Path | None, typer.Option(help="The files in the order of labels that name none.")] = None,
    mos_column: Annotated[
        str | None, typer.Option(help="The column with the opinions, where it has another name.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Put this into the split column of every row.")] = None,
    kind: Annotated[Literal["video", "image"] | None, typer.Option(help="Of a set that is not known.")] = None,
) -> None:
    """Read a public data set's labels into a manifest: files found, opinions on 1-5, the scale recorded."""
    from vqa.console import printable
    from vqa.data.manifest import write_manifest
    from vqa.data.public.importer import import_labels, import_ladder
    from vqa.data.public.layouts import Request

    request = Request(
        name=name,
        labels=labels,
        root=root,
        check=check,
        dataset=dataset,
        scale=scale,
        names=names,
        mos_column=mos_column,
        split=split,
        kind=kind,
    )
    done = import_ladder(request) if name == "ladder" else import_labels(request)
    write_manifest(out, done.manifest)
    for line in (
        *done.notes,
        *(f"scale of {known}: {scale}" for known, scale in done.manifest.scales.items()),
        str(out),
    ):
        typer.echo(printable(line), err=True)


@data_app.command()
def split(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Of vqa data import.")],
    out: Annotated[Path, typer.Option(help="The manifest to write (.parquet).")],
    parts: Annotated[str, typer.Option(help="NAME=SHARE,... of the clips.")] = "train=0.8,test=0.2",
    count: Annotated[int, typer.Option(min=1, max=100, help="Above 1: columns split_00 ... instead of split.")] = 1,
    seed: Annotated[int, typer.Option(help="Another seed, other splits.")] = 0,
) -> None:
    """Split by content: clips of one scene are never parted."""
    from collections import Counter

    from vqa.data.manifest import read_manifest, write_manifest
    from vqa.data.splits import parse_parts, split_manifest

    made = split_manifest(read_manifest(manifest), parts=parse_parts(parts), seed=seed, count=count)
    write_manifest(out, made)
    for name in ["split"] if count == 1 else [f"split_{number:02d}" for number in range(count)]:
        sizes = sorted(Counter(made.table.column(name).to_pylist()).items())
        typer.echo(f"{name}: " + ", ".join(f"{part} {size}" for part, size in sizes), err=True)


@data_app.command()
def merge(
    manifests: Annotated[list[Path], typer.Argument(metavar="MANIFEST...", help="Of vqa data import.")],
    out: Annotated[Path, typer.Option(help="The manifest to write (.parquet).")],
) -> None:
    """Put manifests one after the other; clips and scales that contradict are refused."""
    from vqa.data.manifest import merge_manifests, read_manifest, write_manifest

    merged = merge_manifests([(str(path), read_manifest(path)) for path in manifests])
    write_manifest(out, merged)
    typer.echo(f"{merged.table.num_rows} clips of {len(merged.scales)} data sets in {out}", err=True)


@data_app.command()
def check(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Of vqa data import.")],
    root: Annotated[Path | None, typer.Option(help="Files below it that no label names are told too.")] = None,
    every_frame: Annotated[bool, typer.Option(help="Decode every frame, not five of each clip.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Files opened at a time.")] = 2,
    deadline_seconds: Annotated[float, typer.Option(min=1, help="For one file.")] = 60.0,
    csv: Annotated[Path | None, typer.Option(help="Write every disagreement here.")] = None,
    most: Annotated[int, typer.Option(min=0, help="How many disagreements the table shows.")] = 50,
) -> None:
    """Compare labels with files: there, decodable, as long as told, only once.

    Exit codes: 0 all agree; 1 could not run; 2 wrong usage; 3 some do not.
    """
    from rich.console import Console

    from vqa.cli.tables import disagreement_table
    from vqa.data.audit import check_files, counted, write_disagreements
    from vqa.data.manifest import read_manifest

    def progress(done: int, total: int) -> None:
        if done % 100 == 0 or done == total:
            typer.echo(f"{done}/{total}", err=True)

    read = read_manifest(manifest)
    found = check_files(
        read, root=root, every_frame=every_frame, workers=workers, deadline_seconds=deadline_seconds, progress=progress
    )
    if csv is not None:
        write_disagreements(csv, found)
    if found[:most]:
        Console().print(disagreement_table(found[:most], total=len(found)))
    kinds = ", ".join(f"{what} {count}" for what, count in counted(found).items())
    typer.echo(f"{read.table.num_rows} clips, {len(found)} disagreements" + (f": {kinds}" if kinds else ""))
    raise typer.Exit(3 if found else 0)


@data_app.command()
def recover(
    ratings: Annotated[
        Path,
        typer.Argument(metavar="RATINGS", help="Table: clip, subject, rating; or a row a clip, a column a subject."),
    ],
    out: Annotated[Path, typer.Option(help="Opinions to write (.csv or .parquet); NAME.subjects beside it.")],
    method: Annotated[
        Literal["mean", "bt500", "p913", "p910"],
        typer.Option(help="Plain mean; outlying subjects rejected; their bias off too; or maximum likelihood."),
    ] = "p910",
    fewest: Annotated[int, typer.Option(min=1, help="Leave out subjects with fewer ratings.")] = 1,
) -> None:
    """Raw ratings to opinions, allowing for subjects who rate high, low or at random (BT.500, P.913, P.910)."""
    from vqa.console import printable
    from vqa.data.subjective.mos import recover as recovered
    from vqa.data.subjective.mos import summary, write_recovered
    from vqa.data.subjective.ratings import read_ratings

    read = read_ratings(ratings, fewest=fewest)
    found = recovered(read, method=method)
    beside = write_recovered(out, read, found)
    for line in (*summary(read, found), str(out), str(beside)):
        typer.echo(printable(line), err=True)


@data_app.command()
def show(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Of vqa data import.")],
    out: Annotated[Path | None, typer.Option(help="Contact sheet to write (.png).")] = None,
    most: Annotated[int, typer.Option(min=1, max=24, help="Best, worst and most disputed clips of each set.")] = 6,
    workers: Annotated[int, typer.Option(min=1, help="Files opened at a time.")] = 2,
) -> None:
    """Show how opinions spread in each set, and its best, worst and most disputed clips on a contact sheet."""
    from vqa.console import printable
    from vqa.data.manifest import read_manifest
    from vqa.files import replacing
    from vqa.report.dataset_sheet import glances, in_blocks

    found = glances(read_manifest(manifest), most=most)
    for one in found:
        facts = f"{one.count} clips, {one.least:.2f} to {one.greatest:.2f}, mean {one.mean:.2f}"
        typer.echo(f"1 |{in_blocks(one.histogram)}| 5  {printable(one.dataset)}: {facts}")
    if out is None:
        return
    from vqa.report.contact import contact_sheet

    sheet, missing = contact_sheet(found, workers=workers)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as draft:
        sheet.save(draft, format="PNG")
    for error in missing.values():
        typer.echo(f"no picture: {printable(str(error))}", err=True)
    typer.echo(f"{out}", err=True)
