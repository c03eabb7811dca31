"""Everything that goes wrong. `WRONG`: damaged media, one maker a file, each with the outcome that it must get (videos
and pictures in modules of their own). `make_zoo`: a folder of some of them and of what file systems add (links, pipes,
folders, names), for whole runs.
"""

import os
from pathlib import Path

from tests.support import clips
from tests.support.zoo_good import Wrong
from tests.support.zoo_pictures import NOT_MEDIA, PICTURES
from tests.support.zoo_videos import VIDEOS

WRONG: list[Wrong] = [*VIDEOS, *PICTURES, *NOT_MEDIA]


# Of these each whole run has one: every kind of container, every error kind that a file alone can bring about.
IN_A_RUN = (
    *("one byte.mp4", "error page.mp4", "playlist by url.mp4", "random.webm", "cut in the sample sizes.mp4"),
    *("samples beyond the end.mp4", "four thousand million samples.mp4", "frames that last for ever.mp4"),
    *("unknown codec.mp4", "sound and an empty video.mp4", "prores of noise.mov", "header only.webm", "half.mkv"),
    *("no index.avi", "tags of 16 MB.flv", "no tables.ts", "half.mpg", "only its first pages.ogv"),
    *("pictures of 0x0.y4m", "no SPS.h264", "cut in the header.gif", "half.png", "no scan.jpg"),
    *("canvas of 16777216x16777216.webp", "no frames.webp"),
)
_NAMES = (
    *("with space.mp4", "quo\"te's.mp4", "new\nline.mp4", "bell\a and escape\x1b[31m.mp4", "nul\u2400.mp4"),
    *("back\\slash.mp4", "🎬 emoji.mp4", "[red]markup[-red].mp4", "-rf.mp4", "100%00.mp4", "*.mp4", "$(id).mp4"),
)


_FEW_NAMES = ("new\nline.mp4", "🎬 emoji.mp4", "*.mp4")


def make_zoo(folder: Path, *, few: bool = False) -> dict[str, str | None]:
    """`folder/list.txt` and `folder/files`; by clip_id the error kind that a run over both finds (None: a score).

    With `few` there are three of the odd names, and of the damaged media one for each outcome.
    """
    files = folder / "files"
    files.mkdir(parents=True)
    data = clips.write_video(files / "good.mp4", frames=20, container_options={"movflags": "faststart"}).read_bytes()
    clips.write_image(files / "picture.png")
    wanted: dict[str, str | None] = dict.fromkeys(["good.mp4", "picture.png"])
    for name in _FEW_NAMES if few else _NAMES:
        (files / name).write_bytes(data)
        wanted[name] = None
    Path(os.fsdecode(os.fsencode(files) + b"/caf\xe9.mp4")).write_bytes(data)
    wanted[f"file://{files}/caf%E9.mp4"] = None
    (files / "folder.mp4").mkdir()
    (files / "folder.mp4" / "inside.mp4").write_bytes(data)
    (files / "linked.mp4").symlink_to("good.mp4")
    wanted |= {"folder.mp4/inside.mp4": None, "linked.mp4": None}

    outcomes: set[str] = set()
    for wrong in WRONG:
        if wrong.name in IN_A_RUN and not (few and wrong.outcome in outcomes):
            outcomes.add(wrong.outcome)
            (files / wrong.name).write_bytes(wrong.make())
            wanted[wrong.name] = None if wrong.outcome in ("ok", "partial") else wrong.outcome
    (files / "dangling.mp4").symlink_to("nowhere.mp4")
    (files / "to itself.mp4").symlink_to("to itself.mp4")
    (files / "around").symlink_to(".")  # a folder within itself
    os.mkfifo(files / "pipe.mp4")
    with (files / "8 GB of nothing.mp4").open("wb") as hole:
        hole.truncate(8 << 30)
    wanted |= {
        "dangling.mp4": "not_found",
        "to itself.mp4": "not_readable",
        "pipe.mp4": "not_readable",
        "8 GB of nothing.mp4": "not_video",
    }
    if os.geteuid():  # permissions do not stop root
        (files / "locked.mp4").write_bytes(data)
        (files / "locked.mp4").chmod(0)
        wanted["locked.mp4"] = "not_readable"
    lines = ["missing.mp4", "files", "far/missing too.mp4", "gopher://host/a.mp4", "/dev/zero"]
    (folder / "list.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return wanted | {
        "missing.mp4": "not_found",
        "files": "not_readable",
        "far/missing too.mp4": "not_found",
        "gopher://host/a.mp4": "unsupported",
        "/dev/zero": "not_readable",
    }
