"""What this installation can decode: for `vqa doctor`."""

from importlib.util import find_spec

import av

from vqa.media.backends import BACKENDS

CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg2video", "mpeg4", "prores", "mjpeg", "gif", "png", "webp")


def codecs() -> dict[str, bool]:
    """Which of the codecs people have in their folders this FFmpeg can decode."""
    return {name: name in av.codecs_available for name in CODECS}


def backends() -> dict[str, bool]:
    """The decoders by name, and whether each can be loaded here."""
    return {name: find_spec("av" if name == "pyav" else name) is not None for name in BACKENDS}


def libraries() -> dict[str, str]:
    """FFmpeg's libraries and their versions."""
    return {name: ".".join(map(str, number)) for name, number in sorted(av.library_versions.items())}
