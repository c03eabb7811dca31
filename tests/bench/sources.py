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

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support import web
from tests.support.bounds import frames_of, growth_mb, joined, peak_mb
from vqa.media import fingerprint


def share_read(folder: Path) -> float:
    """Bytes sent over bytes of the file."""
    path = joined(folder / "minutes.mp4", seconds=600, options={"g": "250"}, audio=True)
    with web.serve(folder) as server:
        uri = server.url(path.name)
        fingerprint(uri)
        if frames_of(uri) != 19:
            raise RuntimeError("frames are missing")
        return server.sent_bytes / path.stat().st_size


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--long-seconds", type=int, default=3600)
    given = parser.parse_args()
    main(clip_count=given.clips, long_seconds=given.long_seconds)
