"""Pristine clips to distort: videos scaled down, or a camera move over a photo."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import scipy  # its parts load when first used
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from vqa.errors import UsageError
from vqa.types import Pixels

FRAMES_PER_CLIP = 48
FPS = 24
MIN_FRAMES = 24  # a video with fewer has too little motion
SIZES = (
    *((320, 180), (426, 240), (480, 270), (640, 360), (640, 480), (854, 480), (360, 640), (960, 540)),
    *((1280, 720), (1920, 1080)),
)
SMALLEST = (416, 234)  # 1.3 times the smallest size: room for the camera to move
SIZE_WEIGHTS = np.array([2, 3, 3, 5, 2, 3, 2, 2, 1, 0.5]) / 23.5
MOVING_SCALE = (0.5, 0.75)  # scale of videos
SHORTEST = 160  # pixels: the shorter side of a crop of a video is no less
SPEEDS = (1, 2)  # every frame of a video, or every other one if it has enough


def read_pristine(source: Path, generator: np.random.Generator) -> Pixels:
    """Read a pristine clip: a video's random crop and scale, or a pan over a photo.

    Args:
        source: A picture, an animation or a video.
        generator: Chooses start, speed, crop, scale and mirroring, or the camera move.

    Returns:
        uint8 [T, H, W, 3], T = 24 to 48 frames at 24 frames per second, H and W even.

    Raises:
        UsageError: If the source cannot be read or is too small.
    """
    try:
        with Image.open(source) as image:
            count = getattr(image, "n_frames", 1)
            if count == 1:
                return _pan(image.convert("RGB"), generator)
            speed = int(generator.choice([one for one in SPEEDS if one == 1 or count >= one * FRAMES_PER_CLIP]))
            span = speed * FRAMES_PER_CLIP
            start = int(generator.integers(0, max(1, count - span + 1)))
            window = islice(ImageSequence.Iterator(image), start, start + span, speed)
            frames = [frame.convert("RGB") for frame in window]
    except OSError:
        frames = list(read_video(source, count=FRAMES_PER_CLIP))
    if len(frames) < MIN_FRAMES:
        raise UsageError(f"{source}: {len(frames)} frames, but a video needs {MIN_FRAMES}. Leave the file out.")
    scale = generator.uniform(*MOVING_SCALE)
    whole = frames[0].size
    least = min(1.0, SHORTEST / scale / min(whole))  # least share of the picture in a crop
    kept = generator.uniform(max(0.6, least), 1.0) if least < 1 else 1.0
    left, top = (generator.uniform(0, side * (1 - kept)) for side in whole)
    box = (left, top, left + whole[0] * kept, top + whole[1] * kept)
    width, height = (max(64, round(side * kept * scale) // 2 * 2) for side in whole)
    flip = generator.random() < 0.5
    small = [frame.resize((width, height), Image.Resampling.LANCZOS, box=box) for frame in frames]
    stack = np.stack([np.asarray(frame) for frame in small])
    return np.ascontiguousarray(stack[:, :, ::-1]) if flip else stack


def read_video(source: Path, *, count: int) -> Iterator[Image.Image]:
    """Yield the first `count` frames of a video. Raises UsageError if unreadable."""
    reader = imageio_ffmpeg.read_frames(str(source))
    try:
        size = next(reader)["size"]
        for _, raw in zip(range(count), reader, strict=False):
            yield Image.frombytes("RGB", size, raw)
    except OSError as error:
        raise UsageError(
            f"{source}: neither a picture nor a video that FFmpeg can read. Leave the file out."
        ) from error
    finally:
        reader.close()


def _pan(photo: Image.Image, generator: np.random.Generator) -> Pixels:
    """A pan, zoom and shake over a photograph, always reduced to the clip's size."""
    fitting = [i for i, (w, h) in enumerate(SIZES) if w * 1.3 <= photo.width and h * 1.3 <= photo.height]
    if not fitting:
        raise UsageError(
            f"picture of {photo.width}x{photo.height} is below {SMALLEST[0]}x{SMALLEST[1]}. Give a larger one."
        )
    weights = SIZE_WEIGHTS[fitting] / SIZE_WEIGHTS[fitting].sum()
    width, height = SIZES[fitting[generator.choice(len(fitting), p=weights)]]
    most = min(photo.width / width, photo.height / height)
    # Afterwards the photograph is 1.3 to 3 windows wide, and sharp.
    shrink = most / generator.uniform(1.3, min(most, 3.0))
    smaller = round(photo.width / shrink), round(photo.height / shrink)
    photo = photo.resize(smaller, Image.Resampling.LANCZOS, reducing_gap=2.0)
    zoom = np.linspace(generator.uniform(1.0, 1.25), generator.uniform(1.0, 1.25), FRAMES_PER_CLIP)
    begin, end = generator.random(2), generator.random(2)
    end = begin + (end - begin) * generator.uniform(0.05, 0.5)
    path = begin + np.linspace(0, 1, FRAMES_PER_CLIP)[:, None] * (end - begin)
    shake = _smooth(generator.standard_normal((FRAMES_PER_CLIP, 1)), 2) * generator.choice([0, 0.004, 0.01])
    path = np.clip(path + shake, 0, 1)
    frames = []
    for (x, y), factor in zip(path, zoom, strict=True):
        w, h = width * factor, height * factor
        left, top = x * (photo.width - w), y * (photo.height - h)
        box = (left, top, left + w, top + h)
        frames.append(np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC, box=box)))
    return np.stack(frames)


def _smooth(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Smooth a series with a Gaussian (camera shake of the pans over photographs)."""
    return np.asarray(scipy.ndimage.gaussian_filter1d(values, sigma, mode="nearest"))
