"""`vqa compare-clips`: two clips compared, or a folder ranked. Light to import."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqa.console import assigning, complain, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vqa.media.sandbox import Guard
    from vqa.types import Clip, Views
    from vqa.views import ViewsConfig


def compare_clips(
    sources: Annotated[
        list[str], typer.Argument(metavar="A B | SOURCE...", help="Two clips; or with --budget what is to be ranked.")
    ],
    model: Annotated[str, typer.Option(help="A card of a model that compares, such as vq-insight-comparison.")],
    reference: Annotated[
        str | None, typer.Option(help="The clip that both were made from, if the model sees it.")
    ] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Rank all clips by at most this many comparisons.")] = None,
    question: Annotated[Path | None, typer.Option(help="Ask what this text file says.")] = None,
    system: Annotated[Path | None, typer.Option(help="With a system turn of the words in this text file.")] = None,
    assignments: Annotated[list[str] | None, assigning("generation.k=4")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Ask which of two clips looks better, in both orders, or rank a folder that way.

    Exit codes: 0 success; 1 could not run; 2 wrong usage; 3 the answers could not be read.
    """
    from jobs.config import ClipLimits, make_guard
    from vqa.cli.options import SHORT
    from vqa.config import build, override
    from vqa.data.sources import list_clips
    from vqa.errors import UsageError, VqaError
    from vqa.model.comparer import Comparer, Verdict, Winner, check_reference, rank, settled
    from vqa.model.question import read_words
    from vqa.views import ViewsConfig

    words = {"question": question and read_words(question), "system": system and read_words(system)}
    given = override({key: text for key, text in words.items() if text}, assignments or ())
    given = {key: value for key, value in given.items() if key != "model"} | dict(given.get("model", {}))
    card, _ = settled(model, given)
    check_reference(card, is_given=reference is not None)
    clips = list_clips(tuple(sources)).clips
    if budget is None and len(clips) != 2:
        raise UsageError(
            f"compare-clips: {len(clips)} clips in {', '.join(sources)}. Give two, or --budget to rank them."
        )
    if budget is not None and budget < len(clips) - 1:
        raise UsageError(f"--budget {budget}: {len(clips)} clips take at least {len(clips) - 1} comparisons")
    settings = build(ViewsConfig, card.views, where=f"model {card.name}, views")
    views: list[Views] = []
    with make_guard(ClipLimits()) as guard:
        shown = None
        if reference is not None:
            (shown,) = _looked(guard, list_clips((reference,)).clips, settings)
        for clip in clips:
            try:
                views += _looked(guard, [clip], settings)
            except VqaError as error:
                if budget is None:
                    raise
                complain(f"not ranked: {error}")
    comparer = Comparer.load(model, **given)
    verdicts: list[Verdict] = []

    def better(one: int, other: int) -> Winner | None:
        verdicts.append(comparer.compare(views[one], views[other], reference=shown))
        return verdicts[-1].winner

    names = [printable(one.clip.clip_id) for one in views]
    if budget is None:
        better(0, 1)
        (verdict,) = verdicts
        said = {"first": f"{names[0]} is better", "second": f"{names[1]} is better", "tie": "as good"}
        typer.echo(
            json.dumps(asdict(verdict)) if as_json else said.get(verdict.winner or "", "no answer could be read")
        )
        if verdict.is_swayed:
            typer.echo("the answer changed with the order in which they were shown", err=True)
        raise typer.Exit(0 if verdict.winner else SHORT)
    groups = rank(len(views), better, budget=budget)
    place = 1
    for group in groups:
        for member in group:
            typer.echo(
                json.dumps({"rank": place, "clip_id": names[member]}) if as_json else f"{place}\t{names[member]}"
            )
        place += len(group)
    unread = sum(verdict.winner is None for verdict in verdicts)
    swayed = sum(bool(verdict.is_swayed) for verdict in verdicts)
    typer.echo(f"{len(verdicts)} comparisons, {swayed} changed with the order, {unread} could not be read", err=True)
    raise typer.Exit(SHORT if unread == len(verdicts) else 0)


def _looked(guard: "Guard", clips: "Sequence[Clip]", settings: "ViewsConfig") -> "list[Views]":
    from vqa.errors import ClipError, UsageError, VqaError
    from vqa.media.storage.fingerprint import fingerprint
    from vqa.views import look, view_seed

    if len(clips) != 1:
        raise UsageError(f"compare-clips: the reference holds {len(clips)} clips. Give one.")
    (clip,) = clips
    try:
        return [guard.run(look, clip, settings, seed=view_seed(guard.run(fingerprint, clip.uri), clip))]
    except ClipError as error:
        raise VqaError(str(error)) from error
