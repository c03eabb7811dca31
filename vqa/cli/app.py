"""The `vqa` command line, with a file for each command. Light to import."""

import atexit
import gc
import sys
from typing import Annotated, NoReturn

import typer

from vqa.cli.calibrate import calibrate
from vqa.cli.compare import compare
from vqa.cli.compare_clips import compare_clips
from vqa.cli.config import config
from vqa.cli.data import data_app
from vqa.cli.distill import distill
from vqa.cli.doctor import doctor
from vqa.cli.evaluate import evaluate
from vqa.cli.export import export
from vqa.cli.model import model_app
from vqa.cli.plan import plan
from vqa.cli.prepare import prepare
from vqa.cli.push import push
from vqa.cli.rate import rate
from vqa.cli.recover import recover
from vqa.cli.report import report
from vqa.cli.rewards import rewards_app
from vqa.cli.score import score
from vqa.cli.show import show
from vqa.cli.top import top
from vqa.cli.train import train
from vqa.cli.views import views
from vqa.console import enter, leave

app = typer.Typer(
    name="vqa",
    help="How good does a video look? A score from 1 to 5, how sure it is, and why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app.command()(recover)
app.add_typer(data_app, name="data")
app.add_typer(model_app, name="model")
app.add_typer(rewards_app, name="rewards")
for command in (
    score,
    show,
    top,
    export,
    views,
    evaluate,
    compare,
    compare_clips,
    calibrate,
    rate,
    report,
    plan,
    prepare,
    train,
    distill,
    push,
    doctor,
    config,
):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as installed_version  # e-mail, zip: not for each command

        typer.echo(f"vqa {installed_version('vqa')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """How good does a video look? A score from 1 to 5, how sure it is, and why."""


def main() -> None:
    """Run the command line in this process. Raises SystemExit with the exit code."""
    atexit.register(gc.freeze)  # at its exit Python collects garbage several times: 2 s among all objects of torch
    sys.exit(enter(app))


def run_command() -> NoReturn:
    """Entry point of the `vqa` command: run it, and end the process."""
    leave(enter(app))
