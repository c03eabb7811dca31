"""Kinds of damage of the two sets of `unseen.py`: encoders and functions of frames, three levels each.

Frames are uint8 [T, H, W, 3]; a value is what the kind says; numbers are drawn from a generator.
"""

import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import imageio_ffmpeg
import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.cluster.vq import kmeans2, vq

from vqa.data.synthetic.distortions import clip
from vqa.data.synthetic.encoding import Codec, by_scale, encode_video
from vqa.data.synthetic.rare import shifted
from vqa.data.synthetic.sources import FPS
from vqa.types import Pixels

Codecs: TypeAlias = dict[str, tuple[tuple[int, int, int], Codec]]
Damage: TypeAlias = dict[str, tuple[tuple[float, float, float], Callable[[Pixels, float, np.random.Generator], Pixels]]]

# Quality of each level and how: of DCTs, a wavelet (Snow), vector quantisation (SVQ1: one chroma sample for 16 pixels).
FIRST_CODECS: Codecs = {
    "mpeg2video": ((8, 18, 31), by_scale("mpeg2video", 2, 31, "mkv")),
    "mpeg4": ((8, 18, 31), by_scale("mpeg4", 2, 31, "mp4")),
    "theora": ((6, 3, 0), by_scale("libtheora", 10, 0, "ogv")),
    "snow": ((6, 14, 30), by_scale("snow", 2, 31, "avi")),
    "svq1": ((10, 20, 31), by_scale("svq1", 2, 31, "mov", pixels="yuv410p")),
    "wmv2": ((8, 18, 31), by_scale("wmv2", 2, 31, "wmv")),
}


def ringing(frames: Pixels, cut: float, generator: np.random.Generator) -> Pixels:
    """No frequency above `cut` cycles a pixel, those just below it up to three times as strong: edges ring."""
    border = 32
    padded = np.pad(frames, ((0, 0), (border, border), (border, border), (0, 0)), mode="symmetric")
    height, width = padded.shape[1:3]
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) / cut
    kept = np.where(radius < 1, 1 + 2 * radius**4, 0).astype(np.float32)[..., None]
    out = np.empty_like(frames)
    for frame, into in zip(padded, out, strict=True):
        passed = np.fft.irfft2(np.fft.rfft2(frame, axes=(0, 1)) * kept, s=(height, width), axes=(0, 1))
        into[:] = clip(passed[border:-border, border:-border])
    return out


def combs(frames: Pixels, pixels: float, generator: np.random.Generator) -> Pixels:
    """Every other row `pixels` further: two fields of a moving picture shown as one."""
    by = np.where(np.arange(frames.shape[1]) % 2, int(pixels), 0) * int(generator.choice((-1, 1)))
    return np.stack([shifted(frame, 0, by[:, None]) for frame in frames])


