"""report.html of an evaluation or of scores alone: one file that opens offline.

The data are embedded as JSON and become text by `textContent` alone. A content security policy with the digests of the
page's own scripts and style allows no other code and no requests. Charts are drawn by Chart.js on canvas, with a sixth
of the bytes of Plotly's basic bundle.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow.parquet as pq
from markupsafe import Markup

from vqa.data.dialects import Row
from vqa.data.score_table import read_scores
from vqa.data.windows import summarise_videos, video_id
from vqa.errors import UsageError
from vqa.evaluate.calibrate import load_calibration
from vqa.evaluate.evaluation import CLIP_FIELDS
from vqa.evaluate.schema import EvaluationMetrics, SetMetrics, Splits, Statistic
from vqa.files import replacing
from vqa.media.storage.open import local_path
from vqa.metrics.fits import CurveFit
from vqa.report.thumbnails import clip_thumbnails

ASSETS = Path(__file__).parent / "assets"
WORST = 24
MOST_GROUPS = 40  # different values of a column with a filter
REASON_CHARACTERS = 600
CURVE_POINTS = 60
BAND = 0.9  # share of clips within the band of a curve
# Columns of the table of statistics; the second kind are medians over random fifths.
STATISTICS = {
    "SRCC": "srcc",
    "PLCC fitted": "plcc_logistic4",
    "KRCC": "krcc",
    "RMSE fitted": "rmse_logistic4",
    "different / similar": "auc_different_similar",
    "better / worse": "auc_better_worse",
}
MEDIANS = {"SRCC, splits": "srcc", "PLCC fitted, splits": "plcc_logistic4"}
SHOWN = ("clip_id", "uri", "status", "error_kind", "error", "score", "score_std", "mos", "mapped", "residual", "reason")

Data = dict[str, Any]  # of the page, as JSON


def write_report(
    folder: Path, *, against: Path | None = None, calibration: Path | None = None, pictures: int = WORST
) -> Path:
    """Write report.html of an evaluation.

    Args:
        folder: The --out folder of `vqa evaluate`; the page is written here.
        against: Folder of a second evaluation, shown side by side.
        calibration: File of `vqa calibrate`, shown too.
        pictures: Number of clips, of the 24 with the largest residuals, that are decoded again and shown as pictures.

    Returns:
        The path of the page.

    Raises:
        UsageError: If a folder holds no evaluation.
    """
    metrics, rows = _evaluation(folder)
    sources = [(metrics, rows)] + ([_evaluation(against)] if against else [])
    scored = [row for row in rows if row["residual"] is not None]
    worst = sorted(scored, key=lambda row: -abs(row["residual"]))[:WORST]
    index = {row["clip_id"]: at for at, row in enumerate(rows)}
    root = local_path(metrics["labels"]["source"]).parent
    models = _names([(place, one) for place, (one, _) in zip((folder, against), sources, strict=False) if place])
    data = _columns(rows, extra=_label_columns(rows)) | {
        "kind": "evaluation",
        "curves": [_curves(*one) for one in sources],
        "worst": [index[row["clip_id"]] for row in worst],
        "thumbnails": clip_thumbnails(worst[:pictures], root=root),
        "reliability": metrics["reliability"],
        "shares": metrics.get("shares"),  # evaluations of before have none
        "metrics": [_table(one) for one, _ in sources],
        "statistics": [*STATISTICS, *MEDIANS],
        "splits": metrics["settings"]["splits"],
        "models": models,
        "calibration": load_calibration(calibration).model_dump(mode="json") if calibration else None,
    }
    if against:
        other = {row["clip_id"]: row for row in sources[1][1]}
        data["score_b"] = [_short(other.get(row["clip_id"], {}).get("score")) for row in rows]
        data["residual_b"] = [_short(other.get(row["clip_id"], {}).get("residual")) for row in rows]
    counts = metrics["counts"]
    note = f"{counts['used']} of {counts['expected']} expected clips used"
    note += f"; the other model is {models[1]}" if against else ""
    return _write(folder, data, title=f"{models[0]} on {Path(metrics['labels']['source']).name}", note=note)


def write_library(folder: Path, *, pictures: int = WORST) -> Path:
    """Write report.html of scores without opinions.

    Args:
        folder: The --out folder of `vqa score`; the page is written here.
        pictures: Number of clips, of the 24 with the lowest and highest scores, that are shown as pictures.

    Returns:
        The path of the page.

    Raises:
        UsageError: If the folder holds no scores.
    """
    if not (folder / "scores").is_dir():
        raise UsageError(
            f"{folder} holds neither scores nor an evaluation. Give an --out of `vqa score` or `vqa evaluate`."
        )
    rows = read_scores(folder).to_pylist()
    is_raw = all(row["score"] is None for row in rows) and any(row["score_raw"] is not None for row in rows)
    if is_raw:
        rows = [row | {"score": row["score_raw"]} for row in rows]
    scored = sorted((row for row in rows if row["score"] is not None), key=lambda row: (row["score"], row["clip_id"]))
    half = min(WORST, len(scored) + 1) // 2
    low, high = scored[:half], scored[half:][::-1][:half]
    index = {row["clip_id"]: at for at, row in enumerate(rows)}
    shown = [row for pair in zip_longest(low, high) for row in pair if row]  # worst and best alternate
    data = _columns(rows, extra=[]) | {
        "kind": "library",
        "worst": [index[row["clip_id"]] for row in low],
        "best": [index[row["clip_id"]] for row in high],
        "thumbnails": clip_thumbnails(shown[:pictures], root=Path()),
        "videos": _videos(rows),
    }
    models = sorted({row["model_id"] for row in rows if row["model_id"]})
    note = f"{len(scored)} of {len(rows)} clips scored; there are no opinions, so the accuracy of the scores is unknown"
    if is_raw:
        note += (
            "; numbers are score_raw, severities on the student's own scale, until a calibration makes scores of them"
        )
    return _write(folder, data, title=f"{', '.join(models) or 'no model'}: {folder.resolve().name}", note=note)


def _evaluation(folder: Path) -> tuple[EvaluationMetrics, list[Row]]:
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return metrics, pq.read_table(folder / "clips.parquet").to_pylist()
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} holds no evaluation ({error}). Give an --out folder of `vqa evaluate`.") from error


def _names(sources: Sequence[tuple[Path, EvaluationMetrics]]) -> list[str]:
    """The name of each model, with the folder of its evaluation if two are equal."""
    names = []
    for _, metrics in sources:
        scores = metrics["scores"]
        name = str(scores["model_id"] or Path(scores["source"]).name)
        names.append(name if scores["column"] == "score" else f"{name} ({scores['column']})")
    if len(set(names)) == len(names):
        return names
    return [f"{name}, {folder.resolve().name}" for name, (folder, _) in zip(names, sources, strict=True)]


def _table(metrics: EvaluationMetrics) -> list[Data]:
    """Rows of statistics: group, name, counts, [value, low, high, reason] of each."""
    parts = [("", name, part) for name, part in metrics["datasets"].items()]
    if len(parts) > 1:
        for kind, found in metrics["means"].items():
            mean: SetMetrics = {**metrics["all"], "statistics": found, "splits": None}
            parts.append(("", f"{kind} mean", mean))
        parts.append(("", "all together", metrics["all"]))
    parts += [(column, name, part) for column, groups in metrics["groups"].items() for name, part in groups.items()]
    return [
        {
            "group": column,
            "name": name,
            "used": part["used"],
            "expected": part["expected"],
            "values": [_cell(part["statistics"][one]) for one in STATISTICS.values()]
            + [_median(part["splits"], one) for one in MEDIANS.values()],
        }
        for column, name, part in parts
    ]


def _cell(found: Statistic) -> list[float | str | None]:
    return [_short(found["value"]), _short(found["low"]), _short(found["high"]), found["reason"]]


def _median(splits: Splits | None, name: str) -> list[float | str | None]:
    """Median, with minimum and maximum, over random fifths; nulls if there is none."""
    if splits is None or name not in splits["median"]:
        return [None, None, None, None]
    return [_short(splits["median"][name]), _short(splits["min"][name]), _short(splits["max"][name]), None]


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _label_columns(rows: Sequence[Row]) -> list[str]:
    known = {field.name for field in CLIP_FIELDS} | {"content_id"}
    return [name for name in (rows[0] if rows else {}) if name not in known and not name.startswith("label_")]


def _columns(rows: Sequence[Row], *, extra: Sequence[str]) -> Data:
    """Rows as columns; those with a filter as words and indices (lists for lists)."""
    groups: dict[str, list[str] | list[str | list[str]]] = {
        "data set": [str(row.get("dataset") or "") for row in rows],
        "status": [row["status"] for row in rows],
        "failure": [row.get("error_kind") or "none" for row in rows],
        "resolution": [_resolution(row) for row in rows],
        "duration": [_duration(row) for row in rows],
        "codec": [row.get("codec") or row.get("label_codec") or "unknown" for row in rows],
    }
    groups |= {"distortion" if name == "distortions" else name: [_words(row[name]) for row in rows] for name in extra}
    filters = {}
    for name, values in groups.items():
        members = [value if isinstance(value, list) else [value] for value in values]
        words = sorted({word for inside in members for word in inside}, key=_natural)
        if 2 <= len(words) <= MOST_GROUPS:
            place = {word: at for at, word in enumerate(words)}
            places = [sorted({place[word] for word in inside}) for inside in members]
            filters[name] = {"words": words, "at": [at[0] if len(at) == 1 else at for at in places]}
    columns = {
        name: [_short(row.get(name)) if isinstance(row.get(name), float) else row.get(name) for row in rows]
        for name in SHOWN
    }
    columns["reason"] = [(row.get("reason") or "")[:REASON_CHARACTERS] for row in rows]
    return {"count": len(rows), "columns": columns, "filters": filters}


def _resolution(row: Row) -> str:
    side = min(row.get("width") or 0, row.get("height") or 0)
    return next((f"up to {top}p" for top in (240, 360, 540, 720, 1080, 1440, 2160) if 0 < side <= top), "unknown")


def _duration(row: Row) -> str:
    seconds = row.get("duration_seconds")
    if seconds is None:
        return "unknown"
    return next((f"up to {top} s" for top in (2, 5, 10, 30, 60, 600) if seconds <= top), "upwards of 600 s")


def _natural(word: str) -> list[str | int]:
    """Sorts 360p before 1080p."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", word)]


