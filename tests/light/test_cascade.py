"""The cascade: how unsure the student is, which clips go to the reasoner, and the rows of a run in two passes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.cascade import choose
from jobs.request import ScoreRequest, inputs_of
from jobs.score import score
from tests.support import clips, failing
from tests.support.job_runs import Rows, table
from vqa.console import Engine
from vqa.errors import ModelError, UsageError
from vqa.light.card import CARD, LINK, WEIGHTS, WIDTH, student_digest
from vqa.light.cascade import FOLDS, Width, folds_of
from vqa.light.config import RegressionConfig
from vqa.light.embedding import SIZE, SIZES
from vqa.light.regression import LabelledSet
from vqa.light.student import Student

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def request_(unsure: Path, tmp_path_factory: pytest.TempPathFactory) -> ScoreRequest:
    """Five pictures, a video of two windows, and a file that holds neither."""
    folder = tmp_path_factory.mktemp("in")
    for n in range(5):
        clips.write_image(folder / f"{n}.png", width=96, height=64, seed=n)
    clips.write_video(folder / "long.mp4", frames=48, fps=24)
    clips.write_text(folder / "broken.mp4")
    return ScoreRequest(
        sources=(str(folder),),
        out=folder.with_name("whole"),
        tier="cascade",
        student=unsure,
        reason_share="30%",
        clip_seconds=1.0,
        engine=Engine.LOCAL,
        max_failed="100%",
        assignments=("generation.max_new_tokens=48", "generation.k=2"),
    )


@pytest.fixture
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reasoner's scores follow from names and pixels."""
    monkeypatch.setattr("jobs.request.ScoreStage", failing.FailingScoreStage)


