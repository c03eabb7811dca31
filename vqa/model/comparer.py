"""Comparison of two clips, asked in both orders, and ranking within a budget."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from vqa.errors import UsageError
from vqa.model.card import GenerationConfig, ModelCard, settle
from vqa.model.encode import encode_chat
from vqa.model.load import Policy, load_model
from vqa.model.question import check_askable, with_words
from vqa.model.resolve import with_folder_sampling
from vqa.model.rollout import Sampling, prefill, roll_out
from vqa.prompt import ChatTurn, reason
from vqa.types import Views

Winner = Literal["first", "second", "tie"]
_BLOCK = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Which of two clips looks better; undecided (None) unless both orders were read."""

    winner: Winner | None  # a tie too where the two orders contradict each other
    preference: float | None  # share of answers for the first, 0-1, ties half, mean over both orders
    is_swayed: bool | None  # whether the orders contradict each other: position decided
    answers_parsed: int
    answers_total: int
    reason: str


def read_choice(text: str, choices: Sequence[str]) -> int | None:
    """Index of the choice an answer names, whole or by last word (`B` of `Video B`)."""
    blocks = _BLOCK.findall(text)
    if len(blocks) != 1:
        return None
    said = " ".join(blocks[0].split()).strip("*'\"`. ").lower()
    names = [{choice.lower(), choice.lower().split()[-1]} for choice in choices]
    found = [place for place, one in enumerate(names) if said in one]
    return found[0] if len(found) == 1 else None


class Comparer:
    """Loaded comparison model: `Comparer.load(name).compare(views, other).winner`."""

    def __init__(self, policy: Policy, *, card: ModelCard, generation: GenerationConfig) -> None:
        """Wrap a loaded model; `Comparer.load` also loads it."""
        self.card = card
        self.generation = with_folder_sampling(generation, policy.location)
        self._policy = policy

    @classmethod
    def load(cls, source: str, **overrides: object) -> Self:
        """Load a model; `source` and `overrides` as `Scorer.load`.

        Raises:
            UsageError: an unknown card or key, another task, or no question.
            ModelError: the model cannot be loaded.
        """
        card, generation = settled(source, overrides)
        return cls(load_model(card), card=card, generation=generation)

    def compare(self, first: Views, second: Views, *, reference: Views | None = None) -> Verdict:
        """Ask in both orders, so that what stands first has no advantage.

        Raises:
            UsageError: a reference is missing, or is not shown to this model.
        """
        check_reference(self.card, is_given=reference is not None)
        there, read_there = self._ask(first, second, reference)
        back, read_back = self._ask(second, first, reference)
        shares = there, [1 - share for share in back]
        parsed, total = len(there) + len(back), 2 * self.generation.k
        why = (read_there or read_back or [""])[0]
        if not all(shares):
            nothing = dict.fromkeys(("winner", "preference", "is_swayed"))
            return Verdict(**nothing, answers_parsed=parsed, answers_total=total, reason=why)
        one, other = (sum(share) / len(share) - 0.5 for share in shares)
        winner: Winner = "first" if min(one, other) > 0 else "second" if max(one, other) < 0 else "tie"
        return Verdict(
            winner=winner,
            preference=0.5 + (one + other) / 2,
            is_swayed=one * other < 0,
            answers_parsed=parsed,
            answers_total=total,
            reason=why,
        )

    def _ask(self, first: Views, second: Views, reference: Views | None) -> tuple[list[float], list[str]]:
        """Share for the clip shown first (1, 0, 0.5) and reasoning, per readable answer."""
        card, generation, policy = self.card, self.generation, self._policy
        shown = ([(card.intro or "Reference:", reference)] if reference else []) + [
            (f"{choice}:", views) for choice, views in zip(card.answer.choices, (first, second), strict=False)
        ]
        content: list[dict[str, str]] = []
        for label, views in shown:
            kinds = ["video"] if card.modality == "video" else ["image"] * len(views.pictures)
            content += [{"type": "text", "text": label}, *({"type": kind} for kind in kinds)]
        content.append({"type": "text", "text": card.question or ""})
        chat: list[ChatTurn] = [{"role": "user", "content": content}]
        if card.system is not None:
            chat.insert(0, {"role": "system", "content": [{"type": "text", "text": card.system}]})
        if card.modality == "video":
            inputs = encode_chat(policy.processor, chat, [], videos=[views.global_pictures for _, views in shown])
        else:
            inputs = encode_chat(policy.processor, chat, [one for _, views in shown for one in views.pictures])
        names = f"{first.clip.clip_id}\0{second.clip.clip_id}"
        (rollouts,) = roll_out(
            policy.model,
            [prefill(policy.model, inputs)],
            k=generation.k,
            vocabulary=policy.vocabulary,
            max_new_tokens=generation.max_new_tokens,
            seeds=[_seed(generation.seed, names, k) for k in range(generation.k)] if generation.is_sampled else None,
            sampling=Sampling(
                temperature=generation.temperature,
                top_p=generation.top_p,
                top_k=generation.top_k,
                repetition_penalty=generation.repetition_penalty,
            ),
        )
        texts = [str(policy.processor.tokenizer.decode(one.tokens, skip_special_tokens=True)) for one in rollouts]
        read = [(read_choice(text, card.answer.choices), text) for text in texts]
        worth = {0: 1.0, 1: 0.0, 2: 0.5}
        return [worth[choice] for choice, _ in read if choice is not None], [
            reason(text) for choice, text in read if choice is not None
        ]


