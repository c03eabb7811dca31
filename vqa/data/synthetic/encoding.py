"""Encode frames and compute VMAF with the FFmpeg that imageio-ffmpeg ships."""

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from vqa.data.synthetic.sources import FPS
from vqa.files import replacing
from vqa.types import Pixels


@dataclass(frozen=True, slots=True)
class Codec:
    """How FFmpeg encodes at one quality."""

    best: int
    worst: int
    options: tuple[str, ...]
    quality: str = "-crf"  # the option that sets it
    container: str = "mp4"  # suffix of a file
    pixels: str = "yuv420p"

    def at(self, severity: float) -> int:
        """The quality at a severity in [0, 1]."""
        return round(self.best + (self.worst - self.best) * severity)


_X264 = ("-c:v", "libx264", "-preset", "veryfast", "-threads", "1", "-x264-params")
_X265 = ("-c:v", "libx265", "-preset", "superfast", "-x265-params")
_ONE_THREAD = "log-level=error:pools=1:frame-threads=1"
_VP9 = ("-c:v", "libvpx-vp9", "-b:v", "0", "-deadline", "realtime", "-cpu-used", "6", "-threads", "1")
CODECS = {
    "x264": Codec(22, 51, (*_X264, "mbtree=0")),
    "x265": Codec(22, 51, (*_X265, _ONE_THREAD)),
    "vp9": Codec(32, 63, _VP9, container="webm"),
    "av1": Codec(32, 63, ("-c:v", "libsvtav1", "-preset", "10", "-svtav1-params", "lp=1")),
}


def by_scale(encoder: str, best: int, worst: int, container: str, pixels: str = "yuv420p") -> Codec:
    """A codec of FFmpeg's own, whose quality is the scale of its quantiser."""
    options = ("-c:v", encoder, "-threads", "1", "-strict", "-2")
    return Codec(best, worst, options, quality="-q:v", container=container, pixels=pixels)


# Seldom met: of before H.264, of cameras, and of today's without their loop filters.
RARE_CODECS = {
    "mpeg1": by_scale("mpeg1video", 2, 31, "mkv"),
    "h263": by_scale("flv", 2, 31, "flv"),
    "mjpeg": by_scale("mjpeg", 3, 31, "mkv"),
    "asv2": by_scale("asv2", 3, 31, "avi"),
    "x264_unfiltered": Codec(22, 48, (*_X264, "mbtree=0:no-deblock=1")),
    "x265_unfiltered": Codec(22, 48, (*_X265, f"{_ONE_THREAD}:no-deblock=1:no-sao=1")),
}
_MUXERS = {"mkv": "matroska", "wmv": "asf", "ogv": "ogg"}  # others are called as their suffix
_TO_BT709 = "scale=out_color_matrix=bt709:out_range=tv,format={}"
_MOST_CIEDE = 60.0  # a mean difference of 0.18, where 1 can just be told; of likes it is infinite
_DROP_CAPABILITY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(23, 23, 0, 0, 0) == 1 and libc.prctl(24, 23, 0, 0, 0):  # PR_CAPBSET_READ, PR_CAPBSET_DROP
    sys.exit(f"CAP_SYS_NICE cannot be dropped: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[1], sys.argv[1:])
"""


def without_realtime(command: Sequence[str]) -> list[str]:
    """Command line that runs `command` unable to take a real-time scheduling policy.

    SVT-AV1 run by root puts the calling thread and its own threads under SCHED_FIFO at priority 99, where they starve
    everything else on the machine; no option of the encoder turns that off. Without the capability CAP_SYS_NICE, which
    a small Python drops in the child before it becomes `command`, the encoder only warns.

    Args:
        command: Path of an executable and its arguments.

    Returns:
        The command itself where the user is not root or the system is not Linux.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _DROP_CAPABILITY, *command]


