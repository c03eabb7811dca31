"""`vqa data recover`: opinions from ratings or comparisons."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vqa.cli.options import DecimalOption, DelimiterOption


def recover(
    ratings: Annotated[
        Path,
        typer.Argument(
            metavar="RATINGS",
            help="Table with columns clip, subject, rating; or a matrix with a row per clip and a column per subject; "
            "or comparisons: columns first, second, result (1, -1, 0) or winner, or a manifest of pairs.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Opinions to write (.csv or .parquet); NAME.subjects is written beside it.")
    ],
    method: Annotated[
        Literal["mean", "bt500", "p913", "p910", "bradley-terry", "thurstone"],
        typer.Option(
            help="mean: plain mean. bt500: rejects outlying subjects. p913: subtracts the subjects' "
            "bias, then bt500. p910: maximum likelihood. bradley-terry, thurstone: of comparisons."
        ),
    ] = "p910",
    min_ratings: Annotated[int, typer.Option(min=1, help="Leave out subjects with fewer ratings.")] = 1,
    scale: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="Ends of the rating scale; ratings outside are refused.")
    ] = None,
    delimiter: DelimiterOption = None,
    decimal: DecimalOption = None,
    split: Annotated[
        str | None, typer.Option(help="With a manifest of pairs: only comparisons of this split. [default: all]")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Manifest that must hold the clips; comparisons must not contradict its opinions."),
    ] = None,
    anchors: Annotated[
        Path | None,
        typer.Option(help="Table (file_name, mos) of compared clips with known opinions, which sets the scale to 1-5."),
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=20, max=1_000_000, help="Resamples of the intervals of comparisons.")
    ] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples.")] = 0,
) -> None:
    """Recover opinions (MOS) from ratings or comparisons.

    Ratings are corrected for their subjects (ITU-R BT.500, ITU-T P.913, P.910). Comparisons give each clip a value with
    an interval (Bradley-Terry, Thurstone).
    """
    from vqa.console import printable
    from vqa.data.dialects import Dialect
    from vqa.data.manifest import read_manifest
    from vqa.data.subjective.mos import recover as recover_mos
    from vqa.data.subjective.mos import summary, write_recovered
    from vqa.data.subjective.pairs import by_file_name, match_clips, read_anchors, read_pairs, refuse_contradiction
    from vqa.data.subjective.ratings import parse_bounds, read_ratings
    from vqa.data.subjective.strengths import anchored, recover_strengths, strength_notes, write_strengths
    from vqa.errors import UsageError

    dialect = Dialect(delimiter=delimiter, decimal=decimal)
    if method == "bradley-terry" or method == "thurstone":
        pairs = read_pairs(ratings, dialect=dialect, split=split)
        if against is not None:
            refuse_contradiction(pairs, read_manifest(against), source=str(ratings))
        pairs = by_file_name(pairs)
        known = None if anchors is None else read_anchors(anchors, dialect=dialect)
        strengths = recover_strengths(pairs, method=method, resamples=resamples, seed=seed, source=str(ratings))
        if known is not None:
            strengths = anchored(pairs, strengths, known, source=str(anchors))
        written = write_strengths(out, pairs, strengths)
        notes = strength_notes(pairs, strengths, method=method, is_anchored=anchors is not None)
    else:
        if split is not None:
            raise UsageError(f"--split {split}: --method {method} reads ratings, which have none. Leave it out.")
        ends = parse_bounds(scale) if scale else None
        read = read_ratings(ratings, min_ratings=min_ratings, scale=ends, dialect=dialect)
        if against is not None:
            match_clips(read.clips, read_manifest(against), source=str(ratings))
        found = recover_mos(read, method=method)
        written = [out, write_recovered(out, read, found)]
        notes = summary(read, found)
    for line in (*notes, *map(str, written)):
        typer.echo(printable(line), err=True)
