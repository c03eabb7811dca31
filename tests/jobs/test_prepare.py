"""`vqa prepare`: every clip one row, its pictures stored once and decoded once, the same whatever is killed."""

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.prepare import PrepareRequest, prepare
from tests.support import clips, failing
from tests.support.job_runs import Run
from vqa.console import Engine
from vqa.data.manifest import RatingScale, make_manifest, write_manifest
from vqa.data.score_table import read_scores
from vqa.data.view_cache import read_prepared
from vqa.errors import UsageError
from vqa.media.storage.fingerprint import fingerprint
from vqa.types import Clip, Views
from vqa.views import ViewsConfig, look, view_seed

SMALL = {"keyframes": 4, "global_pixels": 112, "local_pictures": 1, "crop_pixels": 56, "temporal": "segment"}
SETTINGS = tuple(f"views.{name}={value}" for name, value in SMALL.items())
COUNT = 10  # clips of the run that is killed
# Loaded by every process of the command: notes each opening of a clip.
NOTES = """
import os, sys
_log = os.open(os.environ["OPENED"], os.O_WRONLY | os.O_APPEND)
def _hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".mp4"):
        os.write(_log, (str(arguments[0]) + "\\n").encode())
sys.addaudithook(_hook)
"""


@pytest.fixture
def opened_here() -> Iterator[list[str]]:
    """The clips that this process opens, each time: as NOTES, whose hook nothing can take away either."""
    opened: list[str] = []
    is_over = False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and not is_over and str(arguments[0]).endswith(".mp4"):
            opened.append(str(arguments[0]))

    sys.addaudithook(hook)
    yield opened
    is_over = True


def manifest(path: Path, uris: dict[str, Path]) -> Path:
    """Clips by id, with opinions 1.5, 2.0, ..."""
    rows = [
        {"clip_id": name, "uri": str(uri), "dataset": "set", "content_id": name, "kind": "video"}
        | dict.fromkeys(("mos_raw", "mos"), min(5.0, 1.5 + 0.5 * place))
        for place, (name, uri) in enumerate(uris.items())
    ]
    write_manifest(path, make_manifest(rows, scales={"set": RatingScale(low=1, high=5)}))
    return path


def seen(uri: str) -> Views:
    clip = Clip(clip_id=uri, uri=uri)
    settings = ViewsConfig(**{**model_views(), **SMALL})
    return look(clip, settings, seed=view_seed(fingerprint(uri), clip))


def model_views() -> dict[str, Any]:
    from vqa.model.card import find_card

    return dict(find_card("embedded")["views"])


def pictures(out: Path) -> dict[str, list[bytes]]:
    return {one.clip_id: [picture.tobytes() for picture in one.load().pictures] for one in read_prepared(out)}


def rows(out: Path) -> list[dict[str, Any]]:
    """The table, without where the pictures lie."""
    found = pq.read_table(out / "clips.parquet").to_pylist()
    return [{name: value for name, value in row.items() if name not in ("part", "row")} for row in found]


def stored(out: Path) -> list[str]:
    parts = (out / "pictures").glob("[!.]*.parquet")
    return sorted(key for path in parts for key in pq.read_table(path, columns=["run_key"]).column(0).to_pylist())


