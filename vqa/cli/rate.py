"""`vqa rate`: a local page that collects opinions. Light to import."""

import contextlib
from pathlib import Path
from typing import Annotated, Literal

import typer

from vqa.cli.options import DecimalOption, DelimiterOption, Exclude, Include


def rate(
    clips: Annotated[
        list[str], typer.Argument(metavar="CLIP...", help="Files, folders, quoted globs or lists of files.")
    ],
    out: Annotated[
        Path, typer.Option(help="Table of votes to write (.csv); the same again resumes. A journal is kept beside it.")
    ],
    mode: Annotated[
        Literal["acr", "pairs"], typer.Option(help="acr: five-grade ratings (ITU-T P.910). pairs: side by side.")
    ] = "acr",
    scores: Annotated[
        Path | None,
        typer.Option(
            help="The --out folder of `vqa score` over these clips: of clips with as few votes the widest score_std, "
            "of pairs that tell as much the closest scores come first. [default: votes alone decide]"
        ),
    ] = None,
    per_subject: Annotated[
        int | None, typer.Option(min=1, help="Judgements of a subject. [default: every clip, or 60 pairs]")
    ] = None,
    training: Annotated[int, typer.Option(min=0, max=20, help="First judgements, which do not count.")] = 3,
    repeats: Annotated[float, typer.Option(min=0, max=0.5, help="Hidden repeats as a share of the judgements.")] = 0.1,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on loopback; 0 takes a free one.")] = 8765,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the orders.")] = 0,
    include: Include = None,
    exclude: Exclude = None,
    delimiter: DelimiterOption = None,
    decimal: DecimalOption = None,
) -> None:
    """Collect opinions of people on a local web page, for `vqa data recover`.

    Votes are on disk before the next clip is shown. Ctrl-C ends; the same command resumes.
    """
    from jobs.signals import locked_by
    from vqa.console import counted, printable
    from vqa.data.dialects import Dialect
    from vqa.data.sources import Selection, list_clips
    from vqa.errors import UsageError
    from vqa.imports import require

    require("rate", "starlette", "uvicorn", doing="vqa rate")
    from vqa.rate.doubt import doubts, read_known
    from vqa.rate.journal import Journal, count_hidden_repeats
    from vqa.rate.server import HOST, bind, make_app, serve
    from vqa.rate.stimuli import prepare_stimuli
    from vqa.rate.study import Study, StudyConfig

    def tell(line: str) -> None:
        typer.echo(printable(line), err=True)

    if out.suffix.lower() != ".csv":
        raise UsageError(f"--out {out} has another suffix. Give a .csv file.")
    known_scores = None if scores is None else read_known(scores)
    bound = bind(port)
    selection = Selection(include=tuple(include or ()), exclude=tuple(exclude or ()))
    listing = list_clips(clips, selection=selection, dialect=Dialect(delimiter=delimiter, decimal=decimal))
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked_by(out.with_name(f".{out.stem}.lock"), out=out) as before_write:
        stimuli, refused = prepare_stimuli(listing.clips, out.with_name(f"{out.stem}.media"), tell=tell)
        for clip_id, why in refused.items():
            tell(f"not shown: {clip_id} ({why})")
        doubt = None
        if known_scores is not None and scores is not None:
            doubt = doubts(known_scores, stimuli, mode=mode, source=scores, tell=tell)
        digests = {one.clip_id: one.fingerprint for one in stimuli}
        with Journal(out, mode=mode, seed=seed, clips=digests, before_write=before_write) as journal:
            config = StudyConfig(per_subject=per_subject, training=training, repeats=repeats, seed=seed)
            app = make_app(Study(stimuli, journal, config, doubt), journal.token)
            known = len({vote.subject for vote in journal.votes})
            votes = counted(len(journal.votes), "vote")
            tell(f"{counted(len(stimuli), 'clip')}; so far {votes} of {counted(known, 'subject')}")
            typer.echo(f"http://{HOST}:{bound.getsockname()[1]}/{journal.token}/")
            with contextlib.suppress(KeyboardInterrupt):
                serve(app, bound)
            for subject, (same, total) in count_hidden_repeats(journal.votes).items():
                tell(f"{subject}: {same} of {total} hidden repeats answered as before")
            method = "bradley-terry" if mode == "pairs" else "p910"
            following = f"vqa data recover {out} --out opinions.csv --method {method}"
            tell(f"{counted(len(journal.votes), 'vote')}; next: {following}")
