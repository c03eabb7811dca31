"""`vqa evaluate`: agreement of scores with opinions."""

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqa.cli.options import (
    SHORT,
    DecimalOption,
    DelimiterOption,
    Join,
    Json,
    LabelsPath,
    Lower,
    Missing,
    MosColumn,
    PathColumn,
    Resamples,
    ScoreColumn,
    Seed,
    Split,
)

if TYPE_CHECKING:
    from vqa.config import Values
    from vqa.data.dialects import Dialect
    from vqa.evaluate.card import EvalCard
    from vqa.evaluate.evaluation import Evaluation
    from vqa.evaluate.schema import Splits


def evaluate(
    scores: Annotated[
        Path | None,
        typer.Argument(
            metavar="SCORES", help="The --out folder of `vqa score`, or a .csv, .jsonl, .parquet, .txt file."
        ),
    ] = None,
    *,
    labels: LabelsPath,
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, clips.parquet, unused.csv and report.html.")],
    column: ScoreColumn = None,
    card: Annotated[
        str | None,
        typer.Option(help="Reproduction card of configs/eval: score the clips with its settings, then evaluate."),
    ] = None,
    own_question: Annotated[
        bool,
        typer.Option("--own-question", help="With --card: ask in our words if the published ones are not kept."),
    ] = False,
    mos_column: MosColumn = None,
    path_column: PathColumn = None,
    join: Join = None,
    delimiter: DelimiterOption = None,
    decimal: DecimalOption = None,
    split: Split = None,
    by: Annotated[
        list[str] | None, typer.Option(help="Also report statistics per value of this column; repeatable.")
    ] = None,
    lower_is_better: Lower = False,
    allow_missing: Missing = False,
    resamples: Resamples = 10_000,
    splits: Annotated[
        int, typer.Option(min=0, max=10_000, help="Random 80/20 splits whose medians are reported.")
    ] = 10,
    seed: Seed = 0,
    report: Annotated[bool, typer.Option(help="Write report.html.")] = True,
    as_json: Json = False,
) -> None:
    """Measure how scores agree with opinions: correlations and errors with intervals.

    Exit codes: 0 success; 1 could not run; 2 wrong usage; 3 written, but some expected clips have no score.
    """
    from vqa.data.dialects import Dialect
    from vqa.errors import UsageError
    from vqa.evaluate.card import load_card
    from vqa.evaluate.evaluation import EvaluationConfig, write_evaluation
    from vqa.evaluate.evaluation import evaluate as run_evaluation
    from vqa.evaluate.statistics import StatisticsConfig

    dialect = Dialect(delimiter=delimiter, decimal=decimal)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file. Give a folder.")
    chosen = load_card(card) if card is not None else None
    if chosen:
        _refuse_other_set(chosen, labels, dialect)
    if scores is None:
        if chosen is None:
            raise UsageError("evaluate: SCORES is missing. Give it, or a --card to score by.")
        split = split or chosen.split
        is_told = own_question or chosen.asked == "own"
        scores = _score(chosen.score, labels, split, out, dialect, is_told=is_told)
    config = EvaluationConfig(
        scores=scores,
        labels=labels,
        column=column,
        mos_column=mos_column,
        path_column=path_column,
        key=join,
        split=split,
        by=tuple(by or (chosen.by if chosen else ())),
        lower_is_better=lower_is_better,
        dialect=dialect,
        statistics=StatisticsConfig(resamples=resamples, seed=seed, splits=splits, allow_missing=allow_missing),
    )
    evaluation = run_evaluation(config, published=chosen.published if chosen else None)
    write_evaluation(evaluation, out)
    if report:
        from vqa.report.page import write_report

        write_report(out)
    _print(evaluation, out, as_json=as_json)
    raise typer.Exit(0 if evaluation.metrics["reported"] else SHORT)


