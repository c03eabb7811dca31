"""Golden opinions by SUREAL 0.9: `python tests/references/make_recovered.py > tests/references/recovered.json`.

Needs `pip install sureal==0.9.0` in an environment of its own. Ratings are simulated: whole numbers from 1 to 5, by
subjects with a bias and a noise of their own, three of whom rate at random; on no clip do all agree. In `holes` one
rating in eight is missing and some subjects rated some clips twice.
"""

import contextlib
import io
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
from sureal import BT500Model, MosModel, P910AnnexEModel, P913124Model
from sureal.dataset_reader import RawDatasetReader

CLIPS, SUBJECTS, AT_RANDOM = 24, 20, 3
MODELS = {"mean": MosModel, "bt500": BT500Model, "p913": P913124Model, "p910": P910AnnexEModel}
WANTED = {"mos": "quality_scores", "mos_error": "quality_scores_std", "rejected": "observer_rejected"}
WANTED |= {"bias": "observer_bias", "inconsistency": "observer_inconsistency"}


def simulate(*, seed: int) -> np.ndarray[Any, Any]:
    """Two ratings of each clip by each subject, [CLIPS, SUBJECTS, 2]."""
    rng = np.random.default_rng(seed)
    quality = rng.uniform(1.5, 4.5, (CLIPS, 1, 1))
    bias, noise = rng.normal(0, 0.4, (1, SUBJECTS, 1)), rng.uniform(0.2, 0.6, (1, SUBJECTS, 1))
    ratings = quality + bias + noise * rng.normal(size=(CLIPS, SUBJECTS, 2))
    ratings[:, :AT_RANDOM] = rng.uniform(0.5, 5.5, (CLIPS, AT_RANDOM, 2))
    return np.clip(np.round(ratings), 1, 5)


def by_sureal(ratings: list[list[list[float]]], name: str) -> dict[str, list[float]]:
    videos = [{"content_id": 0, "asset_id": at, "os": row, "path": str(at)} for at, row in enumerate(ratings)]
    reference = [{"content_id": 0, "content_name": "0", "path": "0"}]
    dataset = SimpleNamespace(dataset_name="simulated", ref_videos=reference, dis_videos=videos)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints each iteration
        result = MODELS[name](RawDatasetReader(dataset)).run_modeling()
    return {ours: np.asarray(result[theirs]).tolist() for ours, theirs in WANTED.items() if theirs in result}


def main() -> None:
    full = simulate(seed=3)[:, :, :1]
    rng = np.random.default_rng(1)
    draws = rng.uniform(size=(CLIPS, SUBJECTS))
    holes = simulate(seed=2).tolist()
    for clip, subject in np.ndindex(CLIPS, SUBJECTS):
        if draws[clip, subject] >= 0.875:
            holes[clip][subject] = [float("nan")]
        elif draws[clip, subject] < 0.75:
            holes[clip][subject].pop()
    cases = {
        "full": (full.tolist(), ("mean", "bt500", "p913", "p910")),
        "holes": (holes, ("mean", "p910")),
    }
    golden = {
        name: {
            "ratings": [[[int(one) for one in cell if one == one] for cell in row] for row in ratings],
            "results": {method: by_sureal(ratings, method) for method in methods},
        }
        for name, (ratings, methods) in cases.items()
    }
    print(json.dumps(golden, separators=(",", ":")))


if __name__ == "__main__":
    main()
