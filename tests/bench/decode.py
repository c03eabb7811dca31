"""16 keyframes and 3 native frames from each of six files, by every way to get them, in one table:
`python tests/bench/decode.py [--folder build/bench] [--threads 1] [--repeats 5] [--cases NAME ...] [--ways WAY ...]`.

Seconds are CPU seconds of the whole process (all its threads), so that a busy machine distorts them little; medians of
interleaved runs, each way in a warm process of its own, opening the file included. Rivals only hand out native frames:
what it would cost them to scale these to tiles is not counted. The floor is FFmpeg's decoder on the packets from the
key frame before each wanted frame to that frame, nothing converted, the packet table known beforehand. Files are made
once, from the bundled clip; the long ones by joining a short encode without encoding again. torchcodec is lent PyAV's
FFmpeg, the same that ours uses. `decoded/wanted` counts packets fed to the decoder; "-" where they cannot be counted.

Ideas tried, CPU seconds on 2 shared, very busy cores (AMD EPYC, 2026-11-21), one thread, medians of two or three:

- Packets of unwanted non-reference pictures left out. H.264 1080p, GOP 250: 7.9 decoded for each wanted instead of
  14.4, 0.81 s with everything against 1.08 s for the floor. Less is saved than the count says: the pictures left out
  are the cheap ones.
- AV1 by the slots that each frame reads and writes, hidden frames inside a packet included: 4.4 instead of 39.9, 0.47 s
  against 0.83 s. What is left are the dear pictures of the lowest layer (7 ms each; the mean is 1.4 ms).
- FFmpeg's own `skip_frame=NONREF` in place of parsing: 1.24 -> 0.76 s for all of a 10 s H.264 file, as good as ours
  there; but in HEVC it does not look at temporal layers and in VP9 not at what the next frame inherits. Not used.
- Reference B-pictures that nobody wants (H.264): not provable from headers with x264's defaults, whose P slices keep
  them in their lists (3 references); whether a block points there stands in the entropy-coded part. The same holds for
  x265's reference picture sets. Not done.
- The index instead of demuxing: 1 hour of 720p, 0.08-0.12 s and 2.5 MB read of 775 MB; row by row it took 0.34 s.
- Scaling and RGB in one step of swscale: 16 tiles 0.030 s, 3 native frames 0.02 s of 0.76 s; converting is no lever.
- Frames decoded once for keyframe and crop: 16 decoded for 19 asked.
- One open container for planning and decoding: the second opening costs 0.016 s (H.264 1080p), 0.0005 s (AV1), 0.012 s
  (the hour); at most 2 %, and it would tie the two calls together. Not done.
- Groups of pictures across two threads, each with a container of its own (medians of 5, load 10): 720p 60 s 1.86 CPU s
  against 1.61 with one thread and 1.69 with FFmpeg's two frame threads, by the clock 3.4, 2.6, 2.1 s; GOP 50 0.95, 0.91
  and 0.92 CPU s. Not used; a job runs one thread in each of as many workers as there are cores.
- Views through shared memory instead of the guard's pipe (medians of 7): 4 MB, as by default, 5.5 against 5.1 ms; 20 MB
  25 against 52 ms; 80 MB 126 against 339 ms. Only whole native frames would gain, 0.03 s of about 1 s. Not used.
- The child kept warm: a fresh one costs 0.11-0.14 s a clip. Done (sandbox.py).
"""

import argparse
import multiprocessing as mp
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np

from vqa.data.synthetic.encoding import without_realtime
from vqa.media.backends.base import BackendName

CLIP = Path(__file__).parents[2] / "vqa/assets/clips/big_buck_bunny.mp4"
KEYFRAMES, TILE = 16, (256, 144)
NATIVE = (2, 8, 13)  # which of the keyframes are wanted at native size too

X264 = "-c:v libx264 -preset medium"
# name -> (suffix of the encode, seconds encoded, times joined)
CASES: dict[str, tuple[str, float, int]] = {
    "h264-1080p-gop50": (f"-vf scale=1920:1080:flags=bicubic,noise=alls=4:allf=t {X264} -g 50", 10, 1),
    "h264-1080p-gop250": (f"-vf scale=1920:1080:flags=bicubic,noise=alls=4:allf=t {X264} -g 250", 10, 1),
    "h264-720p-60s": ("-c:v libx264 -preset fast", 12, 5),
    "hevc-4k-10s": (
        "-vf scale=3840:2160:flags=bicubic -pix_fmt yuv420p10le -c:v libx265 -preset faster "
        "-x265-params log-level=error",
        2,
        5,
    ),
    "av1-1080p-30s": ("-vf scale=1920:1080:flags=bicubic -c:v libsvtav1 -preset 10 -crf 35", 6, 5),
    "h264-720p-1h": ("-c:v libx264 -preset fast", 12, 300),
}


