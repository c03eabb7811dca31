"""`vqa evaluate`, `vqa compare` and `vqa calibrate`: how far can scores be trusted?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from vqa.evaluate.card import EvalCard
    from vqa.evaluate.run import Evaluation, Question

SHORT = 3  # exit code: finished, but not every expected clip has a score

Labels = Annotated[Path, typer.Option(help="Opinions: a manifest of `vqa data import`, or CSV, JSONL, Parquet, txt.")]
MosColumn = Annotated[str | None, typer.Option(help="Column of the labels with the opinions. [default: mos]")]
PathColumn = Annotated[str | None, typer.Option(help="Column of SCORES that names the clip. [default: uri, path, ...]")]
Join = Annotated[
    Literal["clip_id", "uri", "tail", "name"] | None,
    typer.Option(help="How clips are told: tail = folder and base name. [default: the first that matches]"),
]
Split = Annotated[str | None, typer.Option(help="Only labels with this value in the split column.")]
Lower = Annotated[bool, typer.Option("--lower-is-better", help="Low scores are good ones: turn them round.")]
Missing = Annotated[bool, typer.Option("--allow-missing", help="State figures though some clips have no score.")]
Resamples = Annotated[int, typer.Option(min=0, help="Bootstrap resamples; 0 = no intervals.")]
Seed = Annotated[int, typer.Option(help="Another seed, other resamples and splits.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of tables.")]


def evaluate(
    scores: Annotated[
        Path | None, typer.Argument(metavar="SCORES", help="An --out of `vqa score`, or CSV, JSONL, Parquet, txt.")
    ] = None,
    *,
    labels: Labels,
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, clips.parquet, unused.csv and report.html.")],
    column: Annotated[str | None, typer.Option(help="Column of SCORES with the score. [default: score]")] = None,
    card: Annotated[
        str | None, typer.Option(help="A file of configs/eval: scores its set with its settings, then evaluates.")
    ] = None,
    mos_column: MosColumn = None,
    path_column: PathColumn = None,
    join: Join = None,
    split: Split = None,
    by: Annotated[list[str] | None, typer.Option(help="Figures for each value of this column; repeatable.")] = None,
    lower_is_better: Lower = False,
    allow_missing: Missing = False,
    resamples: Resamples = 10_000,
    splits: Annotated[int, typer.Option(min=0, help="Random 80/20 splits whose medians are stated.")] = 10,
    seed: Seed = 0,
    report: Annotated[bool, typer.Option(help="Write report.html too.")] = True,
    as_json: Json = False,
) -> None:
    """Measure how scores follow opinions: figures with intervals, every clip accounted for.

    Exit codes: 0 good; 1 could not run; 2 wrong usage; 3 written, but some expected clips have no score.
    """
    from vqa.errors import UsageError
    from vqa.evaluate.card import load_card
    from vqa.evaluate.figures import Settings
    from vqa.evaluate.run import Question, write
    from vqa.evaluate.run import evaluate as measure

    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; give a folder")
    chosen = load_card(card) if card is not None else None
    if chosen:
        _refuse_other_set(chosen, labels)
    if scores is None:
        if chosen is None:
            raise UsageError("evaluate: give SCORES, or a --card to score by")
        split = split or chosen.split
        scores = _score(chosen.score, labels, split, out)
    question = Question(
        scores=scores,
        labels=labels,
        column=column,
        mos_column=mos_column,
        path_column=path_column,
        key=join,
        split=split,
        by=tuple(by or (chosen.by if chosen else ())),
        lower_is_better=lower_is_better,
        settings=Settings(resamples=resamples, seed=seed, splits=splits, allow_missing=allow_missing),
    )
    evaluation = measure(question, published=chosen.published.model_dump() if chosen else None)
    write(evaluation, out)
    if report:
        from vqa.report.page import write_report

        write_report(out)
    _show(evaluation, question, out, as_json=as_json)
    raise typer.Exit(0 if evaluation.stands else SHORT)


def _refuse_other_set(card: "EvalCard", labels: Path) -> None:
    """Its published figures would stand beside those of another set."""
    from vqa.errors import UsageError
    from vqa.evaluate.tables import read_table

    sets = {str(row["dataset"]) for row in read_table(labels).rows if row.get("dataset")}
    if sets - {card.dataset}:
        raise UsageError(
            f"evaluate: the card is for {card.dataset}, but {labels} holds {', '.join(sorted(sets))}; take the card of "
            "that set, or a copy of this one with another dataset and no published figures"
        )


def _score(settings: dict[str, Any], labels: Path, split: str | None, out: Path) -> Path:
    """Scores the labelled clips by a card's settings; the folder with the scores."""
    import yaml

    from jobs.score import ScoreRequest
    from jobs.score import score as run
    from vqa.data.sources import path_to_uri
    from vqa.evaluate.tables import of_split, read_table

    table = of_split(read_table(labels), split)
    out.mkdir(parents=True, exist_ok=True)
    manifest, config = out / "clips.jsonl", out / "score.yaml"
    with manifest.open("w", encoding="utf-8") as file:
        for row in table.rows:
            uri = table.uri(row)
            place = uri if "://" in uri else path_to_uri(str(labels.parent / uri))
            file.write(json.dumps({"clip_id": table.clip_id(row), "uri": place}) + "\n")
    config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    # Clips without a score are the evaluation's to judge, so none are too many here.
    code = run(ScoreRequest(sources=(str(manifest),), out=out / "scored", config=config, max_failed="100%"))
    if code:
        raise typer.Exit(code)
    return out / "scored"


