"""Agreement of a cascade with opinions by the share of clips the reasoner scored."""

from collections.abc import Sequence

import numpy as np

from vqa.evaluate.join import Pairing
from vqa.evaluate.schema import SharePoint
from vqa.metrics.correlation import srcc
from vqa.metrics.intervals import interval, replicates

STEPS = 20
FEWEST = 10  # clips below which no correlation is shown


def share_curve(
    pairings: Sequence[Pairing], *, resamples: int, confidence: float, seed: int
) -> list[SharePoint] | None:
    """SRCC while the reasoner takes the clips the student is least sure of, by steps.

    Args:
        pairings: Clips with opinions; rows of a cascade hold the student's score beside the reasoner's.
        resamples: Of the bootstrap; 0 leaves the intervals out.
        confidence: Of the intervals.
        seed: Of the bootstrap.

    Returns:
        Points from no clip to all that were reasoned, widest first (ties by clip_id); None without such rows.
    """
    used = [one for one in pairings if one.score is not None and one.score == one.row.get("score")]
    reasoned = [one for one in used if one.row.get("light_score") is not None]
    if not reasoned or len(used) < FEWEST:
        return None
    reasoned.sort(key=lambda one: (-(one.row.get("light_std") or 0.0), one.clip_id))
    place = {id(one): at for at, one in enumerate(used)}
    opinions = np.array([one.mos for one in used])
    scores = np.array([one.score if one.row.get("light_score") is None else one.row["light_score"] for one in used])
    points: list[SharePoint] = []
    done = 0
    for count in np.unique(np.linspace(0, len(reasoned), STEPS + 1).round().astype(int)).tolist():
        for one in reasoned[done:count]:
            scores[place[id(one)]] = one.score
        done = count
        found = replicates(scores, opinions, resamples=resamples, seed=seed)["srcc"] if resamples else np.array([])
        low, high = interval(found, confidence=confidence) or (None, None)
        value = srcc(scores, opinions)
        points.append(
            {
                "share": count / len(used),
                "clips": count,
                "srcc": float(value) if np.isfinite(value) else None,
                "low": low,
                "high": high,
            }
        )
    return points
