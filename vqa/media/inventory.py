"""What this installation can decode: for `vqa doctor`."""

import av

from vqa.media.backends.registry import DEFAULT, WHY_DEFAULT, unusable

CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg2video", "mpeg4", "prores", "mjpeg", "gif", "png", "webp")


def codecs() -> dict[str, bool]:
    """Which of the codecs people have in their folders this FFmpeg can decode."""
    return {name: name in av.codecs_available for name in CODECS}


def backends() -> dict[str, str]:
    """Each decoder by name: "default: ..." with the reason, "usable", or why it cannot be used here."""
    found: dict[str, str] = {name: reason or "usable" for name, reason in unusable().items()}
    return found | {DEFAULT: f"default: {WHY_DEFAULT}"}


def libraries() -> dict[str, str]:
    """FFmpeg's libraries and their versions."""
    return {name: ".".join(map(str, number)) for name, number in sorted(av.library_versions.items())}
