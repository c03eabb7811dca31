"""Calibrate scores to opinions: a monotone curve and an interval about it.

The interval is that of Lei et al. 2018 (Distribution-free predictive inference for regression), its half width a
quantile of the absolute residuals on clips that the curve was not fitted to. Of many clips these are a part of their
own; few are left out in turn (cross-validation: Barber et al. 2021, Predictive inference with the jackknife+).
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, Self, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, ValidationError, model_validator

from vqa.config import Strict, wanted
from vqa.errors import UsageError
from vqa.evaluate.evaluation import clip_rows, reliability
from vqa.evaluate.inputs import InputTable
from vqa.evaluate.join import Pairing
from vqa.evaluate.schema import ClipRow, ReliabilityBin
from vqa.metrics import plcc, srcc
from vqa.metrics.conformal import half_width, share_interval
from vqa.metrics.correlation import Numbers
from vqa.metrics.fits import CurveFit, fit_isotonic, fit_line, fit_logistic4, rises

CalibrationCurve = Literal["logistic", "isotonic", "line"]
CURVES: dict[CalibrationCurve, Callable[[Numbers, Numbers], CurveFit | None]] = {
    "logistic": fit_logistic4,
    "isotonic": fit_isotonic,
    "line": fit_line,
}
FEWEST = 10  # clips in each of the three parts
MANY = 200  # clips that are divided into parts; fewer are left out in turn
FEWEST_IN_TURN, TURNS = 24, 10
CURVED = 100  # clips that a curve of four parameters is fitted to; fewer get a line


class Origin(TypedDict, total=False):
    """Where the scores and labels of a calibration come from."""

    scores: str
    labels: str
    model_id: str | None
    model_revision: str | None
    settings: str | None  # digest of the scoring settings (run.json)


class PartMetrics(Strict):
    """Error of the curve on a part of the clips."""

    clips: int = Field(ge=0)
    rmse: float = Field(ge=0, description="of opinion minus curve, on the scale of the opinions")
    mae: float = Field(ge=0)
    srcc: float | None = None
    plcc: float | None = None


class Calibration(Strict):
    """A calibration file (`vqa calibrate`), mapping score to mos, mos_low, mos_high."""

    kind: Literal["logistic4", "isotonic", "line"]
    parameters: tuple[float, ...] = Field(description="as of vqa.metrics.fits.CurveFit")
    half_width: float = Field(gt=0, description="the interval is mos +- this, clipped to the scale")
    coverage_target: float = Field(gt=0, lt=1)
    coverage: float = Field(ge=0, le=1, description="share of the test clips inside the interval")
    coverage_low: float = Field(description="lower end of the 95 % interval of that share (Wilson)")
    coverage_high: float = Field(description="upper end of that interval")
    scale: tuple[float, float] = Field(description="ends of the opinion scale")
    split: str = Field(description="division of the clips, in words")
    fit: PartMetrics = Field(description="clips that the curve was fitted to")
    conformal: PartMetrics = Field(description="clips that gave half_width")
    test: PartMetrics = Field(description="clips that coverage was measured on")
    reliability: list[ReliabilityBin] | None = Field(None, description="error by score_std on the test clips")
    scores: str
    labels: str
    model_id: str | None = None
    model_revision: str | None = None
    settings: str | None = Field(None, description="digest of the scoring settings (run.json)")
    created: str

    @model_validator(mode="after")
    def _whole(self) -> "Calibration":
        if not all(map(math.isfinite, (*self.parameters, *self.scale, self.half_width))):
            raise ValueError("a number is not finite")
        count = len(self.parameters)
        wanted = {"logistic4": 4, "line": 2}.get(self.kind)
        if count != wanted if wanted else count < 2 or count % 2:
            raise ValueError(f"{count} parameters are no {self.kind} curve")
        return self

    def mos(self, scores: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Map scores to opinions.

        Args:
            scores: Float [N].

        Returns:
            Opinion, lower and upper end of its interval, each [N] and within the scale.
        """
        fit = CurveFit(kind=self.kind, parameters=self.parameters, converged=True)
        middle = fit(scores)
        low, high = (np.clip(middle + side * self.half_width, *self.scale) for side in (-1, 1))
        return np.clip(middle, *self.scale), low, high