def _show(evaluation: "Evaluation", question: "Question", out: Path, *, as_json: bool) -> None:
    from rich.console import Console

    from vqa.cli.tables import figures_table
    from vqa.console import printable
    from vqa.data.public.layouts import few

    metrics = evaluation.metrics
    if as_json:
        typer.echo(json.dumps(metrics, ensure_ascii=False, allow_nan=False))
    else:
        Console().print(figures_table(metrics))
    counts = metrics["counts"]
    by_status = ", ".join(f"{name} {count}" for name, count in counts["by_status"].items())
    typer.echo(
        f"{counts['used']} of {counts['expected']} expected clips used ({by_status}), "
        f"joined by {metrics['join']}, column {metrics['scores']['column']}",
        err=True,
    )
    names: dict[tuple[str, str], list[str]] = {}
    for left in evaluation.left:
        names.setdefault((left.side, left.why), []).append(left.clip)
    for (side, why), clips in names.items():
        typer.echo(f"{why}, {len(clips)} of the {side}' rows: {printable(few(clips, most=3))}", err=True)
    for name, part in metrics["datasets"].items():
        if part["splits"]:
            typer.echo(f"{printable(name)}: {_splits(part['splits'])}", err=True)
    if not evaluation.stands:
        typer.echo(f"{metrics['reason']}: no figures for sets with gaps (--allow-missing states them)", err=True)
    typer.echo(f"{out}", err=True)


def _splits(splits: dict[str, Any]) -> str:
    known = {"SRCC": "srcc", "PLCC": "plcc", "PLCC fitted": "plcc_logistic4"}
    found = [
        f"{title} {splits['median'][name]:.4f} ({splits['least'][name]:.3f}..{splits['most'][name]:.3f})"
        for title, name in known.items()
        if name in splits["median"]
    ]
    return f"medians of {splits['count']} random parts of {splits['test_share']:.0%}: {', '.join(found)}"


