"""What decoding takes of memory: the peak for one file, the growth of a worker over many."""

from pathlib import Path

import numpy as np

from tests.support import clips, native_faults
from vqa.errors import ClipError
from vqa.media import Guard, decode, fingerprint, probe

TILE = (448, 252)
NATIVE = (0.2, 0.5, 0.8)  # places of the crops' frames
SETTLED = 100  # clips after which a worker has all its tables


def times(seconds: float) -> np.ndarray:
    """Those of 16 keyframes and 3 native frames."""
    return np.sort([*((np.arange(16) + 0.5) / 16 * seconds), *(place * seconds for place in NATIVE)])


def joined(path: Path, *, seconds: int, **encode: object) -> Path:
    """`seconds` of video at 25 frames per second: ten encoded, then repeated."""
    part = clips.write_video(path.with_suffix(".part.mp4"), frames=min(seconds, 10) * 25, **encode)  # type: ignore[arg-type]
    clips.ffmpeg("-stream_loop", max(0, seconds // 10 - 1), "-i", part, "-c", "copy", path)
    return path


def frames_of(uri: str) -> int:
    """What `look` asks of one clip, in the child; the number of frames."""
    info, packets = probe(uri)
    asked = times(info.duration_seconds)
    sizes = [TILE if n % 6 else None for n in range(len(asked))]
    return len(decode(uri, asked, sizes=sizes, info=info, packets=packets).pixels)


def peak_mb(uri: str) -> float:
    """Memory that the frames of one file need at most, above the idle child."""
    with Guard(deadline_seconds=600, memory_bytes=None) as guard:
        child = guard.run(native_faults.process_id)
        before = status_mb(child, "VmRSS")
        guard.run(frames_of, uri)
        return status_mb(child, "VmHWM") - before


def growth_mb(folder: Path, *, count: int) -> float:
    """Growth of one child over `count` clips, from the 100th on."""
    kinds = [("mp4", "libx264"), ("webm", "libvpx-vp9"), ("mkv", "libx265"), ("avi", "mpeg4"), ("ts", "libx264")]
    files = [clips.write_video(folder / f"{s}.{s}", frames=8, codec=c, seed=n) for n, (s, c) in enumerate(kinds)]
    files.append(clips.cut_off(files[0], 0.6, out=folder / "cut.mp4"))
    with Guard(deadline_seconds=60, memory_bytes=2 << 30) as guard:
        child = guard.run(native_faults.process_id)
        for number in range(count):
            uri = str(files[number % len(files)])
            guard.run(fingerprint, uri)
            try:
                guard.run(decode, uri, [0.0, 0.1, 0.2], sizes=[None] * 3)
            except ClipError as error:
                if error.kind != "corrupt":
                    raise
            if number == SETTLED:
                before = status_mb(child, "VmRSS")
        if guard.run(native_faults.process_id) != child:
            raise RuntimeError("the child was replaced")
        return status_mb(child, "VmRSS") - before


def status_mb(process_id: int, key: str) -> float:
    """A line of the kernel's status of a process."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return int(next(text for text in lines if text.startswith(key)).split()[1]) / 1024