def calibrate(
    pairings: Sequence[Pairing],
    *,
    curve: CalibrationCurve | None = None,
    coverage: float = 0.9,
    scale: tuple[float, float] = (1.0, 5.0),
    fit_on: str | None = None,
    measure_on: str | None = None,
    seed: int = 0,
    origin: Origin,
) -> Calibration:
    """Fit a curve on a part of the clips, an interval on another; measure on a third.

    Fewer than MANY clips without splits are left out in turn, a tenth each: the curve is of all, the interval of the
    residuals of those left out. How often it holds is measured on each tenth by curve and interval of the others.
    Contents (content_id, else clips) are never divided between parts.

    Args:
        pairings: Scores and opinions.
        curve: 4-parameter logistic, isotonic regression, or a line near the scores themselves; by default this line
            for fewer than CURVED clips without splits, else the logistic.
        coverage: Share of clips that the interval should contain, in (0, 1).
        scale: Ends of the opinion scale.
        fit_on: Value of the labels' split column for the first two parts, each one half of it. By default a quarter of
            all clips each, where they are MANY.
        measure_on: Value of the split column for the third part. By default the other half of these.
        seed: Seed of the division.
        origin: Where scores and labels came from, stored in the file.

    Raises:
        UsageError: If a part has fewer than FEWEST clips, or all are fewer than FEWEST_IN_TURN, or opinions do not rise
            with scores.
    """
    if not scale[0] < scale[1]:
        raise UsageError(f"calibrate: --scale {scale[0]:g} {scale[1]:g}. Give LOW HIGH, the lower first.")
    outside = next((one for one in pairings if not scale[0] <= one.mos <= scale[1]), None)
    if outside is not None:
        raise UsageError(
            f"{outside.clip_id}: opinion {outside.mos} is outside the scale {scale}. Give --scale LOW HIGH."
        )
    used = [one for one in pairings if one.used]
    if fit_on is None and measure_on is None and len(used) < MANY:
        curve = curve or ("logistic" if len(used) >= CURVED else "line")
        return _in_turn(used, curve=curve, coverage=coverage, scale=scale, seed=seed, origin=origin)
    parts, words = _divide(used, fit_on, measure_on, seed)
    for name, part in parts.items():
        if len(part) < FEWEST:
            raise UsageError(
                f"calibrate: the part to {name} has {len(part)} scored clips ({words}), but needs {FEWEST}. Label more."
            )
    fit = _fitted(curve or "logistic", parts["fit"])
    bound, measured = (_Predicted.of(parts[name], fit) for name in ("bound", "measure"))
    width = _half_width(bound.off, coverage)
    return _calibration(
        fit,
        parts={"fit": _Predicted.of(parts["fit"], fit), "conformal": bound, "test": measured},
        width=width,
        hits=int(np.sum(np.abs(measured.off) <= width)),
        bins=reliability(_rows(parts["measure"], fit)),
        coverage=coverage,
        scale=scale,
        words=words,
        origin=origin,
    )


def _in_turn(
    used: Sequence[Pairing],
    *,
    curve: CalibrationCurve,
    coverage: float,
    scale: tuple[float, float],
    seed: int,
    origin: Origin,
) -> Calibration:
    """Calibrate by few clips. Raises UsageError as `calibrate`."""
    turns = [part for part in _shuffled(used, TURNS, seed) if part]
    if len(used) < FEWEST_IN_TURN or len(turns) < 3:
        wanted = f"{FEWEST_IN_TURN} are needed" if len(turns) >= 3 else f"of {len(turns)} contents; 3 are needed"
        raise UsageError(f"calibrate: {len(used)} scored clips have an opinion, {wanted}. Label more.")
    fit = _fitted(curve, used)

    def without(some: Sequence[Sequence[Pairing]], k: int) -> list[Sequence[Pairing]]:
        return [*some[:k], *some[k + 1 :]]

    def left_out(some: Sequence[Sequence[Pairing]]) -> list[CurveFit]:
        return [_fitted(curve, [one for part in without(some, k) for one in part]) for k in range(len(some))]

    fits = left_out(turns)
    each = [_Predicted.of(part, own) for part, own in zip(turns, fits, strict=True)]
    together = _Predicted(*(np.concatenate(part) for part in zip(*each, strict=True)))
    width, hits = _half_width(together.off, coverage), 0
    for k, own in enumerate(each):
        others = without(turns, k)
        off = [_Predicted.of(part, one).off for part, one in zip(others, left_out(others), strict=True)]
        hits += int(np.sum(np.abs(own.off) <= _half_width(np.concatenate(off), coverage)))
    return _calibration(
        fit,
        parts={"fit": _Predicted.of(used, fit), "conformal": together, "test": together},
        width=width,
        hits=hits,
        bins=reliability([row for part, own in zip(turns, fits, strict=True) for row in _rows(part, own)]),
        coverage=coverage,
        scale=scale,
        words=f"by content, seed {seed}: in {len(turns)} parts, each left out in turn for interval and measure",
        origin=origin,
    )


