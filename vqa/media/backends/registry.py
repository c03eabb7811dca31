"""Decoder back ends by name, and what this installation can decode.

All return the frame of the packet table's entry or none: frames that decord and torchcodec find by their own counting
and timing are compared with the table's time. Pixels agree but for the conversion to RGB: PyAV uses swscale's bit-exact
code with interpolated chroma, decord repeats the nearest chroma sample (mean difference below 4 of 255 in the tests).
"""

from collections.abc import Callable
from types import ModuleType

import av

from vqa.errors import UsageError
from vqa.media.backends.base import BackendName, Reader
from vqa.media.backends.decord import load_decord, read_decord
from vqa.media.backends.pyav import read_pyav
from vqa.media.backends.torchcodec import load_torchcodec, read_torchcodec

BACKENDS: dict[BackendName, Reader] = {"pyav": read_pyav, "decord": read_decord, "torchcodec": read_torchcodec}
DEFAULT: BackendName = "pyav"
WHY_DEFAULT = (
    "the only one that skips packets; 1.3 to 2.1 times as fast as the others by themselves, at one thread "
    "(tests/bench/decode.py)"
)
CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg2video", "mpeg4", "prores", "mjpeg", "gif", "png", "webp")


def unusable() -> dict[BackendName, str]:
    """Reason why each back end cannot be used here; empty where it can."""
    reasons: dict[BackendName, str] = dict.fromkeys(BACKENDS, "")
    loaders: dict[BackendName, Callable[[], ModuleType]] = {"decord": load_decord, "torchcodec": load_torchcodec}
    for name, load in loaders.items():
        try:
            load()
        except UsageError as error:
            reasons[name] = str(error)
    return reasons


def backend_states() -> dict[str, str]:
    """State of each back end: "default: REASON", "usable", or why it is unusable."""
    found: dict[str, str] = {name: reason or "usable" for name, reason in unusable().items()}
    return found | {DEFAULT: f"default: {WHY_DEFAULT}"}


def codec_support() -> dict[str, bool]:
    """Which of the common codecs this FFmpeg can decode."""
    return {name: name in av.codecs_available for name in CODECS}


def ffmpeg_versions() -> dict[str, str]:
    """FFmpeg's libraries and their versions."""
    return {name: ".".join(map(str, number)) for name, number in sorted(av.library_versions.items())}
