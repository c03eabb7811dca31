"""From opinions to a student to a row: the commands, on a few drawn pictures."""

import itertools
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from jobs.request import ScoreRequest, inputs_of
from jobs.score import score
from tests.support import clips
from tests.support.job_runs import table
from vqa.config import build, configs_folder, load_config
from vqa.console import Engine
from vqa.data.people import PeopleSet, read_opinions
from vqa.data.score_table import ScoreRow, ScoreTable
from vqa.errors import ModelError, UsageError
from vqa.light.card import student_digest
from vqa.light.config import DistillConfig
from vqa.light.distill import distill, facts_of
from vqa.light.embedding import ENCODED, MOST, MOTION, SIZE, large
from vqa.light.material import PACKAGE, Embeddings, clips_of, gather
from vqa.light.reasons import LEVEL_WORDS
from vqa.light.reasons import PACKAGE as MINILM
from vqa.light.student import Student
from vqa.metrics.correlation import srcc
from vqa.prompt import GRADES
from vqa.types import Clip, Score
from vqa.views import ViewsConfig, look

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def test_a_student_is_trained_scores_and_is_named_in_every_row(
    opinions: Path, tmp_path: Path, vqa: Callable[..., tuple[int, str, str]]
) -> None:
    pytest.importorskip(PACKAGE)
    out = tmp_path / "student"
    code, said, heard = vqa("distill", opinions / "config.yaml", "--out", out)
    assert code == 0, heard
    assert student_digest(out) in said
    assert sum(path.stat().st_size for path in out.iterdir()) < 20_000_000
    assert yaml.safe_load((out / "student.yaml").read_text())["trained_on"][1:] == [
        "tiny: 16 of 16 pictures (mine)",
        "ladders: 10 pictures of 2 contents, in order of severity",
    ]

    (tmp_path / "in").mkdir()
    clips.write_text(tmp_path / "in/broken.mp4")
    for level in range(4):
        Image.open(opinions / f"people/tiny/0{level}.png").save(tmp_path / f"in/{level}.png")
    request = ScoreRequest(
        sources=(str(tmp_path / "in"),), out=tmp_path / "out", tier="light", student=out, engine=Engine.LOCAL
    )
    assert score(request) == 3  # broken.mp4
    rows = table(tmp_path / "out")
    found = [rows[f"{level}.png"]["score"] for level in range(4)]
    assert found == sorted(found, reverse=True)
    assert all(1 <= one <= 5 for one in found)
    for row in rows.values():
        assert (row["tier"], row["model_id"], row["model_revision"]) == ("light", "tiny", student_digest(out))
    row = rows["0.png"]
    assert (row["status"], row["answers_parsed"], row["answers_total"], row["reason"]) == ("ok", 0, 0, None)
    assert score(request) == 3
    assert table(tmp_path / "out") == rows


def test_folds_that_are_left_out_are_not_looked_at(opinions: Path, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGE)
    config = load_config(opinions / "config.yaml", DistillConfig, [f"cache={tmp_path}", "ladders=null"])
    one = config.opinions[0].model_copy(update={"without_folds": [0, 1]})
    with pytest.raises(UsageError, match="0 pictures are left"):
        distill(config.model_copy(update={"opinions": [one]}), lambda _: None)
    half = config.opinions[0].model_copy(update={"without_folds": [1]})
    with pytest.raises(UsageError, match="8 pictures are left"):
        distill(config.model_copy(update={"opinions": [half]}), lambda _: None)
    assert not any(tmp_path.iterdir())


def won(opinions: Path, first: str, second: str, result: int, *, count: int = 30) -> str:
    """A table of comparisons below the set's folder; its name."""
    rows = [f"{first},{second},{result},{count}"]
    (opinions / "people/tiny/pairs.csv").write_text("\n".join(["first,second,result,count", *rows]))
    return "pairs.csv"


@pytest.mark.parametrize(
    ("first", "second", "result", "said"),
    [
        ("00", "03", -1, "0 of 30 comparisons agree with the opinions of the clips, fewer than half"),
        ("00", "other.png", 1, "1 of 2 clips are no pictures of the set: other.png. Give the comparisons of its"),
    ],
)
def test_comparisons_of_other_pictures_or_against_the_opinions_are_refused(
    opinions: Path, tmp_path: Path, first: str, second: str, result: int, said: str
) -> None:
    pytest.importorskip(PACKAGE)
    config = load_config(opinions / "config.yaml", DistillConfig, [f"cache={tmp_path}", "ladders=null"])
    table = won(opinions, first, second, result)
    one = config.opinions[0].model_copy(update={"pairs": Path(table)})
    with pytest.raises(UsageError, match=said):
        distill(config.model_copy(update={"opinions": [one]}), lambda _: None)
    assert not any(tmp_path.iterdir())