class _Predicted(NamedTuple):
    """Scores, opinions, and what a curve makes of the scores, each [N]."""

    scores: Numbers
    opinions: Numbers
    curve: Numbers

    @classmethod
    def of(cls, part: Sequence[Pairing], fit: CurveFit) -> Self:
        x, y = _numbers(part)
        return cls(x, y, fit(x))

    @property
    def off(self) -> Numbers:
        return self.opinions - self.curve

    @property
    def metrics(self) -> PartMetrics:
        correlations = {"srcc": srcc(self.scores, self.opinions), "plcc": plcc(self.curve, self.opinions)}
        known = {name: value for name, value in correlations.items() if math.isfinite(value)}
        rmse, mae = float(np.sqrt(np.mean(self.off**2))), float(np.mean(np.abs(self.off)))
        return PartMetrics(clips=len(self.off), rmse=rmse, mae=mae, **known)


def _fitted(curve: CalibrationCurve, part: Sequence[Pairing]) -> CurveFit:
    x, y = _numbers(part)
    fit = CURVES[curve](x, y)
    if fit is None or np.ptp(x) == 0 or not rises(fit, x) or not plcc(x, y) > 0:  # a line near the scores always rises
        raise UsageError("calibrate: opinions do not rise with scores. If lower scores are better, negate them first.")
    return fit


def _half_width(off: Numbers, coverage: float) -> float:
    width = half_width(off, coverage=coverage)
    if not math.isfinite(width):
        raise UsageError(
            f"calibrate: {len(off)} clips are too few for intervals that cover {coverage:.0%}. Lower --coverage."
        )
    if width == 0:
        raise UsageError(
            "calibrate: the curve equals the opinions exactly. Check that the opinions are not the scores."
        )
    return width


def _rows(part: Sequence[Pairing], fit: CurveFit) -> list[ClipRow]:
    return clip_rows(part, dict.fromkeys({one.dataset for one in part}, fit))


def _calibration(
    fit: CurveFit,
    *,
    parts: Mapping[str, _Predicted],
    width: float,
    hits: int,
    bins: list[ReliabilityBin] | None,
    coverage: float,
    scale: tuple[float, float],
    words: str,
    origin: Origin,
) -> Calibration:
    found = {name: one.metrics for name, one in parts.items()}
    low, high = share_interval(hits, found["test"].clips)
    return Calibration(
        kind=fit.kind,
        parameters=fit.parameters,
        half_width=width,
        coverage_target=coverage,
        coverage=hits / found["test"].clips,
        coverage_low=low,
        coverage_high=high,
        scale=scale,
        split=words,
        fit=found["fit"],
        conformal=found["conformal"],
        test=found["test"],
        reliability=bins,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **origin,
    )


def _divide(
    used: Sequence[Pairing], fit_on: str | None, measure_on: str | None, seed: int
) -> tuple[dict[str, list[Pairing]], str]:
    if (fit_on is None) != (measure_on is None) or (fit_on is not None and fit_on == measure_on):
        raise UsageError("calibrate: --fit-on and --measure-on go together. Give two different splits, or neither.")
    if fit_on is None:
        parts = _shuffled(used, 4, seed)
        words = f"by content, seed {seed}: a quarter for the curve, a quarter for the interval, half to measure"
        return {"fit": parts[0], "bound": parts[1], "measure": [*parts[2], *parts[3]]}, words
    splits = {name: [one for one in used if str(one.label.get("split")) == name] for name in (fit_on, str(measure_on))}
    for name, members in splits.items():
        if not members:
            known = ", ".join(sorted({str(one.label.get("split")) for one in used}))
            raise UsageError(f"calibrate: no scored clip of split {name!r}. The labels have {known}.")
    fit, bound = _shuffled(splits[fit_on], 2, seed)
    words = f"{fit_on}: half for the curve, half for the interval (by content, seed {seed}); {measure_on}: to measure"
    return {"fit": fit, "bound": bound, "measure": splits[str(measure_on)]}, words


