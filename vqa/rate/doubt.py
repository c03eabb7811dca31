"""How unsure `vqa score` is of clips and pairs, to choose who judges what next."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqa.data.score_table import existing_scores
from vqa.errors import UsageError
from vqa.rate.journal import Mode
from vqa.rate.stimuli import Stimulus

Known = Mapping[str, tuple[float, float]]  # score and score_std, by digest of the file's content


def read_known(out: Path) -> dict[str, tuple[float, float]]:
    """Read scores and widths of whole clips of a run, by the digest of their content.

    Raises UsageError unless `out` is the folder of a run that scored some.
    """
    columns = ["fingerprint", "score", "score_raw", "score_std", "start_seconds", "end_seconds"]
    rows = existing_scores(out, columns).to_pylist()
    whole = [row for row in rows if row["start_seconds"] is None and row["end_seconds"] is None]
    # a student of severity gives raw numbers alone until a calibration, and their order is all that counts here
    own = "score" if any(row["score"] is not None for row in whole) else "score_raw"
    known = {row["fingerprint"]: (row[own], row["score_std"] or 0.0) for row in whole if row[own] is not None}
    known.pop(None, None)
    if not known:
        raise UsageError(
            f"--scores {out}: none of its {len(rows)} rows is the score of a whole clip. Score the clips by `vqa "
            "score` without --clip-seconds, or leave it out."
        )
    return known


def doubts(
    known: Known, stimuli: Sequence[Stimulus], *, mode: Mode, source: Path, tell: Callable[[str], None]
) -> NDArray[np.float64]:
    """What scores leave open: the greater, the more a judgement tells.

    Args:
        known: The scores.
        stimuli: E clips; what a score is of is known by content.
        mode: `acr`: of clips, `pairs`: of pairs.
        source: Folder of the run, for messages.
        tell: Called with a line where clips have no score, or scores are of other clips.

    Returns:
        `acr`: [E], score_std. `pairs`: [E, E], 1 / (1 + z), z the distance of two scores in units of their joint
        deviation (1 where no score has one): 1 for equal scores. A clip without a score counts as wholly open.

    Raises:
        UsageError: If no clip has a score, or, for `acr`, no score a width.
    """
    found = [known.get(one.fingerprint) for one in stimuli]
    lacking = found.count(None)
    others = len(known.keys() - {one.fingerprint for one in stimuli})
    if lacking == len(stimuli):
        raise UsageError(
            f"--scores {source}: none of its {len(known)} scores is of one of the {lacking} clips shown. Give the "
            "--out folder of `vqa score` over the same clips, or leave it out."
        )
    if lacking:
        tell(f"--scores: {lacking} of {len(stimuli)} clips have no score, and come first of those with as few votes")
    if others:
        tell(f"--scores: {others} scores of other clips are not used")
    score, width = np.array([one or (np.nan, np.nan) for one in found]).T
    is_open = np.isnan(score)
    if mode == "acr":
        if not np.nanmax(width) > 0:
            raise UsageError(
                f"--scores {source}: no score has a score_std above 0, as of one answer each. Score with --k 4 or "
                "--tier light, or leave it out."
            )
        return np.where(is_open, np.inf, width)
    width = width if np.nanmax(width) > 0 else np.ones_like(width)
    joint = np.hypot(width[:, None], width)
    gap = abs(score[:, None] - score) / np.maximum(joint, 1e-6)
    return np.where(is_open[:, None] | is_open, 1.0, 1 / (1 + gap))