def test_a_manifest_of_pairs_says_what_its_table_says(
    opinions: Path, tmp_path: Path, vqa: Callable[..., tuple[int, str, str]]
) -> None:
    pytest.importorskip(PACKAGE)
    config = load_config(opinions / "config.yaml", DistillConfig, [f"cache={tmp_path}", "ladders=null"])
    folder, made = opinions / "people/tiny", tmp_path / "pairs.parquet"
    (tmp_path / "pairs.csv").write_text(
        "first,second,winner\n00.png,03.png,00.png\n13.png,10.png,10.png\n00.png,11.png,tie"
    )
    call = ("data", "import", "hf-videofolder", "--dataset", "tiny", "--kind", "image", "--root", folder)
    assert vqa(*call, "--labels", tmp_path / "pairs.csv", "--out", made)[0] == 0
    found = []
    for path in (tmp_path / "pairs.csv", made):
        one = config.opinions[0].model_copy(update={"pairs": path, "without_folds": []})
        judged = (
            gather(config.model_copy(update={"opinions": [one]}), Embeddings(config), lambda _: None).lessons[0].judged
        )
        assert judged is not None
        found.append([judged.first.tolist(), judged.second.tolist(), judged.share.tolist(), judged.count.tolist()])
    assert found[0] == found[1] == [[0, 7, 0], [3, 4, 5], [1, 0, 0.5], [1, 1, 1]]


def test_all_steps_of_rali_make_a_student_with_words(opinions: Path, tmp_path: Path) -> None:
    """A teacher has scored two of the pictures with opinions and four others, one of which is gone."""
    pytest.importorskip(PACKAGE)
    if find_spec(MINILM) is None:
        pytest.skip(f"{MINILM} is not installed")
    others = [tmp_path / f"{n}.png" for n in range(4)]
    for n, path in enumerate(others[:3]):
        clips.write_image(path, width=200, height=150, seed=20 + n)
    teacher = ScoreTable(tmp_path / "run")
    for n, path in enumerate([opinions / "people/tiny/00.png", opinions / "people/tiny/03.png", *others]):
        row = ScoreRow(clip_id=path.name, uri=str(path), run_key=str(n), score=1.5 + n / 2, reason=f"blurred {n} times")
        teacher.add([row])
    teacher.flush()
    config = load_config(opinions / "config.yaml", DistillConfig)
    table = won(opinions, "00", "03", 1)
    config = build(
        DistillConfig,
        config.model_dump()
        | {
            "opinions": [config.opinions[0].model_dump() | {"pairs": table}],
            "teacher": {"run": tmp_path / "run", "min_reasons": 3},
            "rali": {"basis": {"components": 8, "buckets": 3, "vectors": 6}, "tuning": {"steps": 200}},
        },
        where="test",
    )
    said: list[str] = []
    student = distill(config, said.append)
    assert student.card.trained_on[1:] == [
        "tiny: 16 of 16 pictures, 1 of 1 comparisons (mine)",
        "ladders: 10 pictures of 2 contents, in order of severity",
        "teacher run: 3 of 4 clips, and reasons of 2 pictures above",
    ]
    assert f"teacher {tmp_path / 'run'}: 3 of 4 clips" in said
    assert len(student.card.words) == 6
    known = ("no visible damage", "blurred", *GRADES, *LEVEL_WORDS)
    assert all(one.startswith(known) for one in student.card.words)
    rows = Embeddings(config).of_opinions(
        read_opinions(load_config(opinions / "people.yaml", PeopleSet), config.folder), print
    )
    scores = student.opinion(rows)
    assert srcc(scores, np.tile([4.5, 3.5, 2.5, 1.5], 4)) > 0.9
    assert (student.opinion(rows) == distill(config, said.append).opinion(rows)).all()

    lost = config.model_copy(update={"teacher": config.teacher.model_copy(update={"min_reasons": 4})})  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="1 of 4 clips cannot be decoded any more"):
        distill(lost, said.append)


