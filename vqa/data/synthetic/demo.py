"""Demo clips: bundled ones, distorted copies of one at its size, 2 broken files."""

from pathlib import Path

import numpy as np

from vqa.data.synthetic.distortions import DISTORTIONS
from vqa.data.synthetic.encoding import encode_video
from vqa.data.synthetic.sources import read_video
from vqa.files import replacing

CLIPS = Path(__file__).resolve().parents[2] / "assets" / "clips"
FRAMES = 48
VISUALLY_LOSSLESS = 12  # constant-quality number of x264
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
    """Write bundled clips, distorted copies, a cut-off file and a text named .mp4.

    All copies, and `reference.mp4`, which is not distorted, are of the same frames at their own size: a smaller picture
    would look cleaner than the original.

    Returns:
        The paths of all clips.
    """
    out.mkdir(parents=True, exist_ok=True)
    bundled = {clip.name: clip.read_bytes() for clip in sorted(CLIPS.glob("*.mp4"))}
    paths = [_written(out / name, content) for name, content in bundled.items()]
    frames = np.stack([np.asarray(frame) for frame in read_video(CLIPS / "big_buck_bunny.mp4", count=FRAMES)])
    paths.append(out / "reference.mp4")
    encode_video(frames, paths[-1], codec="x264", quality=VISUALLY_LOSSLESS)
    for name, (kind, strength) in DISTORTED.items():
        path = out / f"{name}.mp4"
        if kind in DISTORTIONS:
            damaged = DISTORTIONS[kind](frames, strength, np.random.default_rng(0))
            encode_video(damaged, path, codec="x264", quality=VISUALLY_LOSSLESS)
        else:
            encode_video(frames, path, codec=kind, quality=int(strength))
        paths.append(path)
    whole = bundled["big_buck_bunny_end.mp4"]
    paths.append(_written(out / "cut_off.mp4", whole[: len(whole) // 2]))
    paths.append(_written(out / "not_a_video.mp4", b"This is a text.\n"))
    return paths


def _written(path: Path, content: bytes) -> Path:
    with replacing(path) as draft:
        draft.write_bytes(content)
    return path