def make(folder: Path, name: str) -> Path:
    """The file of a case, made where it is missing."""
    path = folder / f"{name}.mp4"
    if not path.exists():
        encode, seconds, times = CASES[name]
        quiet = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y"]
        short = folder / f"{name}.part.mp4"
        source = [*quiet, "-stream_loop", "5", "-i", CLIP, "-t", str(seconds), "-an", *encode.split()]
        subprocess.run(without_realtime([*map(str, source), str(short)]), check=True)
        subprocess.run([*quiet, "-stream_loop", str(times - 1), "-i", short, "-c", "copy", path], check=True)
        short.unlink()
    return path


# --- the ways: (path, times, threads) -> packets decoded, None where they cannot be counted ---------------------------


def ours(backend: BackendName) -> Callable[[str, np.ndarray, int], int | None]:
    """As `look` asks: tiles and native frames in one call."""
    from vqa.media import decode
    from vqa.media.backends import pyav

    fed = 0
    real = pyav._decode

    def counted(decoder, packet):
        nonlocal fed
        fed += packet is not None
        return real(decoder, packet)

    pyav._decode = counted

    def run(path: str, times: np.ndarray, threads: int) -> int | None:
        nonlocal fed
        fed = 0
        asked = np.concatenate([times, times[list(NATIVE)]])
        sizes = [TILE] * len(times) + [None] * len(NATIVE)
        frames = decode(path, asked, sizes=sizes, backend=backend, thread_count=threads)
        if len(frames.pixels) != len(asked):
            raise ValueError(f"{backend}: {len(frames.pixels)} of {len(asked)}")
        return fed if backend == "pyav" else None

    return run


def decord_batch(path: str, times: np.ndarray, threads: int) -> None:
    """`get_batch` of the frames nearest to the times."""
    import decord

    reader = decord.VideoReader(path, num_threads=threads)
    indices = np.rint(times * reader.get_avg_fps()).astype(int)
    reader.get_batch(indices.tolist()).asnumpy()


def torchcodec(mode: str) -> Callable[[str, np.ndarray, int], None]:
    """`get_frames_played_at`."""
    from torchcodec.decoders import VideoDecoder

    def run(path: str, times: np.ndarray, threads: int) -> None:
        decoder = VideoDecoder(path, num_ffmpeg_threads=threads, seek_mode=mode, dimension_order="NHWC")
        decoder.get_frames_played_at(times.tolist()).data.numpy()

    return run


