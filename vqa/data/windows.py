"""Windows of long videos: their spans, their ids, and one summary row per video."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import TypedDict

import numpy as np

from vqa.data.dialects import Row
from vqa.types import Clip

MOST_WINDOWS = 100_000  # a day in windows of a second
# A window's id is its video's id plus a W3C media fragment: `talks/a.mp4#t=10,20`.
WINDOW_ID = re.compile(r"#t=\d+(\.\d+)?,(\d+(\.\d+)?)?$")


class VideoSummary(TypedDict):
    """Row of videos.parquet: one video and the scores of its windows."""

    video_id: str
    uri: str
    duration_seconds: float | None
    windows: int
    windows_scored: int
    score_mean: float | None
    score_min: float | None
    score_p5: float | None  # 5th percentile
    score_harmonic_mean: float | None


def span_suffix(start_seconds: float | None, end_seconds: float | None) -> str:
    """Suffix of a span to the millisecond, e.g. `#t=10,20.5`; "" for a whole file."""
    if start_seconds is None and end_seconds is None:
        return ""
    return f"#t={_short(start_seconds or 0.0)},{'' if end_seconds is None else _short(end_seconds)}"


def _short(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def windows(clip: Clip, *, duration_seconds: float | None, clip_seconds: float | None) -> list[Clip]:
    """Cut a clip into windows; a remainder under half a window joins the last one.

    Args:
        clip: A file, or a span of one.
        duration_seconds: Duration of the file, None if unknown.
        clip_seconds: Length of a window, None to cut nothing.

    Returns:
        The windows in order of time; the clip itself if it is no longer than one window, if a length is unknown, or if
        there would be more than MOST_WINDOWS (a damaged header can claim 10^17 seconds).
    """
    if clip_seconds is None or duration_seconds is None:
        return [clip]
    begin = clip.start_seconds or 0.0
    end = duration_seconds if clip.end_seconds is None else min(clip.end_seconds, duration_seconds)
    count = int((end - begin) / clip_seconds + 0.5)  # halves round up
    if not 1 < count <= MOST_WINDOWS:
        return [clip]
    edges = [round(begin + index * clip_seconds, 6) for index in range(count)] + [end]
    return [
        replace(clip, clip_id=clip.clip_id + span_suffix(start, stop), start_seconds=start, end_seconds=stop)
        for start, stop in pairwise(edges)
    ]


def video_id(clip_id: str) -> str:
    """Return the id of the video: the clip_id without its span."""
    return WINDOW_ID.sub("", clip_id)


def summarise_videos(rows: Iterable[Row]) -> list[VideoSummary]:
    """Summarise the scores of the windows of each video.

    Args:
        rows: Rows of a score table, of which `clip_id`, `uri`, `score` and `duration_seconds` are read.

    Returns:
        One row per video, sorted by id: mean, minimum, 5th percentile (linear) and harmonic mean of the scores, null if
        no window has a score.
    """
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[video_id(row["clip_id"])].append(row)
    return [_summary(name, members) for name, members in sorted(grouped.items())]


def _summary(name: str, members: list[Row]) -> VideoSummary:
    scores = np.array([row["score"] for row in members if row["score"] is not None])
    any_score = len(scores) > 0
    durations = (row["duration_seconds"] for row in members)
    return {
        "video_id": name,
        "uri": members[0]["uri"],
        "duration_seconds": next((seconds for seconds in durations if seconds is not None), None),
        "windows": len(members),
        "windows_scored": len(scores),
        "score_mean": float(scores.mean()) if any_score else None,
        "score_min": float(scores.min()) if any_score else None,
        "score_p5": float(np.percentile(scores, 5)) if any_score else None,
        "score_harmonic_mean": float(len(scores) / (1 / scores).sum()) if any_score else None,
    }
