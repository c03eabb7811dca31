"""Values for tests that need views but no video: seeded pictures of many sizes."""

from collections.abc import Sequence

import numpy as np

from vqa.types import Clip, MediaInfo, Pixels, Views


def random_views(clip_id: str = "clip", pictures: Sequence[Pixels] | None = None, *, seed: int = 0) -> Views:
    """One global picture and the rest local: `pictures`, or one to four of 30 to 130 pixels a side, drawn by `seed`."""
    rng = np.random.default_rng(seed)
    if pictures is None:
        sides = rng.integers(30, 130, (rng.integers(1, 5), 2))
        pictures = [smooth_picture(rng, height=int(h), width=int(w)) for h, w in sides]
    info = MediaInfo(
        uri=clip_id,
        codec="h264",
        container="mp4",
        width=pictures[0].shape[1],
        height=pictures[0].shape[0],
        rotation_degrees=0,
        fps=25.0,
        duration_seconds=1.0,
        frame_count=25,
        is_image=False,
    )
    return Views(
        clip=Clip(clip_id=clip_id, uri=clip_id),
        info=info,
        global_pictures=(pictures[0],),
        local_pictures=tuple(pictures[1:]),
        keyframe_seconds=(0.0,),
        crop_boxes=(),
        frames_planned=1,
        frames_decoded=1,
        decode_backend="pyav",
        decode_seconds=0.0,
    )


def smooth_picture(rng: np.random.Generator, *, height: int, width: int) -> Pixels:
    """A slope of colour under noise, uint8 [height, width, 3]: pictures differ by more than their noise."""
    ends = rng.uniform(0, 255, (2, 3))
    share = np.linspace(0, 1, width)[None, :, None]
    noise = rng.normal(0, rng.uniform(2, 60), (height, width, 3))
    return np.clip(ends[0] * (1 - share) + ends[1] * share + noise, 0, 255).astype(np.uint8)