def test_a_library_without_labels_teaches_the_order_of_its_own_frames(opinions: Path, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGE)
    library = tmp_path / "library"
    library.mkdir()
    clips.write_video(library / "a.mp4", width=320, height=240, frames=6)
    clips.write_text(library / "broken.mp4")
    clips.write_image(library / "b.png", width=300, height=200, seed=10)
    said: list[str] = []
    changes = [
        f"ladders.sources=[{library}]",
        f"cache={tmp_path / 'cache'}",
        "rali.basis.vectors=6",
        "ladders.levels=3",
    ]
    size = ["ladders.kinds=3", "ladders.shortest=96", "ladders.longest=128", "rali.tuning.steps=60"]
    config = load_config(configs_folder() / "light/hirqa_tiny.yaml", DistillConfig, [*changes, *size])
    student = distill(config, said.append)
    assert student.card.scale == "severity"
    assert student.card.trained_on[1:] == ["ladders: 20 pictures of 2 contents, in order of severity"]
    assert any("broken.mp4" in line for line in said)
    found = gather(config, Embeddings(config), said.append)
    order = facts_of(found.ladders)
    assert order is not None
    scores = student.opinion(order.embeddings)
    better, worse = order.order.pairs.T
    assert (scores[better] > scores[worse]).mean() > 0.9

    with pytest.raises(UsageError, match=r"nothing to learn from\. Give at least one"):
        load_config(configs_folder() / "light/hirqa_tiny.yaml", DistillConfig, ["ladders=null"])


def test_vqa_train_trains_the_student_of_a_library_without_labels(
    tmp_path: Path, vqa: Callable[..., tuple[int, str, str]]
) -> None:
    pytest.importorskip(PACKAGE)
    (tmp_path / "library").mkdir()
    for n in range(2):
        clips.write_image(tmp_path / f"library/{n}.png", width=200, height=150, seed=10 + n)
    size = [f"ladders.sources=[{tmp_path / 'library'}]", f"cache={tmp_path / 'cache'}", "rali.basis.vectors=6"]
    size += ["ladders.kinds=2", "ladders.levels=2", "ladders.shortest=96", "ladders.longest=128", "rali.tuning.steps=9"]
    changes = [word for one in size for word in ("--set", one)]
    out = tmp_path / "student"
    code, said, heard = vqa("train", configs_folder() / "train/hirqa_tiny.yaml", "--out", out, *changes)
    assert code == 0, heard
    assert student_digest(out) in said

    command = ["score", tmp_path / "library", "--out", tmp_path / "out", "--tier", "light", "--student", out]
    code, _, heard = vqa(*command)
    assert code == 0 and "hirqa-tiny tells severities, no opinions: score is null" in heard
    for row in table(tmp_path / "out").values():
        assert (row["status"], row["score"], row["model_id"]) == ("ok", None, "hirqa-tiny")
        assert 1 <= row["score_raw"] <= 5


def test_the_commands_of_the_docs_fit_their_configs() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").rglob("*.md")))
    commands = [shlex.split(line) for line in pages.splitlines() if line.startswith("vqa distill configs/")]
    assert len(commands) > 3
    for _, _, config, *rest in commands:
        changes = [value for name, value in itertools.pairwise(rest) if name == "--set"]
        load_config(ROOT / config, DistillConfig, changes)


@pytest.mark.parametrize("place", ["train/hirqa_tiny.yaml", "light/embedded.yaml"])
def test_a_student_needs_no_option_of_a_recipe(
    place: str, tmp_path: Path, vqa: Callable[..., tuple[int, str, str]]
) -> None:
    config = configs_folder() / place
    code, _, heard = vqa("train", config, "--out", tmp_path / "out", "--data", tmp_path)
    assert (code, heard.count("\n")) == (2, 1)
    assert "--data: not used by" in heard and "a student of the light tier; leave it out" in heard
    code, _, heard = vqa("train", config, "--out", tmp_path / "out", "--ray-address", "auto")
    assert code == 2 and "--ray-address: not used by" in heard
    code, _, heard = vqa("prepare", tmp_path / "m.parquet", "--for", config, "--out", tmp_path / "out")
    assert code == 2 and "of a student; `vqa distill` decodes by itself" in heard
    code, _, heard = vqa("train", config)
    assert code == 2 and "--out is missing; give a folder for the student" in heard
    (tmp_path / "none.yaml").write_text("distill:\n")
    code, _, heard = vqa("train", tmp_path / "none.yaml", "--out", tmp_path / "out")
    assert code == 2 and "none.yaml: distill is None. Give the name of a file" in heard
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"model": "embedded"}, UsageError, "--model embedded: not used by --tier light"),
        ({"k": 3}, UsageError, "--k 3: not used by --tier light"),
        ({"tier": "reason", "student": Path("x")}, UsageError, "--student x: not used by --tier reason"),
        ({"student": Path("gone")}, ModelError, "student gone: no student.yaml"),
        ({"assignments": ("views.global_kind=mosaic",)}, UsageError, "views.global_kind = 'mosaic': the student"),
        (
            {"assignments": ("views.temporal=segment",)},
            UsageError,
            "views.temporal = 'segment': the student .* was made with 'keyframe'; leave it out",
        ),
        (
            {"assignments": ("views.keyframes=16",)},
            UsageError,
            r"views.keyframes = 16: the student .* was made with 4; leave it out, or add --set views.keyframes=4",
        ),
    ],
)
def test_what_the_light_tier_cannot_use_is_refused(
    tmp_path: Path, student_folder: Path, change: dict[str, object], error: type[Exception], said: str
) -> None:
    clips.write_image(tmp_path / "a.png")
    values = {"sources": (str(tmp_path),), "out": tmp_path / "out", "tier": "light", "student": student_folder} | change
    if "tier" not in change and "student" in change:
        values["student"] = change["student"]
    with pytest.raises(error, match=said):
        inputs_of(ScoreRequest(**values))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of three contents, each sharp, soft and softer, in a ladder's table; one that cannot be decoded."""
    folder = tmp_path_factory.mktemp("moving")
    rows = []
    for content in range(3):
        for step in range(3):
            name = f"{content}{step}.mp4"
            quality = {"crf": str(18 + 16 * step)}
            clips.write_video(folder / name, width=200, height=152, frames=12, seed=40 + content, options=quality)
            rows.append({"clip_id": name, "uri": name, "content_id": f"c{content}", "opinion": 4.5 - step})
    clips.write_text(folder / "broken.mp4")
    rows.append({"clip_id": "broken.mp4", "uri": "broken.mp4", "content_id": "c0", "opinion": 1.0})
    pq.write_table(pa.Table.from_pylist(rows), folder / "ladder.parquet")
    return folder


