"""What a teacher must have written to be learnt from, and facts in words."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file

from vqa.data.score_table import ScoreRow, ScoreTable
from vqa.errors import UsageError
from vqa.light import reasons
from vqa.light.config import TeacherConfig
from vqa.light.reasons import encode_texts, fact, grade, read_teacher


def written(out: Path, scores: list[float | None], **values: object) -> Path:
    """A run with these scores."""
    table = ScoreTable(out)
    same = {"status": "ok", "reason": "Blocks,\n everywhere.", "tier": "reason", "model_id": "m", "model_revision": "1"}
    for n, score in enumerate(scores):
        row = same | {"clip_id": f"{n}.png", "uri": f"/clips/{n}.png", "run_key": f"k{n}", "score": score} | values
        table.add([ScoreRow(**row)])  # type: ignore[arg-type]
    table.flush()
    return out


def test_scores_and_reasons_are_read_and_rows_without_are_not(tmp_path: Path) -> None:
    out = written(tmp_path, [1.5, None, 4.0])
    first, last = read_teacher(TeacherConfig(run=out, min_reasons=2))
    assert (first.clip.uri, first.score, first.reason) == ("/clips/0.png", 1.5, "Blocks, everywhere.")
    assert last.clip.clip_id == "2.png"


@pytest.mark.parametrize(
    ("scores", "values", "said"),
    [
        ([1.0, 2.0], {}, "2 of 2 rows have a score and a reason, fewer than 3. Score more clips with a model that"),
        ([1.0, 2.0, 3.0], {"reason": None}, "0 of 3 rows have a score and a reason"),
        ([1.0, 2.0, 3.0], {"tier": "light", "reason": "nearest basis: blur"}, "0 of 3 rows have"),
        ([2.5] * 5, {}, "all 5 scores are 2.5. Nothing can be learnt from one value"),
        ([12.0, 55.0, 80.0], {}, "scores from 12 to 80, another prompt's scale. Score the clips anew"),
    ],
)
def test_a_run_that_teaches_nothing_is_refused(
    tmp_path: Path, scores: list[float | None], values: dict[str, object], said: str
) -> None:
    out = written(tmp_path, scores, **values)
    with pytest.raises(UsageError) as caught:
        read_teacher(TeacherConfig(run=out, min_reasons=3))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_of_two_models_and_a_folder_without_a_run_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "a", [1.0, 2.0])
    table = ScoreTable(tmp_path / "a")
    table.add([ScoreRow(clip_id="x", uri="x", run_key="k", score=3.0, reason="x", model_id="n", model_revision="1")])
    table.flush()
    with pytest.raises(UsageError, match=r"rows of 2 models, m \(1\), n \(1\)\. Give a run of one"):
        read_teacher(TeacherConfig(run=tmp_path / "a", min_reasons=2))
    with pytest.raises(UsageError, match="holds no scores; give the --out folder"):
        read_teacher(TeacherConfig(run=tmp_path / "gone"))


def test_facts_in_words() -> None:
    assert [fact("pristine", 0), fact("gaussian_blur", 4)] == ["no visible damage", "strong gaussian blur"]
    words = ["bad quality", "poor quality", "poor quality", "fair quality", "excellent quality"]
    assert [grade(one) for one in (1.0, 2.4, 2.5, 2.6, 5.0)] == words


def test_an_encoder_that_is_not_there_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"text encoder .* cannot be loaded .*or null for MiniLM"):
        encode_texts(["blur"], str(tmp_path))
    monkeypatch.setattr(reasons, "PACKAGE", "no_such_package")
    with pytest.raises(
        UsageError, match=r"needs no-such-package, which is not installed\. Install it with `pip install"
    ):
        encode_texts(["blur"], None)


def test_texts_that_mean_the_same_lie_together() -> None:
    if find_spec(reasons.PACKAGE) is None:
        pytest.skip(f"{reasons.PACKAGE} is not installed")
    found = encode_texts(["strong gaussian blur", "the picture is badly blurred", "excellent quality"], None)
    assert found.shape == (3, 384)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0)
    likeness = found @ found.T
    assert likeness[0, 1] > likeness[0, 2] + 0.2


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """CLIP's text model with drawn weights, and a tokenizer whose words are letters, some joined."""
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    words = [*letters, *(f"{one}</w>" for one in letters), "bl", "blu", "blur</w>", "<|startoftext|>", "<|endoftext|>"]
    merges = [("b", "l"), ("bl", "u"), ("blu", "r</w>")]
    tokenizer = hf.CLIPTokenizer(vocab={word: n for n, word in enumerate(words)}, merges=merges)
    torch.manual_seed(0)
    config = hf.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        projection_dim=24,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
    )
    model = hf.CLIPTextModelWithProjection(config)
    with torch.no_grad():
        for weights in model.parameters():  # drawn as CLIP draws them, texts are hardly told apart
            weights.normal_(0, 0.3)
    model.save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def test_clips_text_encoder_gives_its_projection_of_each_text_by_itself(clip: Path) -> None:
    texts = ["blur", "strong blur", "a text of many more letters than positions"]
    found = encode_texts(texts, str(clip))
    assert found.shape == (3, 24)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0)
    model = hf.CLIPTextModelWithProjection.from_pretrained(clip).eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(clip)
    for row, text in zip(found, texts, strict=True):
        tokens = tokenizer([text], truncation=True, max_length=12, return_tensors="pt")
        assert tokens["input_ids"].shape == (1, {"blur": 3, "strong blur": 9}.get(text, 12))
        with torch.inference_mode():
            wanted = torch.nn.functional.normalize(model(**tokens).text_embeds[0], dim=0)
        np.testing.assert_allclose(row, wanted.numpy(), atol=1e-5)
    assert found[0] @ found[1] < 0.999


def test_a_text_encoder_that_is_pickled_alone_is_refused(clip: Path) -> None:
    torch.save(load_file(clip / "model.safetensors"), clip / "pytorch_model.bin")
    (clip / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"cannot be loaded .*model.safetensors") as caught:
        encode_texts(["blur"], str(clip))
    assert "\n" not in str(caught.value)