def _ffmpeg(arguments: Sequence[str], frames: Pixels, folder: Path) -> None:
    """Run FFmpeg over raw frames.

    Not by `subprocess.run`, which hands them over in pieces of 4 KiB.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *arguments]
    command = without_realtime(command) if "libsvtav1" in arguments else command
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=said, cwd=folder) as process:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # it says why it takes no more
                pipe.write(np.ascontiguousarray(frames).data.cast("B"))
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"ffmpeg failed ({process.returncode}): {said.read().decode(errors='replace')[-600:]}")


def _raw_input(frames: Pixels) -> list[str]:
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    return ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(FPS), "-i", "pipe:0"]


def encode_video(frames: Pixels, path: Path, *, codec: str | Codec, quality: int) -> None:
    """Encode frames as 8-bit 4:2:0 video, whole or not at all.

    Args:
        frames: uint8 [T, H, W, 3], H and W even.
        path: File to write; its suffix sets the container.
        codec: How, or a key of CODECS.
        quality: The codec's own number for a constant quality (CRF, scale of the quantiser).
    """
    how = CODECS[codec] if isinstance(codec, str) else codec
    suffix = path.suffix.lstrip(".")
    options = ["-vf", _TO_BT709.format(how.pixels), "-colorspace", "bt709", *how.options, how.quality, str(quality)]
    options += ["-f", _MUXERS.get(suffix, suffix)]
    with replacing(path) as draft:
        _ffmpeg([*_raw_input(frames), *options, str(draft.resolve())], frames, draft.parent)


def vmaf(reference: Pixels, distorted: Path) -> list[float]:
    """Compute VMAF v0.6.1 with libvmaf, both sides as 8-bit 4:2:0.

    Args:
        reference: uint8 [T, H, W, 3].
        distorted: A video of as many frames, encoded as BT.709 in limited range, whatever it says of itself.

    Returns:
        A number in 0-100 per frame.
    """
    # Codecs that cannot say that they are BT.709 are told to be: FFmpeg would convert them from what it guesses, which
    # VMAF takes for damage.
    told = "setparams=colorspace=bt709:range=tv,format=yuv420p"
    return [frame["vmaf"] for frame in _vmaf(["-i", str(distorted.resolve())], told, reference)]


def still_figures(reference: Pixels, distorted: Pixels) -> NDArray[np.float32]:
    """Compute VMAF v0.6.1, its parts and CIEDE2000 of stills.

    VMAF looks at luma alone and passes over a cast or a change of light; CIEDE2000 has them.

    Args:
        reference: uint8 [N, H, W, 3].
        distorted: As many, of the same size.

    Returns:
        [N, 7]: VMAF / 100, ADM2, VIF at four scales from the finest, and libvmaf's CIEDE2000 (45 - 20 lg of the mean
        difference) over 60, at most 1.
    """
    with tempfile.NamedTemporaryFile(suffix=".rgb") as file:
        file.write(np.repeat(distorted, 2, axis=0).tobytes())  # motion is 0 in the second of two like frames
        file.flush()
        source = [*_raw_input(distorted)[:-1], file.name]
        found = _vmaf(source, _TO_BT709.format("yuv420p"), np.repeat(reference, 2, axis=0), extra="ciede")[1::2]
    parts = [
        next(name for name in found[0] if name.endswith(part))
        for part in ("adm2", "vif_scale0", "vif_scale1", "vif_scale2", "vif_scale3")
    ]
    rows = [
        [one["vmaf"] / 100, *(one[part] for part in parts), min(1.0, one["ciede2000"] / _MOST_CIEDE)] for one in found
    ]
    return np.array(rows, dtype=np.float32)


def _vmaf(distorted: Sequence[str], convert: str, reference: Pixels, *, extra: str = "") -> list[dict[str, float]]:
    """Figures of libvmaf for each frame, paired by number, whatever their clock."""
    feature = f":feature=name={extra}" if extra else ""
    with tempfile.TemporaryDirectory() as folder:
        graph = (
            f"[0:v]{convert},settb=1/24,setpts=N[a];[1:v]{_TO_BT709.format('yuv420p')},settb=1/24,setpts=N[b];"
            f"[a][b]libvmaf=model=version=vmaf_v0.6.1{feature}:n_threads=1:log_fmt=json:log_path=vmaf.json"
        )
        inputs = [*distorted, *_raw_input(reference)]
        _ffmpeg([*inputs, "-lavfi", graph, "-f", "null", "-"], reference, Path(folder))
        log = json.loads((Path(folder) / "vmaf.json").read_text())
    # JSON has no infinity: libvmaf writes null
    return [{name: math.inf if x is None else x for name, x in one["metrics"].items()} for one in log["frames"]]
