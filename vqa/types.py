"""Values that packages exchange: frozen, checked when made, units in their names."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Seconds = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A file to score, or the half-open span [start_seconds, end_seconds) of one."""

    clip_id: str
    uri: str
    start_seconds: float | None = None
    end_seconds: float | None = None

    def __post_init__(self) -> None:
        start, end = self.start_seconds or 0.0, self.end_seconds
        if not start >= 0 or (end is not None and not end > start):
            raise ValueError(
                f"clip {self.clip_id!r}: span [{start}, {end}) is empty or negative. Give 0 <= start < end."
            )


class Crop(NamedTuple):
    """Columns and rows of the stored picture that its container hides."""

    left: int
    right: int
    top: int
    bottom: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """Facts of a video or image file.

    Sizes are as shown: square pixels, after cropping and rotation. Seconds count from the first frame shown.
    """

    uri: str
    codec: str
    container: str
    width: int
    height: int
    rotation_degrees: int  # clockwise, for display: 0, 90, 180 or 270
    is_mirrored: bool = False  # to be flipped upside down before that rotation
    is_turned_by_stream: bool = False  # both are told by the coded pictures (EXIF, SEI), not by their container
    crop: Crop | None = None  # before both
    has_alpha: bool = False  # transparent pixels are shown on white
    fps: float  # mean rate over the packets; 0.0 for a still picture
    duration_seconds: float
    frame_count: int
    is_image: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packets:
    """Packet table of a video in presentation order; all arrays have length N >= 1."""

    seconds: Seconds  # [N] presentation times, ascending, the first is 0.0
    sizes: NDArray[np.int64]  # [N] bytes
    is_key: NDArray[np.bool_]  # [N] decoding can start here

    def __post_init__(self) -> None:
        if not (len(self.seconds) == len(self.sizes) == len(self.is_key) >= 1):
            raise ValueError(
                f"packets: lengths {len(self.seconds)}, {len(self.sizes)}, {len(self.is_key)} must agree and be >= 1"
            )

    def __repr__(self) -> str:
        return f"Packets({len(self.seconds)} frames, {int(self.sizes.sum())} bytes, {int(self.is_key.sum())} key)"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frames:
    """Decoded frames, lost ones left out; entry j answers request `requested[j]`."""

    pixels: tuple[Pixels, ...]  # each uint8 [height, width, 3] RGB, at the size asked for
    seconds: Seconds  # [M] presentation time of the decoded frame, not of the request
    requested: NDArray[np.int64]  # [M] ascending indices into the request

    def __post_init__(self) -> None:
        if not (len(self.pixels) == len(self.seconds) == len(self.requested)):
            raise ValueError(
                f"frames: {len(self.pixels)} pictures, {len(self.seconds)} times, {len(self.requested)} indices differ"
            )

    def __repr__(self) -> str:
        return f"Frames({[p.shape[:2] for p in self.pixels]} at {np.round(self.seconds, 3).tolist()} s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class CropBox:
    """Place of a local picture: time in seconds, and pixels of the frame as shown."""

    second: float
    x: int
    y: int
    width: int
    height: int


class PictureCounts(TypedDict):
    """What a question is told of its pictures."""

    global_count: int
    local_count: int
    repeats: int | None  # as told_repeats in Views


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Views:
    """Pictures that the model is shown of a clip, and where they were taken."""

    clip: Clip
    info: MediaInfo
    global_pictures: tuple[Pixels, ...]  # one mosaic, or keyframes in time order
    local_pictures: tuple[Pixels, ...]  # crops or whole frames at native size, in time order
    keyframe_seconds: tuple[float, ...]
    crop_boxes: tuple[CropBox, ...]
    frames_planned: int  # distinct frames requested of the decoder
    frames_decoded: int
    decode_backend: str
    decode_seconds: float
    enlargement: float | None = None  # times that each side was scaled by first (views.shown_size); None: not known
    # Of the global frames, how many show the one before again; None: not counted (views.count_repeats), or a still.
    told_repeats: int | None = None

    @property
    def counts(self) -> PictureCounts:
        """What the question is told of them."""
        return {
            "global_count": len(self.global_pictures),
            "local_count": len(self.local_pictures),
            "repeats": self.told_repeats,
        }

    @property
    def pictures(self) -> tuple[Pixels, ...]:
        """All pictures in the order of the prompt: global first."""
        return self.global_pictures + self.local_pictures

    @property
    def is_partial(self) -> bool:
        """Whether fewer frames were decoded than planned."""
        return self.frames_decoded < self.frames_planned

    def __repr__(self) -> str:
        shapes = [p.shape[:2] for p in self.pictures]
        return f"Views({self.clip.clip_id!r}, pictures {shapes}, frames {self.frames_decoded}/{self.frames_planned})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One rollout: its text, and the values parsed from it, None without a score."""

    text: str
    values: tuple[float, ...] | None  # D numbers, as written, on the model's own scale
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Score of a clip on 1-5; every number is None unless it was read from an answer."""

    score: float | None
    score_std: float | None  # population spread over parsed rollouts, 0.0 for one
    score_global: float | None
    score_local: float | None
    score_raw: float | None = None  # on the model's own scale; alone where only a calibration makes a score of it
    score_expected: float | None = None  # by the digits' chances, where `score` is read as the released script does
    readout: Literal["answer", "expected", "published"] | None = None  # how answers were read; None of a light score
    reason: str | None  # None from a model that writes none
    description: str | None = None  # words asked for beside the score
    answers: tuple[Answer, ...] = field(repr=False)
    score_seconds: float
    prompt_tokens: int | None = None  # read once for all answers; None of a light score, or where a server does not say
    answer_tokens: int | None = None  # of all answers

    @property
    def answers_parsed(self) -> int:
        """Number of rollouts from which a score could be read."""
        return sum(answer.values is not None for answer in self.answers)
