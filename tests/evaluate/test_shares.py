"""Agreement by the share reasoned: from the student alone to the run's own rows, the least sure clips first."""

import numpy as np
import pytest

from vqa.evaluate.join import Pairing
from vqa.evaluate.shares import share_curve
from vqa.metrics.correlation import srcc

COUNT, REASONED = 40, 16


@pytest.fixture
def pairings() -> list[Pairing]:
    """The student errs where it is unsure; the reasoner, which scored the widest 16, is right."""
    rng = np.random.default_rng(0)
    made = []
    for at, mos in enumerate(rng.uniform(1, 5, COUNT).tolist()):
        width = (COUNT - at) / 20
        light = mos + width * rng.standard_normal()
        row = {"score": light, "score_std": width, "tier": "light"}
        if at < REASONED:
            row = {"score": mos, "score_std": 0.1, "tier": "reason", "light_score": light, "light_std": width}
        name = f"{at}.mp4"
        made.append(
            Pairing(clip_id=name, uri=name, dataset="a", label={}, mos=mos, status="ok", score=row["score"], row=row)
        )
    return made


def test_the_curve_goes_from_the_student_to_the_run(pairings: list[Pairing]) -> None:
    points = share_curve(pairings[::-1], resamples=200, confidence=0.95, seed=0)
    assert points is not None
    assert (points[0]["share"], points[-1]["share"], points[-1]["clips"]) == (0.0, REASONED / COUNT, REASONED)
    opinions = np.array([one.mos for one in pairings])
    light = np.array([one.row.get("light_score", one.score) for one in pairings])
    assert points[0]["srcc"] == pytest.approx(srcc(light, opinions))
    assert points[-1]["srcc"] == pytest.approx(srcc(np.array([one.score for one in pairings]), opinions))
    at_5 = light.copy()
    at_5[:5] = opinions[:5]  # the widest five
    assert next(one["srcc"] for one in points if one["clips"] == 5) == pytest.approx(srcc(at_5, opinions))
    assert all(one["low"] <= one["srcc"] <= one["high"] for one in points)  # type: ignore[operator]


def test_other_runs_have_none(pairings: list[Pairing]) -> None:
    assert share_curve(pairings[REASONED:], resamples=0, confidence=0.95, seed=0) is None
    assert share_curve(pairings[:5], resamples=0, confidence=0.95, seed=0) is None
