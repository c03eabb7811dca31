"""What needs no training, on a ladder's held-out clips: `python tests/bench/rivals.py --ladder DIR --iqa-python PATH`.

SRCC and PLCC against VMAF's stand-in opinion, plain and after the 4-parameter logistic of VQEG, and seconds a clip, of
NIQE (Mittal, Soundararajan, Bovik 2013), BRISQUE (Mittal, Moorthy, Bovik 2012), PIQE (Venkatanath and others 2015) and
sharpness alone: the variance of the luma's Laplacian. Each is the mean over every second of the 16 keyframes that the
embedded model sees, at native size.
embedded.py prints the same rows beside the model's. PATH: the Python of the environment in the head of iqa/serve.py.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow.parquet as pq
from scipy import ndimage

from samplers.temporal import uniform
from vqa.media import decode, probe
from vqa.metrics import plcc, srcc
from vqa.metrics.fits import fit_logistic4
from vqa.types import Pixels

KEYFRAMES = 16  # of the embedded model's `uniform` views; a rival sees every second
SERVE = Path(__file__).parent / "iqa" / "serve.py"
LUMA = (0.299, 0.587, 0.114)  # BT.601, as in NIQE and BRISQUE


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One way of judging N clips: values [N], NaN where it has none; seconds a clip; sign -1 where lower is better."""

    name: str
    values: Sequence[float]
    seconds: float
    sign: int = 1


class Said(TypedDict):
    """The answer of iqa/serve.py: a value for each picture, null where there is none, and the time of all."""

    values: list[float | None]
    seconds: float


def pictures(path: Path) -> Pixels:
    """uint8 [n, height, width, 3], n up to 8."""
    info, packets = probe(str(path))
    seconds = packets.seconds[np.unique(uniform(packets.seconds, count=KEYFRAMES))[::2]]
    frames = decode(str(path), seconds, sizes=[None] * len(seconds), info=info, packets=packets)
    return np.stack(frames.pixels)


def sharpness(picture: Pixels) -> float:
    """Variance of the Laplacian of the luma (Pech-Pacheco and others 2000)."""
    return float(ndimage.laplace(picture @ np.array(LUMA)).var())


def judge(paths: Sequence[Path], iqa_python: Path | None) -> list[Judged]:
    """Sharpness, and NIQE, BRISQUE, PIQE where their environment is at hand; without it says why not, and goes on."""
    server, names = serving(iqa_python)
    values: dict[str, list[float]] = {name: [] for name in ("sharpness", *names)}
    seconds = dict.fromkeys(values, 0.0)
    look = 0.0
    for path in paths:
        started = time.perf_counter()
        frames = pictures(path)
        looked = time.perf_counter()
        values["sharpness"].append(float(np.mean([sharpness(frame) for frame in frames])))
        seconds["sharpness"] += time.perf_counter() - looked
        look += looked - started
        if server is not None:
            for name, said in ask(server, frames).items():
                numbers = [number for number in said["values"] if number is not None]
                values[name].append(float(np.mean(numbers)) if numbers else float("nan"))
                seconds[name] += said["seconds"]
    if server is not None:
        server.communicate()
    count = max(1, len(paths))
    print(f"decoding up to {KEYFRAMES // 2} frames: {look / count:.3f} s a clip, in no row of {', '.join(values)}")
    return [
        Judged(name=name, values=some, seconds=seconds[name] / count, sign=1 if name == "sharpness" else -1)
        for name, some in values.items()
    ]


def serving(python: Path | None) -> tuple[subprocess.Popen[bytes] | None, list[str]]:
    """The process of iqa/serve.py and the names of what it judges by; None and no names where it cannot run."""
    if python is None:
        print(
            "NIQE, BRISQUE, PIQE: not measured, no --iqa-python (how to make one: the head of tests/bench/iqa/serve.py)"
        )
        return None, []
    try:
        server = subprocess.Popen([python, "-W", "ignore", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except OSError as error:
        print(f"NIQE, BRISQUE, PIQE: not measured, --iqa-python {python}: {error.strerror}")
        return None, []
    ready = server.stdout.readline() if server.stdout is not None else b""
    if not ready:  # it has said why on standard error
        print(f"NIQE, BRISQUE, PIQE: not measured, {SERVE.name} under {python} ended with {server.wait()}")
        return None, []
    said = json.loads(ready)
    print(f"NIQE, BRISQUE, PIQE: {said['versions']}")
    return server, list(said["names"])


def ask(server: subprocess.Popen[bytes], frames: Pixels) -> dict[str, Said]:
    """What each judge says of pictures uint8 [n, height, width, 3]."""
    if server.stdin is None or server.stdout is None:
        raise RuntimeError("a server without pipes")
    server.stdin.write(json.dumps(frames.shape[:3]).encode() + b"\n" + frames.tobytes())
    server.stdin.flush()
    found: dict[str, Said] = json.loads(server.stdout.readline())
    return found


def table(judged: Sequence[Judged], opinions: Sequence[float]) -> None:
    """Prints a row for each on the clips that every one has a value for, and its SRCC on all that it has one for."""
    known, whole = np.asarray(opinions, np.float64), np.array([one.values for one in judged], np.float64)
    has = np.isfinite(whole)  # they have none for flat pictures, NIQE none below 96 x 192 pixels
    shared = has.all(axis=0)
    print(f"on the {int(shared.sum())} of {len(known)} clips for which every row has a value; last: on all of its own")
    print(
        f"{'':12s}{'SRCC':>7s}{'PLCC':>7s}  {'PLCC after logistic':>19s}  {'s a clip':>8s}  {'SRCC':>7s}  {'clips':>5s}"
    )
    for one, values, own in zip(judged, whole * [[one.sign] for one in judged], has, strict=True):
        curve = fit_logistic4(values[shared], known[shared])
        fitted = plcc(curve(values[shared]), known[shared]) if curve else float("nan")
        same = f"{srcc(values[shared], known[shared]):7.3f}{plcc(values[shared], known[shared]):7.3f}  {fitted:19.3f}"
        print(f"{one.name:12s}{same}  {one.seconds:8.3f}  {srcc(values[own], known[own]):7.3f}  {int(own.sum()):5d}")


def main() -> None:
    """Prints the table without a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ladder", type=Path)
    parser.add_argument("--iqa-python", type=Path)
    parser.add_argument("--clips", type=int, help="so many, evenly chosen; all by default")
    arguments = parser.parse_args()
    if arguments.ladder is None:
        print("no --ladder: nothing measured (make one: vqa data synth)")
        return
    rows = [row for row in pq.read_table(arguments.ladder / "ladder.parquet").to_pylist() if row["split"] == "test"]
    if arguments.clips:
        rows = [rows[int(place)] for place in np.linspace(0, len(rows) - 1, arguments.clips)]
    table(
        judge([arguments.ladder / row["uri"] for row in rows], arguments.iqa_python),
        [row["opinion"] for row in rows],
    )


if __name__ == "__main__":
    main()
