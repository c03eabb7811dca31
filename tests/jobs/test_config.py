"""Settings: each source lies over the one before, and the digest holds what changes a number and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from jobs.config import ScoreConfig, pinned_card, resolve, settings_digest
from vqa.errors import UsageError


def card(folder: Path, name: str = "mine", text: str = "source: a/b\n") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def score_file(folder: Path, text: str) -> Path:
    (folder / "score").mkdir(exist_ok=True)
    return card(folder / "score", "settings", text)


def test_flags_lie_over_set_over_the_file_over_the_card_over_defaults(tmp_path: Path) -> None:
    text = "source: a/b\nviews: {keyframes: 2, crop_pixels: 20}\ngeneration: {k: 2, max_new_tokens: 20, seed: 2}\n"
    model = card(tmp_path, text=text)
    file = score_file(
        tmp_path, f"model: {model}\nviews: {{crop_pixels: 30}}\ngeneration: {{k: 3, max_new_tokens: 30}}\n"
    )
    config = resolve(
        file, assignments=["generation.k=4", "generation.max_new_tokens=40"], flags={"generation": {"k": 5}}
    )
    assert (config.views.keyframes, config.views.crop_pixels) == (2, 30)
    assert (config.generation.k, config.generation.max_new_tokens, config.generation.seed) == (5, 40, 2)
    assert config.limits == ScoreConfig.model_fields["limits"].get_default(call_default_factory=True)


def test_a_model_is_named_by_card_file_folder_or_hub_id(tmp_path: Path) -> None:
    assert resolve(flags={"model": "owner/name"}).model.source == "owner/name"
    assert resolve(flags={"model": str(tmp_path)}).model.source == str(tmp_path)
    assert resolve(flags={"model": str(card(tmp_path))}).model.name == "mine"
    with pytest.raises(UsageError, match="no card of that name"):
        resolve(flags={"model": "nobody"})


def test_parts_of_the_card_can_be_set_without_losing_the_card(tmp_path: Path) -> None:
    model = card(tmp_path)
    by_file = resolve(score_file(tmp_path, f"model: {model}\n"), assignments=["model.dtype=bfloat16"])
    by_section = resolve(score_file(tmp_path, f"model: {{name: {model}, dtype: bfloat16}}\n"))
    assert by_file.model == by_section.model
    assert (by_file.model.source, by_file.model.dtype) == ("a/b", "bfloat16")


def test_another_model_on_the_command_line_drops_what_the_file_says_of_its_own(tmp_path: Path) -> None:
    model, other = card(tmp_path), card(tmp_path, "other", "source: c/d\n")
    file = score_file(tmp_path, f"model: {{name: {model}, dtype: bfloat16}}\n")
    config = resolve(file, flags={"model": str(other)}, assignments=["model.attention=eager"])
    assert (config.model.source, config.model.dtype, config.model.attention) == ("c/d", "auto", "eager")


@pytest.mark.parametrize(
    "assignment", ["views.keyframe=3", "modle=x", "limits.deadline_seconds=0", "generation.k=many"]
)
def test_a_wrong_setting_is_a_usage_error(tmp_path: Path, assignment: str) -> None:
    with pytest.raises(UsageError, match=assignment.partition("=")[0].rpartition(".")[2]):
        resolve(assignments=[assignment], flags={"model": str(card(tmp_path))})


def digest(folder: Path, *assignments: str, revision: str = "r1", flags: dict[str, Any] | None = None) -> str:
    config = resolve(assignments=assignments, flags={"model": str(card(folder))} | (flags or {}))
    return settings_digest(config, model_id="a/b", model_revision=revision)


@pytest.mark.parametrize(
    "assignment",
    [
        "views.keyframes=3",
        "views.spatial=grid",
        "views.backend=decord",
        "generation.k=3",
        "generation.seed=1",
        "generation.temperature=0.5",
        "generation.readout=expected",
        "model.prompt=q_insight",
        "model.dtype=bfloat16",
        "model.max_pixels=1000",
        "clip_seconds=5",
    ],
)
def test_what_changes_a_number_changes_the_digest(tmp_path: Path, assignment: str) -> None:
    assert digest(tmp_path, assignment) != digest(tmp_path)


@pytest.mark.parametrize(
    "assignment",
    [
        "generation.batch_size=3",
        "limits.deadline_seconds=3",
        "limits.memory_mb=null",
        "limits.cpu_seconds=9",
        "limits.open_files=null",
        "limits.max_frames=9",
        "job.score_workers=3",
        "views.max_pixels=9",
        "views.prune=false",
    ],
)
def test_what_changes_no_number_leaves_the_digest(tmp_path: Path, assignment: str) -> None:
    assert digest(tmp_path, assignment) == digest(tmp_path)


def test_another_state_of_the_model_is_another_digest(tmp_path: Path) -> None:
    assert digest(tmp_path, revision="r2") != digest(tmp_path)


def test_workers_load_the_commit_that_the_keys_name(tmp_path: Path) -> None:
    config = resolve(flags={"model": str(card(tmp_path))})
    assert pinned_card(config.model, revision="c0ffee").revision == "c0ffee"
    assert pinned_card(config.model, revision="blake2b:00").revision == "main"