def test_every_clip_has_a_row_and_what_scoring_sees(
    tmp_path: Path, engine: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    files = {f"{n}": clips.write_video(tmp_path / f"{n}.mp4", frames=12, seed=n) for n in range(3)}
    files["twin"] = Path(shutil.copy(files["0"], tmp_path / "twin.mp4"))
    files |= {"same file": files["1"], "text": clips.write_text(tmp_path / "text.mp4"), "gone": tmp_path / "gone.mp4"}
    listed, out = manifest(tmp_path / "m.parquet", files), tmp_path / "out"
    request = PrepareRequest(manifest=listed, out=out, assignments=SETTINGS, engine=engine, json_summary=True)

    assert prepare(replace(request, dry_run=True)) == 0
    assert json.loads(capfd.readouterr().out)["to_inspect"] == 6, "a file once, however many clips it makes"
    assert not out.exists()

    assert prepare(request) == 3
    summary = json.loads(capfd.readouterr().out)
    assert (summary["counts"], summary["failed"], summary["rows_new"]) == ({"ok": 5, "failed": 2}, 2, 6)
    assert summary["errors"] == {"not_found": 1, "not_video": 1}
    failed = (out / "failed.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in failed] == ["clip_id", "gone", "text"]
    assert summary["views_stored"] == len(stored(out)) == len(set(stored(out))) == 3, "the same content once"

    prepared = read_prepared(out)
    assert [one.clip_id for one in prepared] == ["0", "1", "2", "twin", "same file"]
    assert [one.opinion for one in prepared] == [1.5, 2.0, 2.5, 3.0, 3.5]
    for one in prepared:
        views, wanted = one.load(), seen(one.uri)
        assert (views.keyframe_seconds, views.crop_boxes, views.info) == (
            wanted.keyframe_seconds,
            wanted.crop_boxes,
            wanted.info,
        )
        assert all(np.array_equal(a, b) for a, b in zip(views.pictures, wanted.pictures, strict=True))


def test_a_second_run_prepares_what_changed_and_refuses_other_settings(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The plan knows no engine."""
    files = {f"{n}": clips.write_video(tmp_path / f"{n}.mp4", frames=12, seed=n) for n in range(2)}
    listed = manifest(tmp_path / "m.parquet", files | {"text": clips.write_text(tmp_path / "text.mp4")})
    out = tmp_path / "out"
    request = PrepareRequest(manifest=listed, out=out, assignments=SETTINGS, json_summary=True, max_failed="1")
    assert prepare(request) == 0
    clips.write_video(files["1"], frames=12, seed=7)
    capfd.readouterr()
    assert prepare(request) == 0
    summary = json.loads(capfd.readouterr().out)
    assert (summary["rows_reused"], summary["rows_new"]) == (2, 1), "only what changed; wrong files stay wrong"
    assert np.array_equal(read_prepared(out)[1].load().pictures[0], seen(str(files["1"])).pictures[0])

    with pytest.raises(UsageError, match=r"prepared with keyframes = 4, now 3; use another --out, or --fresh"):
        prepare(PrepareRequest(manifest=listed, out=out, assignments=(*SETTINGS, "views.keyframes=3")))
    with pytest.raises(UsageError, match=r"prepared with seed = 0, now 1"):
        prepare(PrepareRequest(manifest=listed, out=out, assignments=SETTINGS, seed=1))
    before = pictures(out)
    assert prepare(replace(request, seed=1, fresh=True)) == 0
    assert json.loads(capfd.readouterr().out)["rows_new"] == 3
    assert all(pictures(out)[name] != before[name] for name in before), "another seed, other frames"


def test_a_ladder_is_prepared_with_its_distortions(tmp_path: Path) -> None:
    from vqa.data.view_cache_writer import manifest_clips

    clips.write_video(tmp_path / "a.mp4", frames=6)
    label = {"clip_id": "a-0", "uri": "a.mp4", "content_id": "a", "split": "train", "opinion": 2.5, "vmaf": 37.5}
    label |= {"distortions": ["noise", "x264"], "severities": [0.25, 0.75]}
    import pyarrow as pa

    pq.write_table(pa.Table.from_pylist([label]), tmp_path / "ladder.parquet")
    assert manifest_clips(tmp_path) == manifest_clips(tmp_path / "ladder.parquet")
    assert (
        prepare(PrepareRequest(manifest=tmp_path, out=tmp_path / "out", assignments=SETTINGS, json_summary=True)) == 0
    )
    (one,) = read_prepared(tmp_path / "out")
    assert (one.distortions, one.severities, one.split, one.opinion) == (("noise", "x264"), (0.25, 0.75), "train", 2.5)


def test_wrong_manifests_are_named(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_text("no table")
    for path, message in ((tmp_path / "m.parquet", "is no manifest"), (tmp_path, "ladder.parquet: no such file")):
        with pytest.raises(UsageError, match=message):
            prepare(PrepareRequest(manifest=path, out=tmp_path / "out"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text('{"state": "finished"}')
    listed = manifest(tmp_path / "n.parquet", {"a": clips.write_video(tmp_path / "a.mp4", frames=2)})
    for fresh in (False, True):
        with pytest.raises(UsageError, match="not written by `vqa prepare`"):
            prepare(PrepareRequest(manifest=listed, out=tmp_path / "out", fresh=fresh))
    assert not (tmp_path / "out" / "pictures").exists()


@pytest.mark.slow
def test_killed_and_begun_again_it_comes_to_the_same_and_nothing_is_decoded_twice(
    tmp_path: Path, opened_here: list[str], warm_commands: Path
) -> None:
    """In one process; test_kills.py kills those of Ray, which run the same stages."""
    files = {f"{n}": clips.write_video(tmp_path / f"{n}.mp4", frames=8, seed=n) for n in range(COUNT)}
    listed = manifest(tmp_path / "m.parquet", files)
    opened = tmp_path / "opened"
    opened.touch()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "sitecustomize.py").write_text(NOTES)
    paths = os.pathsep.join([str(tmp_path / "notes"), *filter(None, [os.environ.get("PYTHONPATH")])])
    noting = os.environ | {"PYTHONPATH": paths, "OPENED": str(opened)}

    def run_command(python: Path | str, out: Path, environment: Mapping[str, str]) -> tuple[int, str, str]:
        options = [word for one in (*SETTINGS, "job.seconds_per_write=0") for word in ("--set", one)]
        command = [str(python), "-m", "tests.support.failing", "prepare", str(listed), "--out", str(out), "--json"]
        return Run([*command, *options], out, environment).end()

    code, said, heard = run_command(sys.executable, tmp_path / "whole", noting)
    assert (code, heard) == (0, "")
    assert json.loads(said)["rows_new"] == COUNT
    times = Counter(opened.read_text().splitlines())
    opened_here.clear()
    fingerprint(str(files["0"]))
    look(Clip(clip_id="a", uri=str(files["0"])), ViewsConfig(keyframes=4, local_pictures=1))
    assert times == dict.fromkeys(map(str, files.values()), len(opened_here)), "as for one look"
    opened_here.clear()
    for _ in range(2):  # epochs
        assert len([one.load() for one in read_prepared(tmp_path / "whole")]) == COUNT
    assert opened_here == [], "training opens no clip"

    out = tmp_path / "out"
    code, _, _ = run_command(warm_commands / "python", out, failing.environment(tmp_path / "marks", driver=5))
    assert code == -signal.SIGKILL
    safe = read_scores(out, ["clip_id"], folder="files").num_rows
    assert 0 < safe < COUNT
    with pytest.raises(UsageError, match="give a folder that `vqa prepare` has finished"):
        read_prepared(out)

    code, said, heard = run_command(warm_commands / "python", out, {})
    summary = json.loads(said)
    assert (code, heard, summary["rows_reused"], summary["rows_new"]) == (0, "", safe, COUNT - safe)
    assert rows(out) == rows(tmp_path / "whole")
    assert pictures(out) == pictures(tmp_path / "whole")
    assert len(stored(out)) == len(set(stored(out))) == COUNT