def seek_each(path: str, times: np.ndarray, threads: int) -> int:
    """PyAV as most examples have it: seek before each time, decode up to it."""
    fed = 0
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = "AUTO" if threads > 1 else "NONE"
        for second in times:
            container.seek(int(second / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                fed += 1
                if frame.time >= second - 1e-4:
                    frame.to_ndarray(format="rgb24")
                    break
    return fed


def whole_file(path: str, times: np.ndarray, threads: int) -> int:
    """Every frame decoded, the wanted ones converted."""
    fed, left = 0, list(times)
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = "AUTO" if threads > 1 else "NONE"
        for frame in container.decode(stream):
            fed += 1
            if left and frame.time >= left[0] - 1e-4:
                frame.to_ndarray(format="rgb24")
                left.pop(0)
    return fed


def floor(path: str, times: np.ndarray, threads: int) -> tuple[Callable[[], int]]:
    """FFmpeg's decoder over just the needed part of the needed groups; returns what is to be timed."""
    from vqa.media import probe
    from vqa.media.backends import pyav
    from vqa.media.packets import nearest_frames

    info, table = probe(path)
    ranges = pyav.decode_ranges(table, np.unique(nearest_frames(table.seconds, times)))

    def run() -> int:
        for _ in pyav._feed(info, table, ranges, threads, set(), set(), is_pruned=False, can_jump=True):
            pass
        return sum(r.stop - r.start + 1 for r in ranges)

    return (run,)


WAYS: dict[str, Callable[[], Callable]] = {
    "ours": lambda: ours("pyav"),
    "ours on decord": lambda: ours("decord"),
    "ours on torchcodec": lambda: ours("torchcodec"),
    "decord": lambda: decord_batch,
    "torchcodec exact": lambda: torchcodec("exact"),
    "torchcodec approx": lambda: torchcodec("approximate"),
    "seek each": lambda: seek_each,
    "whole file": lambda: whole_file,
    "floor": lambda: floor,
}
RIVALS = ("decord", "torchcodec exact", "torchcodec approx", "seek each", "whole file")
SLOW = ("seek each", "whole file")  # measured once


# --- measuring --------------------------------------------------------------------------------------------------------


def serve(line: Connection, way: str) -> None:
    """Answers (path, times, threads) with (CPU s, wall s, packets decoded, bytes read, peak MB above the start)."""
    try:
        run = WAYS[way]()
        run(str(CLIP), np.linspace(0.2, 5, KEYFRAMES), 1)  # imports and tables that are made once
    except (ImportError, OSError, RuntimeError) as error:
        line.send(f"{way} cannot be used: {str(error).strip().splitlines()[0]}")
        return
    line.send("")
    while (job := line.recv()) is not None:
        try:
            todo = run(*job)[0] if way == "floor" else lambda job=job: run(*job)
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            before, read, wall, cpu = _status("VmRSS"), _read_bytes(), time.perf_counter(), time.process_time()
            fed = todo()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            line.send((cpu, wall, fed, _read_bytes() - read, (_status("VmHWM") - before) / 1024))
        except Exception as error:  # a rival that fails is a line in the table
            line.send(f"{way}: {type(error).__name__}: {str(error).strip().splitlines()[0]}")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(text for text in lines if text.startswith(key)).split()[1])


def _read_bytes() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def lend_ffmpeg(folder: Path) -> None:
    """PyAV's FFmpeg under the names that torchcodec looks for, for the processes started from now on."""
    lent = folder / "ffmpeg"
    lent.mkdir(exist_ok=True)
    for library in (Path(av.__file__).parents[1] / "av.libs").glob("lib[as][vw]*.so.*"):
        stem, _, version = library.name.partition(".so.")
        link = lent / f"{stem.rpartition('-')[0]}.so.{version.split('.')[0]}"
        if not link.exists():
            link.symlink_to(library)
    os.environ["LD_LIBRARY_PATH"] = f"{lent}:{os.environ.get('LD_LIBRARY_PATH', '')}"


def main(folder: Path, *, threads: int, repeats: int, cases: list[str], ways: list[str]) -> None:
    """Prints the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    lend_ffmpeg(folder)
    context = mp.get_context("spawn")
    lines: dict[str, Connection] = {}
    for way in ways:
        lines[way], theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, way), daemon=True).start()
    for way in ways:
        if trouble := lines[way].recv():
            print(trouble)
            del lines[way]
    rows: dict[str, dict[str, list[tuple]]] = {}
    for case in cases:
        path = make(folder, case)
        with av.open(str(path)) as container:
            seconds = float(container.duration or 0) / 1e6
        times = np.round((np.arange(KEYFRAMES) + 0.5) / KEYFRAMES * seconds * 25) / 25
        rows[case] = {way: [] for way in lines}
        for repeat in range(repeats):
            for way, line in lines.items():
                if (repeat and way in SLOW) or (way == "whole file" and seconds > 600):
                    continue
                line.send((str(path), times, threads))
                answer = line.recv()
                if isinstance(answer, str):
                    print(f"{case}: {answer}")
                else:
                    rows[case][way].append(answer)
        report(case, rows[case], path.stat().st_size)
    for line in lines.values():
        line.send(None)
    for rivals, name in ((RIVALS, "the best rival"), (("floor",), "the floor")):
        if "ours" not in lines or not lines.keys() & set(rivals):
            continue
        ratios = [min(_median(r[x]) for x in rivals if r.get(x)) / _median(r["ours"]) for r in rows.values()]
        mean = statistics.geometric_mean(ratios)
        print(f"ours against {name}: {mean:.2f}x (geometric mean), least {min(ratios):.2f}x")


def _median(runs: list[tuple], column: int = 0) -> float:
    return statistics.median(run[column] for run in runs)


def report(case: str, runs: dict[str, list[tuple]], size: int) -> None:
    """One case: a line for each way."""
    print(f"\n{case} ({size / 1e6:.1f} MB)")
    print(f"{'':20} {'CPU s':>8} {'wall s':>8} {'views/s':>8} {'decoded/wanted':>15} {'read/size':>10} {'peak MB':>8}")
    wanted = KEYFRAMES
    for way, done in runs.items():
        if done:
            cpu, wall, read, peak = (_median(done, column) for column in (0, 1, 3, 4))
            fed = "-" if done[0][2] is None else f"{done[0][2] / wanted:.1f}"
            print(
                f"{way:20} {cpu:8.3f} {wall:8.3f} {1 / cpu:8.2f} {fed:>15} {read / size:10.3f} {peak:8.0f}", flush=True
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="where the files are made, and kept")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    given = parser.parse_args()
    main(given.folder, threads=given.threads, repeats=given.repeats, cases=given.cases, ways=given.ways)
