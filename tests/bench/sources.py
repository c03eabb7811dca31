"""Is decoding bounded? Three figures in one table, each beside what is wanted: `python tests/bench/sources.py`.

- Peak memory of the child over its idle state, for 19 frames of a long 1080p file against a short one.
- Growth of one worker over many clips of six kinds, one of them cut off, from the 100th on.
- Bytes sent by an HTTP server over the bytes of the file: fingerprint, probe and 19 frames of a ten-minute mp4.

Files are made on the spot by joining short encodes without encoding again. `--clips`, `--long-seconds`: shorter runs
(tests/media/test_bounded.py is one).
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support import clips, native_faults, web
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


def share_read(folder: Path) -> float:
    """Bytes sent over bytes of the file."""
    path = joined(folder / "minutes.mp4", seconds=600, options={"g": "250"}, audio=True)
    with web.serve(folder) as server:
        uri = server.url(path.name)
        fingerprint(uri)
        if frames_of(uri) != 19:
            raise RuntimeError("frames are missing")
        return server.sent_bytes / path.stat().st_size


def status_mb(process_id: int, key: str) -> float:
    """A line of the kernel's status of a process."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return int(next(text for text in lines if text.startswith(key)).split()[1]) / 1024


def main(*, clip_count: int, long_seconds: int) -> None:
    """Prints the table."""
    large = {"width": 1920, "height": 1080, "options": {"g": "50", "preset": "ultrafast", "crf": "40"}, "noise": 0.0}
    with TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{'':52} {'measured':>10} {'wanted':>10}")
        short, long = (peak_mb(str(joined(folder / f"{s}.mp4", seconds=s, **large))) for s in (10, long_seconds))
        peaks = f"({short:.0f} and {long:.0f} MB)"
        print(
            line(f"peak memory, {long_seconds} s of 1080p against 10 s", f"{long / short - 1:+.1%}", "<= +20 %"), peaks
        )
        print(line(f"growth over {clip_count} clips, MB", f"{growth_mb(folder, count=clip_count):.1f}", "<= 50"))
        print(line("read over HTTP, 19 frames of ten minutes", f"{share_read(folder):.2f}", "<= 0.35"))


def line(what: str, measured: str, wanted: str) -> str:
    """One of the table."""
    return f"{what:52} {measured:>10} {wanted:>10}"


if __name__ == "__main__":
    from bench import sources  # by a name that the child can import  # isort: skip

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--long-seconds", type=int, default=3600)
    given = parser.parse_args()
    sources.main(clip_count=given.clips, long_seconds=given.long_seconds)
