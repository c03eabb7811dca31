"""Demo clips: the bundled ones, distorted copies, and two broken files."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from vqa.data.synthetic.distortions import DISTORTIONS
from vqa.data.synthetic.ladder import encode_clip
from vqa.data.synthetic.sources import read_video
from vqa.types import Pixels

CLIPS = Path(__file__).resolve().parents[2] / "assets" / "clips"
FRAMES = 48
SIZE = (640, 360)
# Name of the clip: distortion and severity, or codec and its constant-quality number.
DISTORTED: dict[str, tuple[str, float]] = {
    "compressed": ("x264", 34),
    "compressed_hard": ("x264", 45),
    "blurred": ("defocus", 0.3),
    "blurred_hard": ("defocus", 0.8),
    "noisy": ("noise", 0.6),
    "frozen": ("frozen", 0.7),
    "upscaled": ("scaling", 0.6),
}


def make_demo(out: Path) -> list[Path]:
    """Write the bundled clips, distorted copies, a file cut off in the middle and a text named .mp4.

    Returns:
        The paths of all clips.
    """
    out.mkdir(parents=True, exist_ok=True)
    paths = [Path(shutil.copy(clip, out)) for clip in sorted(CLIPS.glob("*.mp4"))]
    frames = _frames(CLIPS / "big_buck_bunny.mp4")
    for name, (kind, strength) in DISTORTED.items():
        path = out / f"{name}.mp4"
        if kind in DISTORTIONS:
            damaged = DISTORTIONS[kind](frames, strength, np.random.default_rng(0))
            encode_clip(damaged, path, codec="x264", quality=12)
        else:
            encode_clip(frames, path, codec=kind, quality=int(strength))
        paths.append(path)
    whole = (CLIPS / "big_buck_bunny_end.mp4").read_bytes()
    for name, content in {"cut_off.mp4": whole[: len(whole) // 2], "not_a_video.mp4": b"This is a text.\n"}.items():
        (out / name).write_bytes(content)
        paths.append(out / name)
    return paths


def _frames(clip: Path) -> Pixels:
    small = [frame.resize(SIZE, Image.Resampling.LANCZOS) for frame in read_video(clip, count=FRAMES)]
    return np.stack([np.asarray(frame) for frame in small])