def _refuse_other_set(card: "EvalCard", labels: Path, dialect: "Dialect") -> None:
    """Raise UsageError for published numbers of another set than the labels'."""
    from vqa.errors import UsageError
    from vqa.evaluate.inputs import read_table

    sets = {str(row["dataset"]) for row in read_table(labels, dialect=dialect).rows if row.get("dataset")}
    if sets - {card.dataset}:
        raise UsageError(
            f"evaluate: the card is for {card.dataset}, but {labels} holds {', '.join(sorted(sets))}. Use the card of "
            "that set, or a copy of this one with another dataset and without published numbers."
        )


def _score(
    settings: "Values", labels: Path, split: str | None, out: Path, dialect: "Dialect", *, is_told: bool
) -> Path:
    """Score the labelled clips with a card's settings; return the folder of scores.

    Raises UsageError where the model would be asked in our words and nobody said so (`is_told`).
    """
    import yaml

    from jobs.config import resolve_values
    from jobs.request import ScoreRequest
    from jobs.score import score as run
    from vqa.data.sources import path_to_uri
    from vqa.errors import UsageError
    from vqa.evaluate.inputs import filter_split, read_table
    from vqa.files import replacing
    from vqa.model.question import with_words

    resolved = resolve_values(settings, where="the card")
    model = with_words(resolved.model)
    if resolved.tier == "reason" and model.asked == "own" and not is_told:
        fetch = f"`vqa model fetch-question {model.name}` reads them, " if model.published else ""
        raise UsageError(
            f"evaluate: {model.name} would not be asked in the words that it was trained with; {fetch}"
            "--own-question asks it in our words"
        )
    table = filter_split(read_table(labels, dialect=dialect), split)
    out.mkdir(parents=True, exist_ok=True)
    listed, config = out / "clips.jsonl", out / "score.yaml"
    with replacing(listed) as draft, draft.open("w", encoding="utf-8") as file:
        for row in table.rows:
            uri = table.uri(row)
            place = uri if "://" in uri else path_to_uri(str(labels.parent / uri))
            file.write(json.dumps({"clip_id": table.clip_id(row), "uri": place}) + "\n")
    with replacing(config) as draft:
        draft.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    # The evaluation reports clips without a score, so any number of failures is allowed here.
    code = run(ScoreRequest(sources=(str(listed),), out=out / "scored", config=config, max_failed="100%"))
    if code:
        raise typer.Exit(code)
    return out / "scored"


def _print(evaluation: "Evaluation", out: Path, *, as_json: bool) -> None:
    from rich.console import Console

    from vqa.cli.tables import metrics_table
    from vqa.console import printable
    from vqa.errors import first_few

    metrics = evaluation.metrics
    if as_json:
        typer.echo(json.dumps(metrics, ensure_ascii=False, allow_nan=False))
    else:
        Console().print(metrics_table(metrics))
    counts = metrics["counts"]
    by_status = ", ".join(f"{name} {count}" for name, count in counts["by_status"].items())
    typer.echo(
        f"{counts['used']} of {counts['expected']} expected clips used ({by_status}), "
        f"joined by {metrics['join']}, column {metrics['scores']['column']}",
        err=True,
    )
    unused: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in evaluation.unused:
        unused[row.side, row.reason].append(row.clip)
    for (side, reason), clips in unused.items():
        typer.echo(f"{reason}, {len(clips)} rows of the {side}: {printable(first_few(clips, most=3))}", err=True)
    for name, part in metrics["datasets"].items():
        if part["splits"]:
            typer.echo(f"{printable(name)}: {_medians(part['splits'])}", err=True)
    if not metrics["reported"]:
        typer.echo(
            f"{metrics['reason']}: no statistics for sets with missing scores (--allow-missing reports them)", err=True
        )
    typer.echo(f"{out}", err=True)


def _medians(splits: "Splits") -> str:
    known = {"SRCC": "srcc", "PLCC": "plcc", "PLCC fitted": "plcc_logistic4"}
    found = [
        f"{title} {splits['median'][name]:.4f} ({splits['min'][name]:.3f}..{splits['max'][name]:.3f})"
        for title, name in known.items()
        if name in splits["median"]
    ]
    return f"medians of {splits['count']} random parts of {splits['test_share']:.0%}: {', '.join(found)}"
