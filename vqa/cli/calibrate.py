"""`vqa calibrate`: a curve from scores to opinions, with an interval."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vqa.cli.options import DecimalOption, DelimiterOption, Join, Json, LabelsPath, MosColumn, PathColumn, ScoreColumn


def calibrate(
    scores: Annotated[
        Path,
        typer.Argument(
            metavar="SCORES", help="The --out folder of `vqa score`, or a .csv, .jsonl, .parquet, .txt file."
        ),
    ],
    *,
    labels: LabelsPath,
    out: Annotated[
        Path | None,
        typer.Option(
            help="JSON file to write. [default: calibration.json in the folder of a model or student that was given by "
            "its absolute path, else beside SCORES]"
        ),
    ] = None,
    curve: Annotated[
        Literal["logistic", "isotonic", "line"] | None,
        typer.Option(
            help="Monotone curve to fit; `line` leaves scores where few clips do not say otherwise. [default: line for "
            "fewer than 100 clips without --fit-on, else logistic]"
        ),
    ] = None,
    coverage: Annotated[
        float, typer.Option(min=0.01, max=0.999, help="Share of clips that the interval should contain.")
    ] = 0.9,
    fit_on: Annotated[
        str | None, typer.Option(help="Value of the labels' split column whose clips the curve is fitted on.")
    ] = None,
    measure_on: Annotated[
        str | None, typer.Option(help="Value of the labels' split column whose clips the coverage is measured on.")
    ] = None,
    scale: Annotated[tuple[float, float], typer.Option(help="Ends of the opinion scale.")] = (1.0, 5.0),
    column: ScoreColumn = None,
    mos_column: MosColumn = None,
    path_column: PathColumn = None,
    join: Join = None,
    delimiter: DelimiterOption = None,
    decimal: DecimalOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the division of the clips.")] = 0,
    as_json: Json = False,
) -> None:
    """Fit scores to opinions, with an interval whose coverage is measured.

    The coverage is that on held-out clips. `vqa score --calibration FILE` then adds the columns mos, mos_low and
    mos_high.
    """
    from vqa.data.dialects import Dialect
    from vqa.evaluate.calibrate import calibrate as fit
    from vqa.evaluate.calibrate import find_origin
    from vqa.evaluate.inputs import raw_column, read_table
    from vqa.evaluate.join import join as join_tables
    from vqa.files import write_json

    dialect = Dialect(delimiter=delimiter, decimal=decimal)
    table = read_table(scores, name_column=path_column, dialect=dialect)
    opinions = read_table(labels, dialect=dialect)
    joined = join_tables(table, opinions, column=column or raw_column(table), mos_column=mos_column, key=join)
    origin, place = find_origin(table, labels)
    found = fit(
        joined.pairings,
        curve=curve,
        coverage=coverage,
        scale=scale,
        fit_on=fit_on,
        measure_on=measure_on,
        seed=seed,
        origin=origin,
    )
    target = out or place
    write_json(target, found.model_dump(mode="json"))
    counts = joined.counts()
    if as_json:
        typer.echo(found.model_dump_json())
    else:
        typer.echo(
            f"{found.kind}: opinion = curve +- {found.half_width:.3f}; target coverage {found.coverage_target:.0%}, "
            f"measured {found.coverage:.1%} ({found.coverage_low:.1%}..{found.coverage_high:.1%}) of "
            f"{found.test.clips} clips; RMSE {found.test.rmse:.3f} there, {found.fit.rmse:.3f} on the fitted clips"
        )
    typer.echo(f"{counts['used']} of {counts['expected']} expected clips used; {found.split}", err=True)
    typer.echo(f"{target}", err=True)
