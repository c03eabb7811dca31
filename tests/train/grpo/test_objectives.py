"""Terms of single papers against their formulas, and their registry; real updates are in test_objective_runs.py."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support import children
from tests.support.recipes import GRPO, small, written
from vqa.errors import UsageError
from vqa.train.grpo import objectives
from vqa.train.grpo.config import OBJECTIVES
from vqa.train.grpo.objective import AdvantageObjective, LossObjective, answer_means
from vqa.train.grpo.objectives.perception_kl import PerceptionKl, add_pixel_noise, perception_gain
from vqa.train.grpo.objectives.spread_filter import SpreadFilter
from vqa.train.grpo.objectives.uncertainty_weight import UncertaintyWeight
from vqa.train.grpo.objectives.zero_negative_advantages import ZeroNegativeAdvantages

NAN = float("nan")


def test_uncertainty_weight_by_hand() -> None:
    # Scores 1 and 5 have the variance 4 = 0.25 x 4^2, u = 1; equal ones have u = 0; 2 and 4 have 1, u = 1/4.
    scores = np.array([[1.0, 5.0], [3.0, 3.0], [2.0, 4.0], [NAN, 3.0], [NAN, NAN]])
    weights = UncertaintyWeight(kind="uncertainty_weight").weights(scores)
    np.testing.assert_allclose(weights[:, 0], [math.exp(-0.2), 1.0, math.exp(-0.05), 1.0, 1.0])


def test_groups_without_spread_do_not_count() -> None:
    weights = SpreadFilter(kind="spread_filter").weights(np.array([[1.0, 1.0], [1.0, 1.001], [1.0, 1.1]]))
    assert weights.ravel().tolist() == [0.0, 0.0, 1.0]


def test_nobody_is_blamed_beside_a_right_answer() -> None:
    advantages = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    right = np.array([[1.0, 0.0], [0.0, 0.0]])
    batch = SimpleNamespace(terms={"threshold": right, "format": np.ones((2, 2))})
    changed = ZeroNegativeAdvantages(kind="zero_negative_advantages").change_advantages(advantages, batch)  # type: ignore[arg-type]
    assert changed.tolist() == [[1.0, 0.0], [1.0, -1.0]]


def test_perception_gain_is_the_k3_divergence_over_written_tokens() -> None:
    seen, degraded = torch.log(torch.tensor([[0.5, 0.9]])), torch.log(torch.tensor([[0.25, 0.1]]))
    gain = perception_gain(seen, degraded, torch.tensor([[1, 0]]))
    assert gain.item() == pytest.approx(0.5 - math.log(0.5) - 1)
    assert perception_gain(seen, seen, torch.ones(1, 2)).item() == 0.0


def test_perception_weight_falls_to_nothing_by_epoch_five() -> None:
    perception = PerceptionKl(kind="perception_kl", weight=2.0)
    assert [perception.weight_at(epoch) for epoch in (0.0, 2.5, 5.0, 9.0)] == pytest.approx([2, 1, 0, 0])


def test_noisy_pixels_differ_by_their_sigma_and_repeat_by_seed() -> None:
    pixels = torch.zeros(200, 50)
    noisy = add_pixel_noise(pixels, sigma=0.3, seed=1)
    assert noisy.std().item() == pytest.approx(0.3, rel=0.05)
    assert torch.equal(noisy, add_pixel_noise(pixels, sigma=0.3, seed=1))


def test_the_mean_over_an_answer_takes_its_own_tokens() -> None:
    values, mask = torch.tensor([[1.0, 3.0], [5.0, 9.0]]), torch.tensor([[1, 1], [1, 0]])
    assert answer_means(values, mask).tolist() == [2, 5]


def test_every_file_of_the_folder_is_a_term_with_a_source() -> None:
    (folder,) = objectives.__path__
    files = {path.stem for path in Path(folder).glob("*.py")} - {"__init__"}
    assert set(OBJECTIVES) == files
    for kind, term in OBJECTIVES.items():
        assert issubclass(term, AdvantageObjective | LossObjective)
        assert term.model_fields["kind"].annotation.__args__ == (kind,)  # type: ignore[union-attr]
        assert "arXiv" in str(sys.modules[term.__module__].__doc__)


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ({"kind": "captoin_kl"}, "caption_kl"),
        ({"kind": "spread_filter", "min_sdt": 1}, "did you mean 'min_std'?"),
        ({"kind": "perception_kl", "weight": -1}, "greater than 0"),
        ({"kind": "caption_kl"}, "weight and tau are both 0; set one"),
        ({"kind": "caption_kl", "tau": 1.0}, "captions and objectives that need them (caption_kl) go together"),
    ],
)
def test_a_wrong_term_is_refused_by_name(tmp_path: Path, objective: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        written(tmp_path / "a.yaml", small(GRPO | {"objectives": [objective]}))
    assert words in str(caught.value) and "stage 'grpo'" in str(caught.value)


TOY = """
from typing import Literal
from vqa.train.grpo.objective import AdvantageObjective, Effect, LossObjective

class Toy(AdvantageObjective, LossObjective):
    kind: Literal["toy"]
    by: float = 2.0

    def change_advantages(self, advantages, batch):
        return advantages * self.by

    def apply(self, update):
        return Effect(loss=update.logps.sum() * 0 + self.by, metrics={"toy": self.by})
"""


def train_with_toy(folder: Path, said: Path) -> None:
    """What the child does: with our modules imported anew, where the folder of terms has one more file."""
    for name in [name for name in sys.modules if name.startswith(("vqa.train", "tests.support"))]:
        del sys.modules[name]
    spec = importlib.util.find_spec("vqa.train.grpo.objectives")
    assert spec and spec.loader and spec.submodule_search_locations is not None
    spec.submodule_search_locations.append(str(folder))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    from tests.support import rehearsal
    from tests.support.recipes import GRPO, small, written

    recipe = written(folder / "a.yaml", small(GRPO | {"objectives": [{"kind": "toy", "by": 3}]}))
    logs = []
    for terms in ([], [{"kind": "toy", "by": 3.0}]):
        settings = {"check_first_batch": False, "objectives": terms, "max_completion_length": 8}
        trainer = rehearsal.trainer(folder / str(len(terms)), its_model=rehearsal.narrow(), **settings)
        trainer.train()
        logs.append(trainer.state.log_history[0])
    found = [str(recipe.stages[0].objectives), logs[1]["loss"] - logs[0]["loss"], logs[1]["toy"]]  # type: ignore[union-attr]
    said.write_text(json.dumps(found))


def test_a_new_term_is_one_file_and_no_edit(tmp_path: Path) -> None:
    """In a process of its own."""
    (tmp_path / "toy.py").write_text(TOY)
    child = children.forked().Process(target=train_with_toy, args=(tmp_path, tmp_path / "said.json"))
    child.start()
    child.join()
    assert child.exitcode == 0
    terms, more_loss, toy = json.loads((tmp_path / "said.json").read_text())
    assert terms == "(Toy(kind='toy', by=3.0),)"
    assert (more_loss, toy) == (pytest.approx(3.0, abs=5e-4), 3.0)
