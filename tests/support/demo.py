"""Folders of as many clips as a bench wants: links to the demo's."""

from collections.abc import Sequence
from pathlib import Path

from vqa.data.synthetic.demo import make_demo

NO_VIDEO = ("cut_off", "not_a_video")


def demo_clips(folder: Path) -> list[Path]:
    """The demo's clips, made in this folder, without those that are there to fail."""
    return [path for path in make_demo(folder) if path.stem not in NO_VIDEO]


def linked(folder: Path, sources: Sequence[Path], count: int) -> Path:
    """A new folder with so many links, to one source after another."""
    folder.mkdir()
    for number in range(count):
        source = sources[number % len(sources)]
        (folder / f"{number:04d}{source.suffix}").symlink_to(source)
    return folder
