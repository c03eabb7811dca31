"""A folder of everything that goes wrong, with the error kind that each file has to get (None: a score)."""

import os
from pathlib import Path

import clips


def make_zoo(folder: Path) -> dict[str, str | None]:
    """Makes the files; returns the right error kind by clip_id for a run over `folder/list.txt` and `folder/files`."""
    files = folder / "files"
    files.mkdir(parents=True)
    good = clips.write_video(files / "good.mp4", frames=20, container_options={"movflags": "faststart"})
    names = ["with space.mp4", "quo\"te's.mp4", "new\nline.mp4", "🎬 emoji.mp4", "[red]markup[-red].mp4", "-rf.mp4"]
    for name in names:
        (files / name).write_bytes(good.read_bytes())
    Path(os.fsdecode(os.fsencode(files) + b"/caf\xe9.mp4")).write_bytes(good.read_bytes())
    clips.write_image(files / "picture.png")
    (files / "empty.mp4").write_bytes(b"")
    clips.write_text(files / "text.mp4")
    clips.write_header_only(files / "header.mp4")
    clips.write_audio(files / "sound.m4a")
    (files / "sound.m4a").rename(files / "sound.mp4")
    clips.write_video(files / "no index.mp4", frames=20)
    clips.cut_off(files / "no index.mp4", 0.5)
    clips.cut_off(good, 0.25, out=files / "cut early.mp4")
    clips.flip_bits(good, seed=1, count=2000, start_share=0.2, out=files / "flipped.mp4")
    (files / "dangling.mp4").symlink_to("nowhere.mp4")
    os.mkfifo(files / "pipe.mp4")
    (files / "folder.mp4").mkdir()
    (files / "folder.mp4" / "inside.mp4").write_bytes(good.read_bytes())
    wanted: dict[str, str | None] = dict.fromkeys(["good.mp4", *names, "picture.png", "folder.mp4/inside.mp4"])
    wanted[f"file://{files}/caf%E9.mp4"] = None
    wanted |= {
        "empty.mp4": "no_frames",
        "text.mp4": "not_video",
        "header.mp4": "no_frames",
        "sound.mp4": "not_video",
        "no index.mp4": "corrupt",
        "cut early.mp4": "corrupt",
        "flipped.mp4": "corrupt",
        "dangling.mp4": "not_found",
        "pipe.mp4": "not_readable",
    }
    if os.geteuid():  # permissions do not stop root
        (files / "locked.mp4").write_bytes(good.read_bytes())
        (files / "locked.mp4").chmod(0)
        wanted["locked.mp4"] = "not_readable"
    (folder / "list.txt").write_text("missing.mp4\nfiles\nfar/missing too.mp4\ns3://bucket/a.mp4\n", encoding="utf-8")
    return wanted | {
        "missing.mp4": "not_found",
        "files": "not_readable",
        "far/missing too.mp4": "not_found",
        "s3://bucket/a.mp4": "unsupported",
    }
