"""Settings: each source lies over the one before, and the digest holds what changes a number and nothing else."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from jobs.config import (
    ClipLimits,
    JobConfig,
    ScoreConfig,
    gpus_of_worker,
    make_guard,
    pinned_card,
    resolve,
    settings_digest,
)
from jobs.stages import Resources, SampleStage, ScoreStage
from vqa.errors import UsageError
from vqa.model.card import GenerationConfig, ModelCard, settle
from vqa.model.engines.config import EngineConfig, engine_of
from vqa.views import ViewsConfig


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


def test_a_card_says_how_its_model_fits_on_gpus_unless_the_user_does(tmp_path: Path) -> None:
    big = tmp_path / "big.yaml"
    big.write_text("source: a/b\nprompt: preresq_video\nmodel_engine: {tensor_parallel: 4, gpu_memory: 0.8}\n")
    found = resolve(flags={"model": str(big), "model_engine": {"name": "vllm"}}).model_engine
    assert (found.name, found.tensor_parallel, found.gpu_memory) == ("vllm", 4, 0.8)
    by_file = resolve(score_file(tmp_path, f"model: {big}\nmodel_engine: {{tensor_parallel: 2}}\n")).model_engine
    assert (by_file.tensor_parallel, by_file.gpu_memory) == (2, 0.8)
    by_hand = resolve(flags={"model": str(big)}, assignments=["model_engine.tensor_parallel=8"]).model_engine
    assert by_hand.tensor_parallel == 8
    named, _ = settle(str(big), {})
    assert engine_of(named, EngineConfig(name="vllm", gpu_memory=0.5)).model_dump(
        include={"name", "tensor_parallel", "gpu_memory"}
    ) == {"name": "vllm", "tensor_parallel": 4, "gpu_memory": 0.5}
    assert gpus_of_worker(JobConfig(), found) == 4 and gpus_of_worker(JobConfig(), by_file) == 1
    big.write_text("source: a/b\nprompt: preresq_video\nmodel_engine: {endpoints: [http://a/v1]}\n")
    with pytest.raises(UsageError, match=r"endpoints is not a card's to say; give tensor_parallel, .*by --set"):
        resolve(flags={"model": str(big)})
    big.write_text("source: a/b\nprompt: preresq_video\nmodel_engine: {tensor_parallel: 0}\n")
    with pytest.raises(UsageError, match=r"model_engine\.tensor_parallel"):
        resolve(flags={"model": str(big)})


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


OF_BEFORE = "ccd86fdd6ab766b8e1c9fc2f532ef1c7"  # by version 2 of the keys, before models had scales of their own

# Every key of `vqa score` with another value than its default; a new key fails the test below until it is entered.
CHANGES_NUMBERS = {
    "tier": "light",
    "clip_seconds": "5",
    "model.prompt": "q_insight",
    "model.dtype": "bfloat16",
    "model.attention": "eager",
    "model.min_pixels": "1000",
    "model.max_pixels": "1000",
    "views.temporal": "uniform",
    "views.keyframes": "3",
    "views.change": "luma",
    "views.count_repeats": "true",
    "views.near_frames": "true",
    "views.keyframe_rate": "2",
    "views.global_kind": "frames",
    "views.global_pixels": "512",
    "views.shown_size": "[640, 384]",
    "views.spatial": "grid",
    "views.local_pictures": "1",
    "views.crop_pixels": "96",
    "views.snap": "keyframes",
    "views.backend": "decord",
    "views.min_decoded_share": "0.9",
    "views.on_damage": "fail",
    "generation.k": "3",
    "generation.generation": "sample",
    "generation.temperature": "0.5",
    "generation.top_p": "0.5",
    "generation.top_k": "5",
    "generation.seed": "1",
    "generation.max_new_tokens": "64",
    "generation.readout": "expected",
    "generation.repetition_penalty": "1.05",
    "generation.folder_sampling": "true",
    "generation.describe": "true",
    "generation.deterministic": "true",
    "model_engine.name": "vllm",
    "model.question": "How good is it? <answer>",
    "model.system": "Think first.",
    "model.order": "text_first",
    "model.labels": "vision_ids",
    "model.modality": "video",
    "model.answer.low": "0",
    "model.answer.high": "100",
    "model.answer.numbers": "3",
    "model.answer.keys": "[spatial, temporal]",
}
CHANGES_NO_NUMBER = {
    "student": "folder",  # refused with tier reason; with light the digest holds the state of the folder
    "light_views": "{snap: keyframes}",  # tier cascade, as the next two
    "reason_share": "0.2",
    "reason_scale": "scale.json",
    "calibration": "fit.json",  # columns of their own; of a student of severity the score too, once all rows are there
    "model.name": "other.yaml",
    "model.source": "c/d",  # the digest holds the id and revision that it came to
    "model.revision": "v2",
    "model.subfolder": "inside",  # the id or the state of the folder that it came to holds it
    "model.device_map": "cpu",
    "model.trust_remote_code": "true",
    "model.cpu_threads": "2",
    "model.views": "{keyframes: 3}",  # of the card: settled before, into the section
    "model.generation": "{k: 3}",
    "model.model_engine": "{gpu_memory: 0.5}",
    "model.licence": "mine",
    "model.unsupported": "it flies",
    "model.asked": "own",  # a column of its own; the words are in the digest
    "model.published": "{question: Q}",
    "model.published_description": "{question: Q}",
    "model.description": "Say more.",  # unless generation.describe asks it
    "model.task": "comparison",  # refused by vqa score, as are the three that follow from it
    "model.reference": "true",
    "model.intro": "See",
    "model.answer.choices": "[A, B]",
    "model.answer.published_reading": "first_number",  # unless it is the readout
    "model_engine.endpoints": "[http://a/v1]",
    "model_engine.served_model": "m",  # the model's id, which the digest holds
    "model_engine.api_key_env": "KEY",
    "model_engine.api_key_file": "key.txt",
    "model_engine.concurrency": "3",
    "model_engine.tries": "3",
    "model_engine.first_wait_seconds": "3",
    "model_engine.deadline_seconds": "3",
    "model_engine.tensor_parallel": "2",
    "model_engine.compile": "false",
    "model_engine.gpu_memory": "0.5",
    "model_engine.max_model_len": "999",
    "views.max_pixels": "9",
    "views.prune": "false",
    "job.unread_limit": "7",
    "generation.batch_size": "3",
    "generation.token_budget": "1000",
    "limits.deadline_seconds": "3",
    "limits.memory_mb": "null",
    "limits.cpu_seconds": "9",
    "limits.open_files": "null",
    "limits.max_frames": "9",
    "limits.private_hosts": "false",
    "job.sample_workers": "3",
    "job.score_workers": "3",
    "job.sample_workers_min": "2",
    "job.score_workers_min": "2",
    "job.cpus_per_sampler": "2",
    "job.sample_resources": "{nas: 1}",
    "job.score_resources": "{licence: 1}",
    "job.accelerator_type": "H100",
    "job.store_mb": "900",
    "job.stall_seconds": "60",
    "job.cpus_per_worker": "2",
    "job.gpus_per_worker": "0.5",
    "job.price_per_hour": "3",
    "job.rows_per_part": "7",
    "job.seconds_per_write": "1",
}


def keys_of(schema: type[BaseModel], before: str = "") -> list[str]:
    """The dotted keys of a schema, those of its sections in their place."""
    keys = []
    for name, field in schema.model_fields.items():
        section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        keys += keys_of(field.annotation, f"{before}{name}.") if section else [before + name]
    return keys


def value_of(config: BaseModel, key: str) -> object:
    return functools.reduce(getattr, key.split("."), config)


def test_every_key_is_known_to_change_a_number_or_not() -> None:
    assert sorted(keys_of(ScoreConfig)) == sorted(CHANGES_NUMBERS | CHANGES_NO_NUMBER)
    assert not CHANGES_NUMBERS.keys() & CHANGES_NO_NUMBER.keys()


@pytest.mark.parametrize("key", keys_of(ScoreConfig))
def test_every_key_can_be_set_by_its_name(tmp_path: Path, key: str) -> None:
    card(tmp_path, "other")
    value = (CHANGES_NUMBERS | CHANGES_NO_NUMBER)[key].replace("other.yaml", str(tmp_path / "other.yaml"))
    flags = {} if key == "model.name" else {"model": str(card(tmp_path))}
    plain = resolve(flags={"model": str(card(tmp_path))})
    assert value_of(resolve(assignments=[f"{key}={value}"], flags=flags), key) != value_of(plain, key)


@pytest.mark.parametrize("key", CHANGES_NUMBERS)
def test_what_changes_a_number_changes_the_digest(tmp_path: Path, key: str) -> None:
    assert digest(tmp_path, f"{key}={CHANGES_NUMBERS[key]}") != digest(tmp_path)


@pytest.mark.parametrize("key", sorted(CHANGES_NO_NUMBER.keys() - {"model.name"}))
def test_what_changes_no_number_leaves_the_digest(tmp_path: Path, key: str) -> None:
    assert digest(tmp_path, f"{key}={CHANGES_NO_NUMBER[key]}") == digest(tmp_path)


def test_compiled_steps_have_keys_of_their_own_with_transformers_alone(tmp_path: Path) -> None:
    assert digest(tmp_path, "model_engine.compile=true") != digest(tmp_path)
    of_vllm = {digest(tmp_path, "model_engine.name=vllm", f"model_engine.compile={one}") for one in ("true", "false")}
    assert of_vllm == {digest(tmp_path, "model_engine.name=vllm")}


def test_keys_of_before_there_were_other_scales_and_questions_stay(tmp_path: Path) -> None:
    assert digest(tmp_path) == OF_BEFORE


@pytest.mark.parametrize(
    ("assignments", "of_before", "is_kept"),
    [
        (["views.count_repeats=true"], "8755b51881d922bb71255b0100e98a50", False),
        (["views.global_kind=frames"], "bc5921743579b338c1c9ef2031abf328", True),
        (["views.count_repeats=true", "views.global_kind=frames"], "b0330b10249f6ba841c0339b4e367094", False),
    ],
)
def test_only_what_is_told_to_repeat_is_asked_anew(
    tmp_path: Path, assignments: list[str], of_before: str, is_kept: bool
) -> None:
    """Separate pictures had been called frames of one, and of none that repeats nothing had been said."""
    assert (digest(tmp_path, *assignments) == of_before) is is_kept


def test_another_state_of_the_model_is_another_digest(tmp_path: Path) -> None:
    assert digest(tmp_path, revision="r2") != digest(tmp_path)


def test_workers_load_the_commit_that_the_keys_name(tmp_path: Path) -> None:
    config = resolve(flags={"model": str(card(tmp_path))})
    assert pinned_card(config.model, revision="c0ffee").revision == "c0ffee"
    assert pinned_card(config.model, revision="blake2b:00").revision == "main"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("sample_resources={nas: -1}", r"^the settings: job\.sample_resources\.nas = -1: "),
        ("sample_resources={CPU: 3}", r"job\.sample_resources = .*CPU is .* Ray's own; set job\.cpus_per_sampler$"),
        ("sample_resources={GPU: 1}", "GPU is .* leave it out: decoding uses none$"),
        ("score_resources={CPU: 3}", r"^the settings: job\.score_resources = \{'CPU': 3.*set job\.cpus_per_worker$"),
        ("score_resources={GPU: 1}", r"set job\.gpus_per_worker$"),
        ("score_resources={memory: 1}", r"limits\.memory_mb"),
        ("score_resources={object_store_memory: 1}", r"set job\.store_mb"),
        ("score_resources={'accelerator_type:H100': 1}", r"set job\.accelerator_type"),
    ],
)
def test_resources_that_ray_has_of_its_own_are_refused(given: str, wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        resolve(assignments=[f"job.{given}"])


@pytest.mark.parametrize("key", ["views", "light_views", "job", "generation", "limits", "model_engine"])
@pytest.mark.parametrize("tier", ["reason", "light", "cascade"])
def test_a_section_is_a_mapping_in_every_tier(tier: str, key: str) -> None:
    with pytest.raises(UsageError, match=f"^the settings: {key} = 5: wanted a mapping of settings"):
        resolve(assignments=[f"{key}=5", f"tier={tier}"])


def test_files_that_no_decoding_can_do_with_are_refused() -> None:
    with pytest.raises(UsageError, match=r"limits\.open_files = 1: Input should be greater than or equal to 8"):
        resolve(assignments=["limits.open_files=1"])


LIMITS_OF_THE_GUARD = {"deadline_seconds": 3.0, "memory_mb": None, "cpu_seconds": 9, "open_files": None}


@pytest.mark.parametrize(
    "key", sorted(ClipLimits.model_fields.keys() - {"max_frames", "private_hosts"})
)  # of the sampling stage: test_stages; of all guards: test_hosts
def test_every_limit_reaches_the_guard(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setattr("jobs.config.Guard", dict)  # shows what it is given
    value = LIMITS_OF_THE_GUARD[key]
    before, after = make_guard(ClipLimits()), make_guard(ClipLimits(**{key: value}))
    of_guard = "memory_bytes" if key == "memory_mb" else key
    assert after == before | {of_guard: value}


@pytest.mark.parametrize(
    ("key", "value", "cluster"),
    [
        ("score_workers", 3, {"CPU": 8}),
        ("score_workers", 3, {"CPU": 8, "GPU": 2}),
        ("cpus_per_worker", 2.0, {"CPU": 8}),
        ("gpus_per_worker", 0.5, {"CPU": 8, "GPU": 2}),
    ],
)
def test_what_a_model_process_gets_is_as_set(key: str, value: float, cluster: dict[str, float]) -> None:
    def asked(job: JobConfig) -> object:
        card, generation = ModelCard(source="a/b"), GenerationConfig()
        return ScoreStage(card=card, generation=generation, model_id="m", model_revision="r", job=job).resources(
            cluster
        )

    assert asked(JobConfig(**{key: value})) != asked(JobConfig())


def test_what_the_workers_of_each_stage_take_is_as_set() -> None:
    job = JobConfig(
        cpus_per_sampler=2.0,
        sample_workers_min=2,
        sample_resources={"nas": 0.01},
        cpus_per_worker=3.0,
        score_workers=4,
        score_workers_min=2,
        gpus_per_worker=0.5,
        accelerator_type="H100",
        score_resources={"licence": 1.0},
    )
    cluster = {"CPU": 64.0, "GPU": 8.0}
    sampler = SampleStage(views=ViewsConfig(), settings="s", workers=6, job=job)
    assert sampler.resources(cluster) == Resources(workers=6, least=2, cpus=2.0, custom={"nas": 0.01})
    card, generation = ModelCard(source="a/b"), GenerationConfig()
    scorer = ScoreStage(card=card, generation=generation, model_id="m", model_revision="r", job=job)
    wanted = Resources(workers=4, least=2, cpus=3.0, gpus=0.5, accelerator_type="H100", custom={"licence": 1.0})
    assert scorer.resources(cluster) == wanted
    shared = EngineConfig(name="vllm", tensor_parallel=4)
    assert replace(scorer, engine=shared).resources(cluster) == replace(wanted, gpus=4.0)
    served = EngineConfig(name="endpoint", endpoints=("http://gpu1:8000/v1",))
    assert replace(scorer, engine=served).resources(cluster) == replace(wanted, gpus=0.0)
