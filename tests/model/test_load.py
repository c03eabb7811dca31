"""A model is loaded whole and named exactly, or refused with a sentence that helps."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from tests.references.make_checkpoints import Family
from tests.support.samples import random_views
from vqa.errors import ModelError, UsageError
from vqa.model.card import GenerationConfig, ModelCard, find_card, settle
from vqa.model.encode import encode
from vqa.model.load import load_model
from vqa.model.resolve import EMBEDDED, locate_model
from vqa.model.scorer import Scorer


@pytest.fixture
def folder(checkpoint: Callable[[Family], Path], tmp_path: Path) -> Path:
    """A copy of a good checkpoint, to be spoilt."""
    return Path(shutil.copytree(checkpoint("qwen2_5_vl"), tmp_path / "model"))


def card(source: Path | str, **more: object) -> ModelCard:
    return ModelCard(source=str(source), device_map="cpu", **more)


# --- where a model is, and which one ----------------------------------------------------------------------------------


def test_a_folder_is_named_by_a_digest_of_what_answers_depend_on(folder: Path) -> None:
    before = locate_model(str(folder)).revision
    assert before.startswith("blake2b:")
    (folder / "README.md").write_text("a note")
    (folder / ".hidden.md").write_text("a note")
    assert locate_model(str(folder)).revision == before
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][0, 0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    changed = locate_model(str(folder)).revision
    assert changed != before
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert locate_model(str(folder)).revision not in (before, changed)
    moved = folder.rename(folder.with_name("moved"))
    shutil.copytree(moved, folder)
    assert locate_model(str(folder)).revision == locate_model(str(moved)).revision


@pytest.mark.parametrize("source", ["/no/such/folder", "./nothing", "nothing", "a/b/c"])
def test_a_folder_that_is_not_there_is_named(source: str) -> None:
    with pytest.raises(ModelError, match=f"{source}: no such folder"):
        locate_model(source)


def test_a_file_is_not_a_model(folder: Path) -> None:
    with pytest.raises(ModelError, match="a file; give the folder"):
        locate_model(str(folder / "model.safetensors"))


def test_a_folder_without_config_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        locate_model(str(folder))


def test_pickled_weights_are_refused(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is a pickle.*safetensors"):
        locate_model(str(folder))


def test_missing_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        locate_model(str(folder))
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"2 of 2 weight files missing: model-1"):
        locate_model(str(folder))
    (folder / "model.safetensors.index.json").write_text("{")
    with pytest.raises(ModelError, match="not an index"):
        locate_model(str(folder))


@pytest.mark.skipif((EMBEDDED / "config.json").is_file(), reason="it is there")
def test_a_missing_embedded_model_is_said_to_be_missing() -> None:
    with pytest.raises(ModelError, match="embedded model is not in"):
        locate_model("embedded")


def test_a_hub_model_is_pinned_to_the_commit_its_branch_names(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, home = "0123456789abcdef0123456789abcdef01234567", tmp_path / "home"
    cached = home / "hub" / "models--some--scorer"
    shutil.copytree(folder, cached / "snapshots" / commit)
    shutil.copytree(folder, cached / "snapshots" / commit / "video")
    drawn = {"temperature": 0.1, "top_k": 1, "repetition_penalty": 1.05}
    settings = cached / "snapshots" / commit / "video" / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | drawn))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    load = partial(Scorer.load, device_map="cpu", prompt="q_insight")
    scorer = load("some/scorer")
    assert (scorer.model_id, scorer.model_revision) == ("some/scorer", commit)
    inside = load("some/scorer", subfolder="video", top_k=50, folder_sampling=True)
    assert (inside.model_id, inside.model_revision) == ("some/scorer/video", commit)
    drawn_with = inside.generation
    found = (drawn_with.temperature, drawn_with.top_k, drawn_with.repetition_penalty)
    assert found == (0.1, 50, 1.05)  # top_k as given, the rest as the folder says
    refused = []
    for source, revision in (("some/scorer", "v2"), ("some/other", "main")):
        with pytest.raises(ModelError) as caught:
            load(source, revision=revision)
        refused.append(str(caught.value))
    assert refused[0].startswith("model some/scorer at revision v2: ")
    assert refused[1].startswith("model some/other at revision main: ")


# --- what is loaded ---------------------------------------------------------------------------------------------------


def test_incomplete_weights_are_refused_instead_of_filled_with_noise(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[next(name for name in weights if name.endswith("layers.1.mlp.down_proj.weight"))]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are not in its files, e\.g\. .*down_proj"):
        load_model(card(folder))


def test_a_head_tied_to_the_embedding_is_not_missing(folder: Path) -> None:
    model = hf.AutoModelForImageTextToText.from_pretrained(folder)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(folder)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    policy = load_model(card(folder))
    assert policy.model.lm_head.weight is policy.model.get_input_embeddings().weight


def test_damaged_weights_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"its weights cannot be read \(.*Copy or download them again"):
        load_model(card(folder))


def test_weights_of_another_size_than_the_config_says_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] *= 2
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"other sizes, e\.g\. .*mlp.* in the files, .* by the config"):
        load_model(card(folder))


def test_a_model_without_eyes_is_refused(tmp_path: Path) -> None:
    config = hf.Qwen2Config(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                            num_attention_heads=1, num_key_value_heads=1, bos_token_id=0, eos_token_id=0)  # fmt: skip
    hf.Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="qwen2 does not take pictures"):
        load_model(card(tmp_path))


def test_a_folder_of_something_unknown_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "something_else"}')
    with pytest.raises(ModelError, match="something_else"):
        load_model(card(folder))


def test_a_model_without_a_chat_template_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        load_model(card(folder))


def test_pixel_limits_reach_the_processor_or_are_refused(checkpoint: Callable[[Family], Path]) -> None:
    limits = {"min_pixels": 28 * 28, "max_pixels": 56 * 56}
    processor = load_model(card(checkpoint("qwen2_5_vl"), **limits)).processor
    picture = np.zeros((200, 200, 3), np.uint8)
    assert encode(processor, random_views("a", [picture]), prompt="q_insight")["pixel_values"].shape[0] == 16
    with pytest.raises(ModelError, match="has no min_pixels"):
        load_model(card(checkpoint("internvl"), **limits))


@pytest.mark.parametrize(("dtype", "kind"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_dtype_is_as_asked(dtype: str, kind: torch.dtype, checkpoint: Callable[[Family], Path]) -> None:
    model = load_model(card(checkpoint("qwen2_5_vl"), dtype=dtype)).model
    assert {weight.dtype for weight in model.parameters()} == {kind}
    assert not model.training


def test_a_device_that_is_not_there_is_refused(checkpoint: Callable[[Family], Path]) -> None:
    with pytest.raises(ModelError, match="model "):
        load_model(ModelCard(source=str(checkpoint("qwen2_5_vl")), device_map="cuda:99"))


# --- cards ------------------------------------------------------------------------------------------------------------


def test_every_card_is_valid_and_begins_with_its_command() -> None:
    folder = Path(__file__).parents[2] / "configs" / "models"
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    assert {
        "embedded",
        "qwen2.5-vl-3b-instruct",
        "qwen2.5-vl-7b-instruct",
        "visualquality-r1-7b",
        "preresiqa-r1",
    } <= set(names)
    for name in names:
        model, _ = settle(name, {})
        assert model.name == name
        first = (folder / f"{name}.yaml").read_text().splitlines()[0]
        command = {"score": "# vqa score ", "comparison": "# vqa compare-clips "}[model.task]
        assert first.startswith(command)
        assert f" --model {name}" in first


def test_a_model_is_named_by_card_file_folder_or_id(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("source: some/scorer\nprompt: q_insight\n")
    assert find_card(str(tmp_path / "mine.yaml"))["source"] == "some/scorer"
    assert find_card(str(folder))["source"] == str(folder)
    assert find_card("some/scorer") == {"name": "scorer", "source": "some/scorer"}
    with pytest.raises(UsageError, match="embedded"):
        find_card("unheard-of")


def test_a_card_s_generation_lies_under_the_overrides(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("source: some/scorer\ngeneration: {k: 3, temperature: 0.5}\n")
    _, generation = settle(str(path), {"k": 2, "dtype": "float32"})
    assert (generation.k, generation.temperature) == (2, 0.5)
    _, generation = settle(str(path), {"generation": {"top_k": 5}})
    assert (generation.k, generation.top_k) == (3, 5)
    _, generation = settle(str(path), {"generation": "sample", "k": 1})
    assert generation.is_sampled


def test_one_answer_is_greedy_and_more_are_sampled_unless_said() -> None:
    assert not GenerationConfig().is_sampled
    assert GenerationConfig(k=2).is_sampled
    assert GenerationConfig(generation="sample").is_sampled


# --- what a folder holds besides its model ----------------------------------------------------------------------------


def test_weights_that_would_not_be_used_are_refused_by_name(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    for extra, says in (
        ("model.language_model.layers.0.self_attn.q_proj.lora_A.weight", r"lora_A\.weight.*merge it"),
        ("score_head.weight", r"score_head\.weight.*remove them"),
    ):
        save_file(weights | {extra: torch.ones(2, 2)}, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match=f"1 tensors in its files are not of this model, e.g. .*{says}"):
            load_model(card(folder))


def test_an_adapter_is_applied_or_refused_never_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "adapter_config.json").write_text("{}")
    monkeypatch.setattr("vqa.model.resolve.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"adapter lies beside the weights.*vqa\[train\].*merge"):
        locate_model(str(folder))
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="an adapter without its base model"):
        locate_model(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"an adapter without its base model\..*merged folder"):
        locate_model(str(folder))


def test_a_folder_of_models_names_them(folder: Path) -> None:
    for name in ("checkpoint-10", "model"):
        shutil.copytree(folder, folder.parent / "run" / name)
    with pytest.raises(ModelError, match=r"models inside it\. Give one of them: .*run/checkpoint-10, .*run/model"):
        locate_model(str(folder.parent / "run"))


def test_attention_of_a_missing_package_in_the_config_is_no_hindrance(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_attn_implementation": "flash_attention_2"}))
    assert load_model(card(folder)).model.config._attn_implementation == "sdpa"
    assert load_model(card(folder, attention="eager")).model.config._attn_implementation == "eager"


def test_a_template_in_the_tokenizers_config_alone_is_used(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    policy = load_model(card(folder))
    assert encode(policy.processor, random_views("a"), prompt="preresq_video")["input_ids"].shape[0] == 1


def test_pixel_limits_that_contradict_each_other_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="min_pixels=900 is above max_pixels=400"):
        settle(str(folder), {"min_pixels": 900, "max_pixels": 400})
    path = next(one for one in folder.glob("*processor_config.json") if "shortest_edge" in one.read_text())
    values = json.loads(path.read_text())
    size = values.get("image_processor", values)
    size["size"] = {"shortest_edge": 10**6, "longest_edge": 3136}
    path.write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"pictures of at least 1000000 and at most 3136 pixels"):
        load_model(card(folder))


@pytest.mark.parametrize("size", [{"height": 448, "width": 448}, {"min_pixels": 3136, "max_pixels": 50176}, 448])
def test_sizes_under_other_keys_are_refused_at_load(folder: Path, size: object) -> None:
    path = next(one for one in folder.glob("*processor_config.json") if "shortest_edge" in one.read_text())
    values = json.loads(path.read_text())
    values.get("image_processor", values)["size"] = size
    path.write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"shortest_edge"):
        load_model(card(folder))


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "never_heard_of"])
def test_code_that_comes_with_weights_is_not_run(folder: Path, tmp_path: Path, model_type: str) -> None:
    mark = tmp_path / "has_run"
    for name in ("modeling_theirs", "configuration_theirs", "processing_theirs"):
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')\n", encoding="utf-8")
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = model_type
    config["auto_map"] = {
        "AutoConfig": "configuration_theirs.Config",
        "AutoModelForImageTextToText": "modeling_theirs.Model",
        "AutoProcessor": "processing_theirs.Processor",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if model_type == "qwen2_5_vl":  # a class that transformers itself has
        load_model(card(folder))
    else:
        with pytest.raises(ModelError, match="trust_remote_code"):
            load_model(card(folder))
    assert not mark.exists()
