"""Labels and scores in files, drawn by seed: what the tests of evaluation read."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vqa.data.score_table import ScoreRow, ScoreTable

Rows = list[dict[str, Any]]


def clips(count: int, *, seed: int = 0, dataset: str = "set", noise: float = 0.5) -> tuple[Rows, Rows]:
    """Labels and scores of clips `dataset/clip0.mp4`...; a score is its opinion and noise."""
    rng = np.random.default_rng(seed)
    opinions = rng.uniform(1.2, 4.8, count)
    labels = [
        {
            "clip_id": f"{dataset}/clip{at}",
            "uri": f"{dataset}/clip{at}.mp4",
            "dataset": dataset,
            "split": "train" if at % 2 else "test",
            "content_id": f"{dataset}{at // 2}",
            "mos": float(opinion),
            "mos_std": 0.4,
        }
        for at, opinion in enumerate(opinions)
    ]
    scores = [{"path": row["uri"], "score": row["mos"] + float(rng.normal(0, noise))} for row in labels]
    return labels, scores


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_scores(out: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """An --out folder as `vqa score` leaves it, with these rows (clip_id and status are filled in)."""
    table = ScoreTable(out)
    table.add([ScoreRow(**{"clip_id": row["uri"], "status": "ok", "run_key": row["uri"], **row}) for row in rows])
    table.flush()
    return out
