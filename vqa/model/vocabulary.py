"""Roles of a tokenizer's tokens: ends of an answer, banned ones, digits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqa.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_DIGITS = "0123456789"
_PLACEHOLDER = re.compile(r"(image|video|vision|audio)\w*token_(id|index)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Token ids by role."""

    size: int  # columns of the logits
    ends: tuple[int, ...]
    pad: int
    banned: tuple[int, ...]  # ascending
    digits: tuple[int, ...]  # ids of tokens that are one digit and nothing else
    digit_values: tuple[int, ...]  # 0-9, for each of `digits`

    @classmethod
    def of(
        cls,
        tokenizer: "PreTrainedTokenizerBase",
        config: "PreTrainedConfig",
        *,
        size: int,
        ends: int | Sequence[int] | None,
    ) -> "Vocabulary":
        """Read the roles from a tokenizer and a model's config.

        Banned are placeholders of pictures (a model refuses its own text with one in it), special tokens except the
        ends (no part of an answer), and ids without a token.

        Args:
            tokenizer: of transformers.
            config: the model's, which names the placeholders.
            size: columns of the model's logits.
            ends: the generation config's eos_token_id; None: the tokenizer's.

        Raises:
            ModelError: no token ends an answer.
        """
        ends = tokenizer.eos_token_id if ends is None else ends
        ends = (ends,) if isinstance(ends, int) else tuple(ends or ())
        if not ends:
            raise ModelError("The model has no end-of-sequence token. Set eos_token_id in its generation_config.json.")
        words: dict[str, int] = tokenizer.get_vocab()
        special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
        banned = {
            *special,
            *tokenizer.all_special_ids,
            *_placeholders(config),
            *set(range(size)).difference(words.values()),
        }
        lone = {id: word.strip("Ġ▁ ") for word, id in words.items() if id < size}
        digits = {id: int(word) for id, word in sorted(lone.items()) if len(word) == 1 and word in _DIGITS}
        return cls(
            size=size,
            ends=ends,
            pad=ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
            banned=tuple(sorted(id for id in banned - set(ends) if 0 <= id < size)),
            digits=tuple(digits),
            digit_values=tuple(digits.values()),
        )

    @property
    def has_digits(self) -> bool:
        """Whether each of the ten digits has a token of its own."""
        return set(self.digit_values) == set(range(10))


def _placeholders(config: "PreTrainedConfig") -> set[int]:
    return {value for key, value in config.to_dict().items() if _PLACEHOLDER.fullmatch(key) and isinstance(value, int)}