def test_moving_clips_teach_their_order_and_a_still_stays_as_it_is(
    opinions: Path, moving: Path, tmp_path: Path
) -> None:
    pytest.importorskip(PACKAGE)
    config = load_config(
        opinions / "config.yaml", DistillConfig, [f"moving.ladders=[{moving}]", "embedding.motion=true"]
    )
    said: list[str] = []
    student = distill(config, said.append)
    assert student.card.trained_on[3] == "moving ladders: 9 clips of 3 contents, in their order by VMAF"
    assert any("left out" in line and "broken.mp4" in line for line in said)
    assert student.card.views["near_frames"] is True and student.card.embedding.motion
    student.save(tmp_path / "student")
    again = Student.load(tmp_path / "student")
    views = ViewsConfig.model_validate(student.card.views)
    for content in range(3):
        shown = [look(Clip(clip_id="c", uri=str(moving / f"{content}{step}.mp4")), views) for step in range(3)]
        scores = [one.score for one in student.score(shown) if isinstance(one, Score)]
        assert scores == sorted(scores, reverse=True)
        assert scores == [one.score for one in again.score(shown) if isinstance(one, Score)]
    embeddings = Embeddings(config)
    found = gather(config, embeddings, said.append).moving
    settings = [f"moving.ladders=[{moving}]", "moving.apart=0.5", "moving.part=0.4"]
    compared = load_config(opinions / "config.yaml", DistillConfig, settings)
    by_score = gather(compared, Embeddings(compared), said.append)
    assert by_score.moving is not None and (by_score.moving.apart, by_score.moving.part) == (0.5, 0.4)
    assert by_score.trained_on[3] == "moving ladders: 9 clips of 3 contents, by VMAF"
    assert found is not None and found.groups is not None and found.groups.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    told = clips_of([moving], Embeddings(config), said.append).embeddings[:, MOTION]
    assert embeddings.usual is not None and told.min() < -MOST, "as it is"
    larger, usual = np.split(embeddings.usual, [ENCODED])
    np.testing.assert_allclose(usual, told.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.embeddings[:, MOTION], np.clip(told - usual, -MOST, MOST), atol=1e-6)
    stills = embeddings.of_opinions(
        read_opinions(load_config(opinions / "people.yaml", PeopleSet), config.folder), print
    )
    assert not stills[:, MOTION].any()
    assert larger.any() and (found.embeddings[:, large(SIZE)] == larger).all(), "a clip is not seen larger"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["embedding.motion=true"], "embedding.motion without moving"),
        (["moving.ladders=[.]", "rali={}"], "moving with rali"),
        (["moving.ladders=[]"], "moving.ladders"),
    ],
)
def test_settings_of_moving_clips_that_cannot_work_are_refused(opinions: Path, changes: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_config(opinions / "config.yaml", DistillConfig, changes)


def test_moving_ladders_that_are_not_there_are_refused(opinions: Path, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGE)
    config = load_config(opinions / "config.yaml", DistillConfig, [f"moving.ladders=[{tmp_path}]"])
    with pytest.raises(UsageError, match=r"ladder.parquet does not exist. Make a ladder first: vqa data synth"):
        distill(config, lambda _: None)
    row = {"clip_id": "a", "uri": "a.mp4", "content_id": "a", "opinion": 3.0}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "ladder.parquet")
    with pytest.raises(UsageError, match="none of 1 clips can be decoded"):
        distill(config, lambda _: None)