def dither(frames: Pixels, colours: float, generator: np.random.Generator) -> Pixels:
    """`colours` in all, those of the first frame, errors diffused (Floyd and Steinberg): an animated GIF."""
    palette = Image.fromarray(frames[0]).quantize(int(colours), method=Image.Quantize.MEDIANCUT)
    to = partial(Image.Image.quantize, palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    return np.stack([np.asarray(to(Image.fromarray(frame)).convert("RGB")) for frame in frames])


def interference(frames: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """A drifting diagonal wave of 5 to 9 pixels: another carrier in an analogue signal."""
    count, height, width, _ = frames.shape
    angle, period = generator.uniform(0.2, 1.3), generator.uniform(5, 9)
    y, x = np.mgrid[:height, :width]
    along = 2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period
    return np.stack([clip(frames[k] + strength * np.sin(along + 0.7 * k)[..., None]) for k in range(count)])


def line_jitter(frames: Pixels, pixels: float, generator: np.random.Generator) -> Pixels:
    """Rows displaced at random (standard deviation `pixels`), in each frame anew: time-base errors of tape."""
    return np.stack([shifted(one, 0, pixels * generator.standard_normal((len(one), 1))) for one in frames])


def line_noise(frames: Pixels, share: float, generator: np.random.Generator) -> Pixels:
    """White, seldom black streaks of one row on this share of the rows: drop-outs of tape."""
    out, (height, width) = frames.copy(), frames.shape[1:3]
    for frame in out:
        for row in generator.choice(height, max(1, round(share * height)), replace=False):
            start, length = generator.integers(width), int(generator.uniform(0.03, 0.2) * width)
            frame[row, start : start + length] = 255 if generator.random() < 0.7 else 0
    return out


FIRST_DAMAGE: Damage = {
    "ringing": ((0.3, 0.18, 0.09), ringing),
    "combs": ((1, 2, 5), combs),
    "dither": ((64, 12, 4), dither),
    "interference": ((6, 16, 40), interference),
    "line_jitter": ((0.4, 1, 3), line_jitter),
    "line_noise": ((0.02, 0.1, 0.4), line_noise),
}

# Values at severities 0, 1/3, 2/3 and 1 of a wide ladder: those with which the mean VMAF of six training photographs is
# as near as it comes to 95, 80, 45 and 20, as one kind of `vqa data synth` has there (moving ladders, 741 clips).
WIDE: dict[str, tuple[float, float, float, float]] = {
    "mpeg2video": (7, 20, 31, 31),
    "mpeg4": (5, 15, 31, 31),
    "theora": (10, 3, 0, 0),
    "snow": (4, 10, 30, 62),
    "svq1": (9, 23, 31, 31),
    "wmv2": (5, 16, 31, 31),
    "ringing": (0.3, 0.165, 0.09, 0.055),
    "combs": (1, 1, 4, 24),
    "dither": (256, 96, 8, 3),
    "interference": (10, 35, 110, 160),
    "line_jitter": (0.4, 1, 3.1, 9),
    "line_noise": (0.05, 0.19, 1, 1),
    "avs2": (28, 42, 56, 63),
    "vvc": (32, 42, 52, 60),
    "jpeg_xl": (4, 11, 15, 15),
    "squeeze": (4, 10, 15, 15),
    "vc2": (265, 206, 184, 184),
    "codebook": (3000, 3000, 47, 6),
    "rain": (0.013, 0.057, 0.44, 0.9),
    "drops": (0.017, 0.065, 0.22, 0.48),
    "stale_blocks": (4.5, 12, 29, 55),
    "rolling": (0.03, 0.22, 0.62, 0.84),
    "overflow": (0.002, 0.02, 0.23, 0.5),
    "vignette": (0.905, 0.72, 0.4, 0.19),
}

TRIES = 30  # libvvenc writes nothing every other time, or less than all
_JPEG_XL = ("-c:v", "libjxl", "-effort", "3", "-threads", "1")
_AVS2 = ("-c:v", "libxavs2", "-lcu_row_threads", "1", "-speed_level", "2", "-log_level", "-1")
# None of these is decoded by decord, so clips are transcoded. VC-2 has a rate: hundredths of a bit for each pixel.
SECOND_CODECS: Codecs = {
    "avs2": ((30, 44, 58), Codec(1, 63, _AVS2, "-qp", "mkv")),
    "vvc": ((30, 42, 54), Codec(1, 63, ("-c:v", "libvvenc", "-preset", "faster"), "-qp", "mkv", "yuv420p10le")),
    "jpeg_xl": ((3, 8, 15), Codec(1, 15, _JPEG_XL, "-distance", "image2pipe", "rgb24")),
    "squeeze": ((4, 8, 15), Codec(1, 15, (*_JPEG_XL, "-modular", "1"), "-distance", "image2pipe", "rgb24")),
    "vc2": ((240, 198, 186), Codec(300, 170, ("-c:v", "vc2", "-threads", "1"), "-b:v", "mkv")),
}


def transcoded(frames: Pixels, how: Codec, quality: int) -> Pixels:
    """Coded and decoded by FFmpeg, padded to whole blocks of 16 meanwhile."""
    count, height, width, _ = frames.shape
    padded = np.pad(frames, ((0, 0), (0, -height % 16), (0, -width % 16), (0, 0)), mode="edge")
    quality = quality * padded[0, ..., 0].size * FPS // 100 if how.quality == "-b:v" else quality
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "quiet", "-nostdin", "-threads", "1"]
    raw = ["-fps_mode", "passthrough", "-vf", "scale=in_color_matrix=bt709", "-pix_fmt", "rgb24", "-f", "rawvideo"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"clip.{how.container}"
        for _ in range(TRIES):
            encode_video(padded, path, codec=how, quality=quality)
            data = subprocess.run([*program, "-i", str(path), *raw, "-"], capture_output=True, check=False).stdout
            if len(data) == padded.nbytes:
                decoded = np.frombuffer(data, np.uint8).reshape(padded.shape)
                return np.ascontiguousarray(decoded[:, :height, :width])
    raise RuntimeError(f"{how.options}: not {count} frames in any of {TRIES} tries")


def codebook(frames: Pixels, entries: float, generator: np.random.Generator) -> Pixels:
    """Blocks of 4 pixels, each the nearest of `entries` found in the first frame: Cinepak, which is slow to encode."""
    count, height, width, _ = frames.shape
    padded = np.pad(frames, ((0, 0), (0, -height % 4), (0, -width % 4), (0, 0)), mode="edge").astype(np.float32)
    rows, columns = padded.shape[1] // 4, padded.shape[2] // 4
    blocks = padded.reshape(count, rows, 4, columns, 4, 3).swapaxes(2, 3).reshape(count, rows * columns, 48)
    learnt = generator.choice(blocks[0], min(len(blocks[0]), 3000), replace=False)
    book, _ = kmeans2(learnt, int(entries), iter=8, minit="points", rng=generator)
    places = np.stack([vq(one, book)[0] for one in blocks])
    found = book[places].reshape(count, rows, columns, 4, 4, 3).swapaxes(2, 3).reshape(padded.shape)
    return clip(found[:, :height, :width])


def rain(frames: Pixels, share: float, generator: np.random.Generator) -> Pixels:
    """Slanted streaks of light, 4 to 15 % of the height long, that fall: about this share of the picture."""
    height, width = frames.shape[1:3]
    slant, long = generator.uniform(-0.4, 0.4), generator.uniform(0.04, 0.15, 40000) * height
    drops = min(40000, round(share * height * width / (0.1 * height * 1.5)))
    y, x = generator.uniform(0, height, drops), generator.uniform(0, width, drops)
    bright, speed = generator.uniform(0.2, 0.7, drops), generator.uniform(0.1, 0.25, drops) * height
    out = np.empty_like(frames)
    for frame, into in zip(frames, out, strict=True):
        lit = np.zeros((height, width), np.float32)
        for step in np.linspace(0, 1, round(0.15 * height) + 1):
            rows, columns = (y + step * long[:drops]) % height, (x + slant * step * long[:drops]) % width
            np.maximum.at(lit, (rows.astype(int), columns.astype(int)), bright)
        lit = ndimage.gaussian_filter(lit, 0.5)[..., None]
        into[:] = clip(frame + (235 - frame.astype(np.float32)) * lit)
        y, x = (y + speed) % height, (x + slant * speed) % width
    return out


def drops(frames: Pixels, share: float, generator: np.random.Generator) -> Pixels:
    """Drops on the lens on this share of the picture: each shows what is around it, small and upside down."""
    height, width = frames.shape[1:3]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    from_y, from_x, edge = y.copy(), x.copy(), np.zeros((height, width), np.float32)
    covered = np.zeros((height, width), bool)
    while covered.mean() < share:
        top, left = generator.uniform(0, height), generator.uniform(0, width)
        radius, tall = generator.uniform(0.02, 0.06) * height, generator.uniform(0.8, 1.4)
        apart = np.hypot((y - top) / tall, x - left) / radius
        inside = apart < 1
        from_y, from_x = np.where(inside, top - 3 * (y - top), from_y), np.where(inside, left - 3 * (x - left), from_x)
        edge, covered = np.where(inside, apart**6, edge), covered | inside
    places = np.clip(from_y, 0, height - 1).astype(int), np.clip(from_x, 0, width - 1).astype(int)
    dark = (1 - 0.5 * edge * covered)[..., None]
    return np.stack([clip(np.where(covered[..., None], frame[places], frame) * dark) for frame in frames])


def stale_blocks(frames: Pixels, least: float, generator: np.random.Generator) -> Pixels:
    """Blocks of 16 pixels stay as they are until they differ by `least` grey levels: a shared screen."""
    height, width = frames.shape[1:3]
    out = frames.copy()
    rows, columns = np.arange(0, height, 16), np.arange(0, width, 16)
    sizes = np.diff([*rows, height])[:, None] * np.diff([*columns, width])
    for k in range(1, len(out)):
        apart = np.abs(frames[k].astype(np.float32) - out[k - 1]).mean(2)
        changed = np.add.reduceat(np.add.reduceat(apart, rows, 0), columns, 1) / sizes > least
        shown = changed.repeat(16, 0).repeat(16, 1)[:height, :width, None]
        out[k] = np.where(shown, frames[k], out[k - 1])
    return out


def rolling(frames: Pixels, share: float, generator: np.random.Generator) -> Pixels:
    """In this share of the frames the picture has rolled down, over a black bar and in again: vertical hold lost."""
    count, height, _, _ = frames.shape
    runs, out = 3, frames.copy()
    length = max(1, round(share * count / runs))
    for start in (np.arange(runs) * (count // runs) + generator.integers(count // runs - length + 1)).tolist():
        speed = generator.uniform(0.03, 0.15) * height
        for k in range(start, start + length):
            barred = np.concatenate([np.zeros_like(frames[k, : height // 12]), frames[k]])
            out[k] = np.roll(barred, round(speed * (k - start + 1)), axis=0)[height // 12 :]
    return out


def overflow(frames: Pixels, share: float, generator: np.random.Generator) -> Pixels:
    """The brightest tones, this share of the first frame's, start again from black: bytes that ran over."""
    last = float(np.quantile(frames[0], 1 - share))
    return clip(np.mod(frames.astype(np.float32) * (255 / max(last, 1)), 256))


def vignette(frames: Pixels, kept: float, generator: np.random.Generator) -> Pixels:
    """Darker towards the corners, where this share of the light is left."""
    y, x = (np.linspace(-1, 1, size) for size in frames.shape[1:3])
    light = kept ** ((y[:, None] ** 2 + x**2) / 2)
    return np.stack([clip(frame * light[..., None]) for frame in frames])


SECOND_DAMAGE: Damage = {
    "codebook": ((1000, 128, 16), codebook),
    "rain": ((0.01, 0.07, 0.5), rain),
    "drops": ((0.03, 0.12, 0.32), drops),
    "stale_blocks": ((4, 12, 32), stale_blocks),
    "rolling": ((0.06, 0.3, 0.65), rolling),
    "overflow": ((0.005, 0.03, 0.12), overflow),
    "vignette": ((0.9, 0.65, 0.3), vignette),
}