@pytest.fixture(scope="module")
def whole(request_: ScoreRequest) -> Rows:
    """The rows of one run, whose reasoner needs no model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.request.ScoreStage", failing.FailingScoreStage)
        assert score(request_) == 0
    return table(request_.out)


def test_the_widest_go_to_the_reasoner_and_keep_the_student_s_score(
    request_: ScoreRequest, unsure: Path, tmp_path: Path
) -> None:
    request_ = replace(request_, out=tmp_path / "reasoned")
    assert score(request_) == 0
    whole = table(request_.out)
    light = replace(request_, tier="light", reason_share=None, assignments=(), out=tmp_path / "light")
    assert score(light) == 0
    student = table(light.out)
    assert len(whole) == 8
    widths = {name: row["score_std"] for name, row in student.items() if row["score_std"] is not None}
    assert len(widths) == 7  # of 7, 30 % are 2
    widest = sorted(widths, key=lambda name: -widths[name])[:2]
    assert {name for name, row in whole.items() if row["tier"] == "reason"} == set(widest)
    for name, row in whole.items():
        if name not in widest:
            assert row == student[name]  # the same key too: a light run is a cascade's first pass
            continue
        assert (row["light_score"], row["light_std"]) == (student[name]["score"], student[name]["score_std"])
        assert row["model_id"] == "embedded"
        assert row["score"] == row["reason_score"]
        assert row["run_key"] != student[name]["run_key"]
    record = json.loads((request_.out / "run.json").read_text())
    assert record["tiers"] == {"light": 6, "reason": 2}
    assert (record["tier"], record["student_revision"]) == ("cascade", student_digest(unsure))


def test_a_run_that_ended_between_or_within_the_passes_comes_to_the_same_rows(
    request_: ScoreRequest, whole: Rows, _no_model: None, tmp_path: Path
) -> None:
    light = replace(request_, tier="light", reason_share=None, assignments=(), out=tmp_path)
    assert score(light) == 0
    some = replace(request_, out=tmp_path, reason_share="0.15")  # one of the two
    assert score(some) == 0
    assert [row["tier"] for row in table(tmp_path).values()].count("reason") == 1
    folder = Path(request_.sources[0])
    names = sorted((str(path) for path in folder.iterdir()), reverse=True)
    rest = replace(request_, out=tmp_path, sources=tuple(names))
    assert score(rest) == 0
    assert table(tmp_path) == whole
    assert score(rest) == 0
    assert json.loads((tmp_path / "run.json").read_text())["rows_new"] == 0
    assert table(tmp_path) == whole


def linking() -> dict[str, object]:
    """A calibration that moves scores half way to 3, of no model."""
    part = {"clips": 10, "rmse": 0.1, "mae": 0.1}
    made = {"kind": "isotonic", "parameters": [1.0, 5.0, 2.0, 4.0], "half_width": 0.5, "coverage_target": 0.9}
    made |= {"coverage": 0.9, "coverage_low": 0.8, "coverage_high": 1.0, "scale": [1, 5], "split": "none"}
    return made | {"fit": part, "conformal": part, "test": part, "scores": "a", "labels": "b", "created": "now"}


def test_a_scale_that_the_student_carries_is_used_for_the_model_it_was_made_for(
    request_: ScoreRequest,
    whole: Rows,
    unsure: Path,
    _no_model: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "student"
    folder.mkdir()
    for path in unsure.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    plain = replace(request_, student=folder, out=tmp_path / "out")
    without = inputs_of(plain)
    assert without.scale is None
    made = linking() | {"model_id": without.model_id, "model_revision": without.model_revision}
    (folder / LINK).write_text(json.dumps(made))
    inputs = inputs_of(plain)
    assert inputs.scale is not None and inputs.settings != without.settings
    assert inputs.first.settings == without.first.settings

    assert score(plain) == 0
    assert "no file says how scores of" not in capsys.readouterr().err
    rows = [row for row in table(plain.out).values() if row["tier"] == "reason"]
    assert len(rows) == 2
    for row in rows:
        assert row["reason_score"] == whole[row["clip_id"]]["reason_score"]
        assert row["score"] == pytest.approx(2 + (row["reason_score"] - 1) / 2)

    (folder / LINK).write_text(json.dumps(made | {"model_revision": "blake2b:0"}))
    assert inputs_of(plain).scale is None
    Student.load(folder).save(folder)  # another student, as far as the file knows
    assert not (folder / LINK).exists()


def test_the_reasoner_is_put_on_the_student_s_scale(
    request_: ScoreRequest, whole: Rows, _no_model: None, tmp_path: Path
) -> None:
    made = linking()
    (tmp_path / "scale.json").write_text(json.dumps(made | {"model_id": "embedded"}))
    (tmp_path / "other.json").write_text(json.dumps(made | {"model_id": "other"}))
    linked = replace(request_, reason_scale=tmp_path / "scale.json", out=tmp_path / "out")
    assert inputs_of(linked).settings != inputs_of(request_).settings
    assert inputs_of(linked).first.settings == inputs_of(request_).first.settings
    with pytest.raises(UsageError, match=r"other.json: made for other, this run uses embedded"):
        inputs_of(replace(linked, reason_scale=tmp_path / "other.json"))
    assert score(linked) == 0
    rows = [row for row in table(linked.out).values() if row["tier"] == "reason"]
    assert len(rows) == 2
    for row in rows:
        assert row["reason_score"] == whole[row["clip_id"]]["reason_score"]
        assert row["score"] == pytest.approx(2 + (row["reason_score"] - 1) / 2)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"reason_share": "tenth"}, UsageError, "--reason-share 'tenth': wanted a share of the clips like 10% or 0.1"),
        ({"reason_share": "150%"}, UsageError, "--reason-share '150%': wanted a share"),
        ({"reason_share": "nan"}, UsageError, "--reason-share 'nan': wanted a share"),
        ({"tier": "light"}, UsageError, "--reason-share 30%: not used by --tier light; add --tier cascade"),
        ({"tier": "reason", "student": None}, UsageError, "--reason-share 30%: not used by --tier reason"),
        ({"student": Path("gone")}, ModelError, "student gone: no student.yaml"),
        (
            {"assignments": ("light_views.global_kind=mosaic",)},
            UsageError,
            "light_views.global_kind = 'mosaic': the st",
        ),
        ({"assignments": ("light_views.temporal=fps",)}, UsageError, "light_views.temporal = 'fps': the student"),
        ({"reason_scale": Path("gone.json")}, UsageError, "calibration gone.json: cannot be read"),
    ],
)
def test_what_a_cascade_cannot_use_is_refused(
    request_: ScoreRequest, tmp_path: Path, change: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as found:
        inputs_of(replace(request_, out=tmp_path / "out", **change))  # type: ignore[arg-type]
    assert "\n" not in str(found.value)
    assert not (tmp_path / "out").exists()


def test_the_reasoner_s_sampler_is_not_the_student_s(request_: ScoreRequest) -> None:
    changes = ("views.temporal=segment", "views.keyframes=9", "views.snap=keyframes")
    inputs = inputs_of(replace(request_, assignments=changes))
    light = inputs.first.config.views
    assert (inputs.config.views.temporal, inputs.config.views.keyframes) == ("segment", 9)
    assert (light.temporal, light.keyframes) == ("keyframe", 4)
    assert inputs.config.views.snap == light.snap == "keyframes"


def test_a_student_that_cannot_tell_how_unsure_it_is_is_refused(request_: ScoreRequest, student_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"no width.safetensors, which tells how unsure it is of a clip; make it anew"):
        inputs_of(replace(request_, student=student_folder))


def test_a_damaged_width_is_refused_and_its_state_is_in_the_digest(unsure: Path, tmp_path: Path) -> None:
    for path in unsure.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert student_digest(tmp_path) == student_digest(unsure)
    (tmp_path / WIDTH).write_bytes((unsure / WIDTH).read_bytes()[:-8])
    assert student_digest(tmp_path) != student_digest(unsure)
    with pytest.raises(ModelError, match=r"width.safetensors cannot be used .*; make it anew with `vqa distill`"):
        Student.load(tmp_path)


def test_the_choice_is_of_the_widest_whatever_their_order() -> None:
    widths = {"b": 0.5, "a": 0.5, "c": 0.9, "d": 0.1}
    assert choose(widths, 0.5) == choose(dict(reversed(widths.items())), 0.5) == {"c", "a"}
    assert choose(widths, 0.24) == choose({}, 0.5) == set()
    assert choose({str(n): 1.0 for n in range(10)}, 0.3) == {"0", "1", "2"}  # 0.3 x 10 is 3, not 2.9999


def test_the_width_holds_two_thirds_of_new_opinions_and_is_wider_where_they_are_less_sure() -> None:
    generator = np.random.default_rng(0)
    count, signal = 600, generator.standard_normal(SIZE) / np.sqrt(SIZE)
    far = generator.random(count) < 0.3  # less like the others, and harder
    embeddings = generator.standard_normal((count, SIZE)) * np.where(far, 4.0, 1.0)[:, None]
    labels = 3 + 0.2 * (embeddings @ signal + generator.standard_normal(count) * np.where(far, 1.0, 0.5))
    known = LabelledSet(embeddings=embeddings[:300], labels=labels[:300])
    folds = folds_of([str(n) for n in range(300)])
    assert sorted(set(folds.tolist())) == list(range(FOLDS))
    settings = RegressionConfig(emphasis=dict.fromkeys(SIZES, 1.0), strength=0.1)
    width = Width.fit([known], [folds], settings)
    members = embeddings @ width.weights.T + width.biases
    slope, start = np.polyfit(members[:300].mean(1), labels[:300], 1)
    found = width.of(embeddings[300:], np.full(300, 3.0))
    assert found[far[300:]].mean() > 1.1 * found[~far[300:]].mean()
    said = slope * members[300:].mean(1) + start
    assert 0.58 < (np.abs(labels[300:] - said) <= found).mean() < 0.8
    usual = width.scale * width.least_spread
    assert 0.5 < np.isclose(found, usual).mean() < 0.95  # most spread no more than usual


def test_the_width_is_less_at_the_ends_of_the_scale(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).standard_normal((3, SIZE)) / 50
    width = Width(weights=drawn, biases=np.zeros(3), scale=0.2, least_spread=0.3, least_slope=0.25)
    same = np.ones((4, SIZE))
    found = width.of(same, np.array([3.0, 2.0, 1.1, 5.0]))
    assert found / found[0] == pytest.approx([1.0, 0.75, 0.25, 0.25])
    width.save(tmp_path)
    again = Width.load(tmp_path, size=SIZE)
    assert again is not None and (again.least_slope, again.least_spread) == (0.25, 0.3)


def test_the_spread_of_members_counts_where_it_is_more_than_usual() -> None:
    members = np.zeros((2, SIZE))
    members[1, 0] = 2.0  # they differ by the first number alone: a spread of it
    width = Width(weights=members, biases=np.zeros(2), scale=0.5, least_spread=1.0)
    seen = np.zeros((4, SIZE))
    seen[:, 0] = [0.1, 1.0, 1.5, 3.0]
    assert width.of(seen, np.full(4, 3.0)) == pytest.approx([0.5, 0.5, 0.75, 1.5])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"error": [0.0, -0.2, 0.25, 0.1]}, "none of which is below 0"),
        ({"error": [0.0, float("nan"), 0.25, 0.1]}, "not every number of error is finite"),
        ({"error": 0.1}, "not enough values"),
        ({"weights": [[float("nan")] * SIZE] * 2}, "not every number of weights is finite"),
        ({"weights": np.zeros((0, SIZE)), "biases": []}, r"weights of \(0, \d+\) and biases of \(0,\)"),
        ({"biases": 0.1}, r"biases of \(\)"),
    ],
)
def test_a_width_that_says_nothing_is_refused(changed: dict[str, object], says: str, tmp_path: Path) -> None:
    parts: dict[str, object] = {"weights": np.zeros((2, SIZE)), "biases": [0.0, 0.0], "error": [0.0, 0.2, 0.25, 0.1]}
    save_file({name: torch.tensor(values) for name, values in (parts | changed).items()}, tmp_path / WIDTH)
    with pytest.raises(ModelError, match=rf"width.safetensors cannot be used \(.*{says}.*; make it anew"):
        Width.load(tmp_path, size=SIZE)


def test_a_folder_in_place_of_the_width_is_no_student_without_one(tmp_path: Path) -> None:
    (tmp_path / WIDTH).mkdir()
    with pytest.raises(ModelError, match=r"width.safetensors cannot be used"):
        Width.load(tmp_path, size=SIZE)


def test_a_student_whose_numbers_are_none_scores_nothing(student_folder: Path, tmp_path: Path) -> None:
    (tmp_path / CARD).write_bytes((student_folder / CARD).read_bytes())
    tensors = load_file(student_folder / WEIGHTS)
    tensors["direction"][7] = float("nan")
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(ModelError, match=r"cannot be used \(not every number of direction is finite"):
        Student.load(tmp_path)


@pytest.mark.parametrize(("error", "at_the_end"), [([0.1, 0.2], 1.0), ([0.1, 0.2, 0.25], 0.25)])
def test_widths_of_files_of_before_mean_what_they_meant(error: list[float], at_the_end: float, tmp_path: Path) -> None:
    weights, wanted = np.zeros((2, SIZE), dtype=np.float32), np.full(2, 0.2 * (0.5 + 0.1))
    weights[1, 0] = 2.0
    tensors = {"weights": torch.from_numpy(weights), "biases": torch.zeros(2), "error": torch.tensor(error)}
    save_file(tensors, tmp_path / WIDTH)
    width = Width.load(tmp_path, size=SIZE)
    seen = np.zeros((2, SIZE))
    seen[:, 0] = 0.5
    assert width is not None
    assert width.of(seen, np.array([3.0, 5.0])) == pytest.approx(wanted * [1.0, at_the_end])
