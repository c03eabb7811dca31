"""The second pass of a cascade: which clips the reasoner scores, and their rows."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jobs.config import ScoreConfig
from jobs.resume import RETRIED, StoredRow, Work, row_run_key
from vqa.data.score_table import ScoreRow, read_scores
from vqa.data.windows import video_id
from vqa.errors import UsageError
from vqa.evaluate.calibrate import Calibration, load_calibration
from vqa.light.card import EMBEDDED_STUDENT, LINK
from vqa.types import Clip

COLUMNS = ("tier", "score", "score_std", "light_std")  # beside those of StoredRow


def scale_of(config: ScoreConfig, *, model_id: str, revision: str) -> Calibration | None:
    """Calibration from a reasoner's scores to the student's scale.

    The file given, or the student's own where it was made for this very model; None where there is neither. Raises
    UsageError for a file of another model.
    """
    if config.reason_scale is None:
        return carried((config.student or EMBEDDED_STUDENT) / LINK, model_id=model_id, revision=revision)
    found = load_calibration(config.reason_scale)
    if found.model_id not in (None, model_id):
        raise UsageError(
            f"--reason-scale {config.reason_scale}: made for {found.model_id}, this run uses {model_id}. Make "
            "one by `vqa calibrate` on this model's scores."
        )
    return found


def carried(path: Path, *, model_id: str, revision: str) -> Calibration | None:
    """Calibration in a student's folder; None without one for this very model."""
    found = load_calibration(path) if path.is_file() else None
    return found if found and (found.model_id, found.model_revision) == (model_id, revision) else None


def share_of(text: str) -> float:
    """`10%` or `0.1`. Raises UsageError."""
    try:
        share = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"--reason-share {text!r}: wanted a share of the clips like 10% or 0.1")
    return share


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondPass:
    """What the reasoner is to do, and what is known of these clips."""

    work: list[Work]
    chosen: dict[str, tuple[float, float]]  # by clip_id: the student's score and the error to expect of it
    clips: int  # scored by the student, among which was chosen
    scale: Calibration | None

    def amend(self, row: ScoreRow) -> ScoreRow | None:
        """The reasoner's row on the student's scale, with the student's score beside it.

        None, so that the student's row stands and the next run tries again, where the reasoner failed in a way that may
        pass, and for a clip that was not chosen: its file changed in between.
        """
        if row.error_kind in RETRIED or row.clip_id not in self.chosen:
            return None
        score, std = self.chosen[row.clip_id]
        own = row.score
        linked = own if own is None or self.scale is None else float(self.scale.mos(np.array([own]))[0][0])
        return replace(row, score=linked, light_score=score, light_std=std, reason_score=own)


def plan_second(
    out: Path, clips: Iterable[Clip], *, light: str, reason: str, share: float, scale: Calibration | None
) -> SecondPass:
    """Choose which finished rows go to the reasoner, whatever order they come in.

    Args:
        out: The job's folder, its first pass finished.
        clips: Those asked for.
        light: Digest of the student's settings.
        reason: Digest of the reasoner's.
        share: Of the clips, at most.
        scale: From the reasoner's scores to the student's scale.

    Returns:
        The work. Clips that an earlier run gave to the reasoner count as chosen where they still are, and keep their
        row where they are not.
    """
    asked = {clip.clip_id for clip in clips}
    files: dict[str, list[StoredRow]] = defaultdict(list)
    widths: dict[str, float] = {}
    waiting: dict[str, tuple[float, float]] = {}
    for values in read_scores(out, (*StoredRow._fields, *COLUMNS)).to_pylist():
        row = StoredRow(*(values[name] for name in StoredRow._fields))
        owner = row.clip_id if row.clip_id in asked else video_id(row.clip_id)
        if owner not in asked:
            continue
        files[owner].append(row)
        if values["tier"] == "light" and row.run_key == row_run_key(row, light) and values["score"] is not None:
            widths[row.clip_id] = values["score_std"]
            waiting[row.clip_id] = values["score"], values["score_std"]
        elif row.run_key == row_run_key(row, reason) and values["light_std"] is not None:
            widths[row.clip_id] = values["light_std"]
    chosen = {clip_id: waiting[clip_id] for clip_id in choose(widths, share) if clip_id in waiting}
    work = [
        Work(
            clip=clip,
            finished=tuple(row_run_key(row, reason) for row in files[clip.clip_id] if row.clip_id not in chosen),
        )
        for clip in clips
        if any(row.clip_id in chosen for row in files[clip.clip_id])
    ]
    return SecondPass(work=work, chosen=chosen, clips=len(widths), scale=scale)


def choose(widths: Mapping[str, float], share: float) -> set[str]:
    """Clips of widest uncertainty, whatever order they come in.

    Args:
        widths: By clip_id, of all clips that the student scored.
        share: Of them that are chosen, at most, 0-1.

    Returns:
        The clip_ids; of equal widths those first in the alphabet.
    """
    order = sorted(widths, key=lambda clip_id: (-widths[clip_id], clip_id))
    return set(order[: math.floor(share * len(order) + 1e-9)])
