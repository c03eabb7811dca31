"""Terms of a reward that could pay nothing in a run stop it before anything is loaded, and say what they lack."""

from typing import Any

import pytest

from vqa.errors import UsageError
from vqa.train.grpo.build import check_terms
from vqa.train.grpo.config import GrpoSettings


def settings(reward: str, prompt: str, **more: Any) -> GrpoSettings:
    return GrpoSettings(**{"max_steps": 1, "reward": reward, "prompt": prompt} | more)


CASES = [
    ("format", settings("q_insight", "visualquality_r1"), {}, "'json', and prompt visualquality_r1 asks for 'numbers'"),
    ("format", settings("preresq_image", "q_insight"), {}, "Set prompt to preresq_video or preresq_image"),
    ("degradation", settings("q_insight", "q_insight"), {"has_damage": False}, "Give a ladder"),
    ("temporal", settings("vq_insight", "visualquality_r1", shared_prefill=False), {}, "Set shared_prefill: true"),
    ("temporal", settings("vq_insight", "visualquality_r1"), {"stills": ["koniq"]}, "koniq shows one. Give videos"),
    ("probability", settings("refine_iqa", "refine_iqa", shared_prefill=False), {}, "needs a second pass"),
]


@pytest.mark.parametrize(("term", "chosen", "data", "words"), CASES)
def test_a_silent_term_is_refused_unless_allowed(
    term: str, chosen: GrpoSettings, data: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=rf"term {term} of reward .* would be 0 throughout: .*{words}.*\[{term}\]"):
        check_terms(chosen, **data)
    check_terms(chosen.model_copy(update={"allow_silent": (term,)}), **data)


def test_terms_that_can_pay_are_not_refused() -> None:
    check_terms(settings("q_insight", "q_insight", reward_weights={"degradation": 0}), has_damage=False)
    check_terms(settings("vqathinker", "visualquality_r1", reward_weights={"temporal": 0}), stills=["koniq"])
    check_terms(settings("vqathinker", "visualquality_r1", reward_mode="released", vllm_mode="server"))
    check_terms(settings("refine_iqa", "refine_iqa", vllm_mode="colocate"))
    check_terms(settings("vqathinker", "visualquality_r1", vllm_mode="server"))
    check_terms(settings("q_insight", "q_insight"), has_damage=True)
    with pytest.raises(UsageError, match="allow_silent names temporal; reward cappo has regression, format"):
        check_terms(settings("cappo", "visualquality_r1", allow_silent=("temporal",)))