def _shuffled(members: Sequence[Pairing], count: int, seed: int) -> list[list[Pairing]]:
    contents = [str(one.label.get("content_id") or one.clip_id) for one in members]
    names = np.random.default_rng(seed).permutation(sorted(set(contents)))
    part_of = {str(name): index % count for index, name in enumerate(names)}
    return [
        [one for one, name in zip(members, contents, strict=True) if part_of[name] == part] for part in range(count)
    ]


def _numbers(part: Sequence[Pairing]) -> tuple[Numbers, Numbers]:
    return np.array([one.score for one in part], dtype=np.float64), np.array([one.mos for one in part])


def find_origin(scores: InputTable, labels: Path) -> tuple[Origin, Path]:
    """Where scores and labels come from, and the default path of their calibration.

    The path is calibration.json in the folder of the model or student if it was given by its absolute path, else beside
    the scores.
    """
    facts: Origin = {"scores": str(scores.source), "labels": str(labels)}
    if scores.kind != "vqa":
        return facts, scores.source.with_name(f"{scores.source.stem}.calibration.json")
    models = {(row.get("model_id"), row.get("model_revision")) for row in scores.rows}
    facts["model_id"], facts["model_revision"] = models.pop() if len(models) == 1 else (None, None)  # a cascade has two
    place = scores.source
    record = scores.source / "run.json"
    if record.is_file():
        run = json.loads(record.read_text(encoding="utf-8"))
        facts["settings"] = run.get("settings")
        config = run.get("config", {})
        model = Path(
            str(config.get("student") if run.get("tier") == "light" else config.get("model", {}).get("source"))
        )
        place = model if model.is_absolute() and model.is_dir() else place
    return facts, place / "calibration.json"


def load_calibration(path: Path) -> Calibration:
    """Load a calibration file. Raises UsageError if it cannot be read or is none."""
    try:
        return Calibration.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"calibration {path}: {where}: {wanted(first)}. Make one with `vqa calibrate`.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"calibration {path}: cannot be read ({error}). Make one with `vqa calibrate`.") from error


def calibrated(rows: pa.Table, calibration: Calibration | None) -> pa.Table:
    """Set mos, mos_low and mos_high of a scores table from its scores.

    They are null in rows without a score or of another model than the calibration's, and without a calibration. Of a
    student of severity the curve is over score_raw, and `score` is the opinion on 1-5, or null.
    """
    is_raw = pc.and_(pc.fill_null(pc.equal(rows.column("tier"), "light"), False), pc.is_valid(rows.column("score_raw")))
    scores = pc.if_else(is_raw, rows.column("score_raw"), rows.column("score"))
    there = np.asarray(scores.is_valid())
    if calibration is not None and calibration.model_id:  # a folder may hold rows of another model too
        there &= np.asarray(pc.fill_null(pc.equal(rows.column("model_id"), calibration.model_id), False))
    columns: list[pa.Array] = [pa.nulls(len(rows), pa.float64())] * 3
    if calibration is not None and there.any():
        found = calibration.mos(np.asarray(pc.fill_null(scores, 0.0), dtype=np.float64))
        columns = [pa.array(values, pa.float64(), mask=~there) for values in found]
    for name, column in zip(("mos", "mos_low", "mos_high"), columns, strict=True):
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    low, high = calibration.scale if calibration else (1.0, 5.0)
    opinions = pc.add(pc.multiply(pc.subtract(rows.column("mos"), low), 4 / (high - low)), 1.0)
    score = pc.if_else(is_raw, opinions, rows.column("score"))
    return rows.set_column(rows.schema.get_field_index("score"), "score", score)