def compare(
    scores: Annotated[list[Path], typer.Argument(metavar="A B [C...]", help="Two or more, as for `vqa evaluate`.")],
    *,
    labels: Labels,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Column with the score: once for all, or once for each in turn.")
    ] = None,
    mos_column: MosColumn = None,
    path_column: PathColumn = None,
    join: Join = None,
    split: Split = None,
    lower_is_better: Lower = False,
    allow_missing: Missing = False,
    resamples: Resamples = 10_000,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Tell whether models differ on the same clips: paired bootstrap, Meng and Steiger, with Holm's correction.

    Exit codes as of `vqa evaluate`; 3 where some clips are not scored by all.
    """
    from rich.console import Console

    from vqa.cli.tables import differences_table
    from vqa.errors import UsageError
    from vqa.evaluate.compare import compare as measure
    from vqa.evaluate.figures import Settings
    from vqa.evaluate.run import Question
    from vqa.files import write_json

    columns = list(column or [None])  # type: ignore[list-item]  # None = the default of each
    if len(columns) == 1:
        columns *= len(scores)
    if len(columns) != len(scores):
        raise UsageError(f"compare: {len(columns)} --column for {len(scores)} SCORES; give one, or one for each")
    questions = [
        Question(
            scores=path,
            labels=labels,
            column=name,
            mos_column=mos_column,
            path_column=path_column,
            key=join,
            split=split,
            lower_is_better=lower_is_better,
        )
        for path, name in zip(scores, columns, strict=True)
    ]
    found = measure(questions, settings=Settings(resamples=resamples, seed=seed, allow_missing=allow_missing))
    if out is not None:
        write_json(out, found)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, allow_nan=False))
    elif found["stands"]:
        Console().print(differences_table(found))
    typer.echo(found["reason"] or f"{found['used']} of {found['expected']} expected clips scored by all", err=True)
    raise typer.Exit(0 if found["stands"] else SHORT)


def calibrate(
    scores: Annotated[Path, typer.Argument(metavar="SCORES", help="As for `vqa evaluate`.")],
    *,
    labels: Labels,
    out: Annotated[
        Path | None,
        typer.Option(help="JSON file to write. [default: calibration.json beside the model, else beside SCORES]"),
    ] = None,
    curve: Annotated[Literal["logistic", "isotonic"], typer.Option(help="The monotone curve.")] = "logistic",
    coverage: Annotated[float, typer.Option(min=0.01, max=0.999, help="Share of clips the interval shall hold.")] = 0.9,
    fit_on: Annotated[str | None, typer.Option(help="Value of the labels' split column to fit on.")] = None,
    measure_on: Annotated[str | None, typer.Option(help="Value of the split column to measure on.")] = None,
    scale: Annotated[tuple[float, float], typer.Option(help="Ends of the opinion scale.")] = (1.0, 5.0),
    column: Annotated[str | None, typer.Option(help="Column of SCORES with the score. [default: score]")] = None,
    mos_column: MosColumn = None,
    path_column: PathColumn = None,
    join: Join = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fit scores to opinions, with an interval that is measured on clips the fit never saw.

    `vqa score --calibration FILE` adds mos, mos_low and mos_high.
    """
    from vqa.evaluate.calibrate import calibrate as fit
    from vqa.evaluate.calibrate import origin
    from vqa.evaluate.join import join as joined_with
    from vqa.evaluate.tables import read_table
    from vqa.files import write_json

    table = read_table(scores, name_column=path_column)
    joined = joined_with(table, read_table(labels), column=column, mos_column=mos_column, key=join)
    source, place = origin(table, labels)
    found = fit(
        joined.pairings,
        curve=curve,
        coverage=coverage,
        scale=scale,
        fit_on=fit_on,
        measure_on=measure_on,
        seed=seed,
        origin=source,
    )
    target = out or place
    write_json(target, found.model_dump(mode="json"))
    counts = joined.counts()
    if as_json:
        typer.echo(found.model_dump_json())
    else:
        typer.echo(
            f"{found.kind}: opinion = curve +- {found.half_width:.3f}; wanted {found.coverage_wanted:.0%} of clips "
            f"inside, measured {found.coverage:.1%} ({found.coverage_low:.1%}..{found.coverage_high:.1%}) of "
            f"{found.measured.clips}; RMSE {found.measured.rmse:.3f} there, {found.fitted.rmse:.3f} where it was fitted"
        )
    typer.echo(f"{counts['used']} of {counts['expected']} expected clips used; {found.split}", err=True)
    typer.echo(f"{target}", err=True)