def settled(source: str, overrides: dict[str, object]) -> tuple[ModelCard, GenerationConfig]:
    """Card of task `comparison` with its words; UsageError where it cannot be asked."""
    card, generation = settle(source, overrides)
    card = with_words(card)
    check_askable(card, task="comparison")
    if not card.answer.choices:
        raise UsageError(f"model {card.name}: its card names no choices; set answer.choices to what it answers with")
    return card, generation


def check_reference(card: ModelCard, *, is_given: bool) -> None:
    """Raise UsageError where a reference is missing, or is not shown to the model."""
    if card.reference and not is_given:
        raise UsageError(f"model {card.name}: compares two clips beside a reference; give --reference")
    if is_given and not card.reference:
        raise UsageError(f"model {card.name}: is shown no reference; leave --reference out")


def rank(count: int, better: Callable[[int, int], Winner | None], *, budget: int) -> list[list[int]]:
    """Rank things by comparisons within a budget, largest undecided group first.

    Each round compares a group with one of it, as quicksort does, and splits it into better, as good, worse. A
    comparison without an answer counts as a tie.

    Args:
        count: of the things.
        better: which of two is better, by their numbers.
        budget: comparisons at most, at least count - 1.

    Returns:
        Groups of numbers, best first; those within a group could not be told apart.

    Raises:
        UsageError: the budget is too small for one round.
    """
    if budget < count - 1:
        raise UsageError(f"--budget {budget}: {count} clips take at least {count - 1} comparisons")
    groups, equals, left = [list(range(count))], [False], budget
    while True:
        open_ = [p for p, group in enumerate(groups) if not equals[p] and 1 < len(group) <= left + 1]
        if not open_:
            return groups
        place = max(open_, key=lambda p: len(groups[p]))
        group = groups[place]
        pivot = group[len(group) // 2]
        found = {other: better(other, pivot) for other in group if other != pivot}
        left -= len(found)
        parts = [
            [other for other in group if found.get(other) == "first"],
            [other for other in group if found.get(other) not in ("first", "second")],
            [other for other in group if found.get(other) == "second"],
        ]
        kept = [(part, is_equal) for part, is_equal in zip(parts, (False, True, False), strict=True) if part]
        groups[place : place + 1] = [part for part, _ in kept]
        equals[place : place + 1] = [is_equal for _, is_equal in kept]


def _seed(seed: int, names: str, rollout: int) -> int:
    text = f"{seed}\0{names}\0{rollout}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