def _words(value: object) -> str | list[str]:
    if isinstance(value, str) and value.startswith("["):  # a list as JSON, as in clips.parquet
        try:
            return [str(member) for member in json.loads(value)] or "none"
        except ValueError:
            return value
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _curves(metrics: EvaluationMetrics, rows: Sequence[Row]) -> dict[str, Data]:
    """Each set's 4-parameter logistic as points, and the band of BAND of its clips."""
    curves = {}
    for name, part in metrics["datasets"].items():
        fit = part["fits"].get("logistic4")
        known = [row for row in rows if row["dataset"] == name and row["residual"] is not None]
        if fit is None or not fit["parameters"] or not known:
            continue
        scores = [row["score"] for row in known]
        x = np.linspace(min(scores), max(scores), CURVE_POINTS)
        y = CurveFit(kind="logistic4", parameters=tuple(fit["parameters"]), converged=True)(x)
        below, above = np.quantile([-row["residual"] for row in known], [(1 - BAND) / 2, (1 + BAND) / 2])
        curves[name] = {"x": x.round(4).tolist(), "y": y.round(4).tolist(), "band": [float(below), float(above)]}
    return curves


def _videos(rows: Sequence[Row]) -> list[Data]:
    """Videos with windows, lowest 5th percentile first; windows in order of time."""
    members: dict[str, list[Row]] = {}
    for row in rows:
        if row["end_seconds"] is not None:
            members.setdefault(video_id(row["clip_id"]), []).append(row)
    whole = [row for parts in members.values() for row in parts]
    videos = [
        {
            "name": video["video_id"],
            "mean": _short(video["score_mean"]),
            "p5": _short(video["score_p5"]),
            "windows": [
                [_short(row["start_seconds"] or 0.0), _short(row["end_seconds"]), _short(row["score"])]
                for row in sorted(members[video["video_id"]], key=lambda row: row["start_seconds"] or 0.0)
            ],
        }
        for video in summarise_videos(whole)
    ]
    return sorted(videos, key=lambda video: math.inf if video["p5"] is None else video["p5"])


def _write(folder: Path, data: Data, *, title: str, note: str) -> Path:
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(ASSETS), autoescape=True)
    # "<" could end the script element.
    packed = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {name: (ASSETS / file).read_text(encoding="utf-8") for name, file in PARTS.items()}
    text = environment.get_template("page.html.j2").render(
        title=title,
        note=note,
        kind=data["kind"],
        data=Markup(packed),  # noqa: S704 (escaped above)
        digests={name: _digest(part) for name, part in parts.items()},
        **{name: Markup(part) for name, part in parts.items()},  # noqa: S704 (files of this package)
    )
    path = folder / "report.html"
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    return path


PARTS = {"style": "page.css", "charts": "chart.umd.min.js", "plots": "plots.js", "script": "page.js"}


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
