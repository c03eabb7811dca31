"""The `vqa` commands. Light to import: each command loads what it needs when it runs, `vqa --help` loads nothing."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs.score import score
from vqa.cli.calibrate import calibrate
from vqa.cli.compare import compare
from vqa.cli.data import data_app
from vqa.cli.evaluate import evaluate
from vqa.cli.learn import train
from vqa.cli.ready import prepare, push
from vqa.cli.report import report
from vqa.cli.rewards import rewards_app
from vqa.console import assigning, enter

if TYPE_CHECKING:
    import pyarrow as pa

app = typer.Typer(
    name="vqa",
    help="How good does a video look? A score from 1 to 5, how sure it is, and why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.add_typer(rewards_app, name="rewards")
for command in (score, evaluate, compare, calibrate, report, prepare, train, push):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vqa {installed_version('vqa')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """How good does a video look? A score from 1 to 5, how sure it is, and why."""


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out of an earlier `vqa score`.")],
    worst: Annotated[int | None, typer.Option(min=1, help="Only the N clips with the lowest scores.")] = None,
    best: Annotated[int | None, typer.Option(min=1, help="Only the N clips with the highest scores.")] = None,
) -> None:
    """Show what a job found: best and worst clips, failures, counts."""
    from rich.console import Console

    from jobs.summary import overview, ranked, score_table

    rows = _scores(folder)
    console = Console()
    if worst is None and best is None:
        console.print(overview(rows, out=folder))
        return
    by_score = ranked(rows)
    if best is not None:
        console.print(score_table(list(reversed(by_score))[:best], title=f"Best {best} of {len(by_score)}"))
    if worst is not None:
        console.print(score_table(by_score[:worst], title=f"Worst {worst} of {len(by_score)}"))


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out of an earlier `vqa score`.")],
    csv: Annotated[str | None, typer.Option(help="CSV file to write; - is stdout.")] = None,
    jsonl: Annotated[str | None, typer.Option(help="JSON-lines file to write; - is stdout.")] = None,
) -> None:
    """Write the table of scores as CSV or JSON lines."""
    from vqa.data.export import export as write
    from vqa.errors import UsageError
    from vqa.files import replacing

    if (csv is None) == (jsonl is None):
        raise UsageError("export: give one of --csv FILE and --jsonl FILE")
    target = csv or jsonl or ""
    rows = _scores(folder)
    kind: Literal["csv", "jsonl"] = "csv" if csv is not None else "jsonl"
    if target == "-":
        write(rows, sys.stdout, kind=kind)
        return
    with replacing(Path(target)) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        count = write(rows, file, kind=kind)
    typer.echo(f"{count} rows in {target}", err=True)


def _scores(folder: Path) -> "pa.Table":
    from vqa.data.score_table import read_scores
    from vqa.errors import UsageError

    if not (folder / "scores").is_dir():
        raise UsageError(f"{folder}: holds no scores; give the --out folder of an earlier `vqa score`")
    return read_scores(folder)


@app.command()
def views(
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="A video or picture.")],
    out: Annotated[Path, typer.Option(help="The picture to write (.png).")],
    config: Annotated[Path | None, typer.Option(help="YAML settings, as for `vqa score`.")] = None,
    assignments: Annotated[list[str] | None, assigning("views.keyframes=8")] = None,
    model: Annotated[str | None, typer.Option(help="As for `vqa score`: its card may set the views.")] = None,
    start_seconds: Annotated[float | None, typer.Option(min=0, help="Look at a part only: from here")] = None,
    end_seconds: Annotated[float | None, typer.Option(min=0, help="to here.")] = None,
) -> None:
    """Draw what the model sees of a clip: the chosen times, the mosaic, the frames with their crops."""
    from vqa.cli.views import draw

    draw(clip, out=out, config=config, assignments=assignments or (), model=model, span=(start_seconds, end_seconds))
    typer.echo(f"{out}", err=True)


@app.command()
def doctor(json_report: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False) -> None:
    """Check this machine: versions, decoders, codecs, GPUs, and a tiny clip scored from end to end."""
    from vqa.cli.doctor import examine

    raise typer.Exit(0 if examine(as_json=json_report) else 1)


@app.command()
def config(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of configs/, or one like them.")],
    kind: Annotated[str | None, typer.Option(help="What it configures; else the name of its folder tells.")] = None,
    assignments: Annotated[list[str] | None, assigning("views.keyframes=8")] = None,
) -> None:
    """Print a config with everything resolved, and check that it can be built."""
    import yaml

    from vqa.cli.config import resolved

    typer.echo(yaml.safe_dump(resolved(file, kind=kind, assignments=assignments or ()), sort_keys=False), nl=False)


def main() -> None:
    """Entry point of the `vqa` command."""
    sys.exit(enter(app))
