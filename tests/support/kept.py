"""Made files kept between tests and runs: the same recipe by the same makers is encoded once.

They lie in `.cache/tests` of the repository, or where `VQA_TEST_CACHE` says; several runs may share them.
"""

import functools
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np

ROOT = Path(__file__).parents[2]
LARGEST_BYTES = 32 << 20  # what is larger is made anew


def kept(path: Path, make: Callable[[Path], object], *recipe: object) -> Path:
    """A file at `path`, copied from the one that `make` made for the same recipe before.

    Args:
        path: Where the file shall be; its suffix is part of the recipe.
        make: Writes the file to the path that it is given.
        recipe: All that decides the content, as values whose `repr` names them.
    """
    folder = Path(os.environ.get("VQA_TEST_CACHE") or ROOT / ".cache" / "tests")
    key = hashlib.blake2b(repr((makers(), path.suffix, recipe)).encode(), digest_size=16).hexdigest()
    stored = folder / f"{key}{path.suffix}"
    if not stored.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as draft:
            made = Path(draft) / f"made{path.suffix}"
            make(made)
            if made.stat().st_size > LARGEST_BYTES:
                shutil.move(made, path)
                return path
            made.replace(stored)  # whole or not at all: another run may look for it
    shutil.copyfile(stored, path)
    return path


@functools.cache
def makers() -> tuple[str, ...]:
    """What else decides a file: the code that draws and encodes, and the versions of the encoders."""
    code = hashlib.blake2b(Path(__file__).with_name("clips.py").read_bytes(), digest_size=16).hexdigest()
    versions = (av.__version__, av.library_versions, imageio_ffmpeg.get_ffmpeg_exe(), np.__version__)
    return (code, repr(versions), platform.machine())
