"""K answers per prompt from one prefill, all rows decoded together.

    clip a: pictures + question --> cache a, 7 tokens     ..aaaaaaa1111     rows of one batch: caches end at the same
    clip b: pictures + question --> cache b, 9 tokens     bbbbbbbbb2222     column, answers follow; dots are masked

Prompts never share a forward pass, so a clip's prefill cannot depend on its neighbours. Rows share the matrix products
of the tokens they generate, which may differ in the last bit; a token differs only where two are as good as tied.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from vqa.model._compat import attention_of, position_ids
from vqa.model.transfer import to_device
from vqa.model.vocabulary import Vocabulary

if TYPE_CHECKING:  # loaded with the model, not before
    from transformers import BatchFeature, PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Settings of sampling, as in `vqa.model.card.GenerationConfig`."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    repetition_penalty: float = 1.0  # of greedy answers too


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One generated answer."""

    tokens: list[int]  # without the end
    is_finished: bool  # whether it came to an end
    digit_logits: Tensor | None  # float32 [tokens, digits], on the CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """The state of a model after a prompt."""

    cache: Cache
    tokens: Tensor  # [1, length]: of the prompt
    logits: Tensor  # float32 [1, vocabulary]: of the next token
    positions: Tensor  # [..., 1, 1]: of the last token, as many as the family uses (Qwen: text, time, height, width)

    @property
    def length(self) -> int:
        """Tokens in the prompt."""
        return int(self.cache.get_seq_length())

    @property
    def bytes(self) -> int:
        """Memory of keys and values."""
        layers: list[Any] = list(self.cache.layers)
        return sum(part.nbytes for one in layers for part in (one.keys, one.values) if isinstance(part, Tensor))


@torch.no_grad()  # not inference_mode: FSDP would keep such tensors for the update; 1 % slower
def prefill(model: "PreTrainedModel", inputs: "BatchFeature") -> Prefill:
    """Run pictures and question of one clip through the model, once.

    Args:
        model: an image-text-to-text model of transformers, in eval mode.
        inputs: the processor's tensors for the clip; see `vqa.model.encode.encode`.
    """
    tensors: dict[str, Tensor] = dict(to_device(inputs, model.device, model.dtype))
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    positions = position_ids(model, tensors)
    # Without a mask, as there is no padding: attention may then use its causal kernel.
    tensors.pop("attention_mask", None)
    out = model(**tensors, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits = out.logits[:, -1].float().to(model.device)
    return Prefill(cache=cache, tokens=tensors["input_ids"], logits=logits, positions=positions[..., -1:])


@torch.no_grad()
def roll_out(
    model: "PreTrainedModel",
    prompts: Sequence[Prefill],
    *,
    k: int,
    vocabulary: Vocabulary,
    max_new_tokens: int,
    seeds: Sequence[int] | None = None,
    sampling: Sampling | None = None,
    keep_digits: bool = False,
    step: Callable[..., Any] | None = None,
) -> list[list[Rollout]]:
    """Generate K answers for each of N prompts, greedily or by sampling.

    A token is sampled by adding Gumbel noise to the logits and taking the largest (Gumbel-max: the same distribution as
    drawing from the softmax). The noise comes from the row's own generator, so its neighbours cannot change it.

    Args:
        model: an image-text-to-text model of transformers, in eval mode.
        prompts: N; their caches are consumed.
        k: answers per prompt.
        vocabulary: of the model.
        max_new_tokens: per answer.
        seeds: N x K, those of a prompt side by side; None for greedy answers.
        sampling: used with seeds, its repetition penalty without them too.
        keep_digits: whether to keep the logits of digits.
        step: called for each next token in place of the model, such as the model compiled.

    Returns:
        N lists of K rollouts.
    """
    if len(prompts) > 1 and not all(_is_plain(prompt.cache) for prompt in prompts):
        # Sliding windows and recurrent states cannot be padded on the left: one clip after another.
        each = [None] * len(prompts) if seeds is None else [seeds[k * i : k * (i + 1)] for i in range(len(prompts))]
        alone = partial(
            roll_out,
            model,
            k=k,
            vocabulary=vocabulary,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            keep_digits=keep_digits,
            step=step,
        )
        return [alone([prompt], seeds=own)[0] for prompt, own in zip(prompts, each, strict=True)]
    used = max(prompt.length for prompt in prompts)  # columns; read before the prompts' caches are emptied
    cache, mask = _laid_out(model, prompts, k=k, room=max_new_tokens)
    logits = torch.cat([prompt.logits for prompt in prompts]).repeat_interleave(k, dim=0)
    positions = torch.cat([prompt.positions for prompt in prompts], dim=-2).repeat_interleave(k, dim=-2)
    rows = torch.arange(len(logits), device=logits.device)  # the answer of each row of the batch
    written = torch.full((len(rows), max_new_tokens), vocabulary.pad, device=logits.device)
    lengths = torch.full_like(rows, max_new_tokens)
    finished = torch.zeros_like(rows, dtype=torch.bool)
    penalty = sampling.repetition_penalty if sampling else 1.0
    used_tokens = _used(prompts, k=k, size=logits.shape[-1]) if penalty != 1 else None
    banned, ends, digits = (
        torch.tensor(ids, device=logits.device, dtype=torch.long)
        for ids in (vocabulary.banned, vocabulary.ends, vocabulary.digits)
    )
    digit_logits: list[Tensor] = []
    generators = None if seeds is None else [torch.Generator(logits.device).manual_seed(s) for s in seeds]
    run = model if step is None else step
    for place in range(max_new_tokens):
        logits[:, banned] = -torch.inf
        if keep_digits:
            kept = torch.zeros(len(written), len(digits), device=logits.device)
            kept[rows] = logits[:, digits]
            digit_logits.append(kept)
        if used_tokens is not None:
            logits = _penalised(logits, used_tokens[rows], penalty)
        if generators is not None:
            logits = _perturbed(logits, sampling or Sampling(), [generators[row] for row in rows.tolist()])
        token = logits.argmax(dim=-1)
        newly = torch.isin(token, ends)
        lengths[rows[newly]] = place
        written[rows, place] = token
        if used_tokens is not None:
            used_tokens[rows, token] = True
        finished[rows] = newly
        going = (~newly).nonzero().flatten()
        if len(going) == 0 or place == max_new_tokens - 1:
            break
        if len(going) < len(rows):  # rows that are done leave the batch
            rows, token, positions = rows[going], token[going], positions.index_select(-2, going)
            mask = None if mask is None else mask[going]
            cache.reorder_cache(going)
        positions = positions + 1
        used += 1
        seen = None if mask is None else _shaped(model, mask[:, :used])
        inputs = {"input_ids": token[:, None], "position_ids": positions, "attention_mask": seen}
        logits = run(**inputs, past_key_values=cache, use_cache=True).logits[:, -1].float().to(model.device)
    kept_digits = torch.stack(digit_logits, dim=1).cpu() if keep_digits else None
    ended, counts, tokens = finished.tolist(), lengths.tolist(), written.tolist()
    answers = [
        Rollout(
            tokens=tokens[row][: counts[row]],
            is_finished=ended[row],
            digit_logits=None if kept_digits is None else kept_digits[row, : counts[row]],
        )
        for row in range(len(tokens))
    ]
    return [answers[k * i : k * (i + 1)] for i in range(len(prompts))]


def _used(prompts: Sequence[Prefill], *, k: int, size: int) -> Tensor:
    """Bool [rows, vocabulary]: the tokens of each row's prompt."""
    used = torch.zeros(len(prompts), size, dtype=torch.bool, device=prompts[0].logits.device)
    for row, prompt in zip(used, prompts, strict=True):
        row[prompt.tokens[0].to(row.device)] = True
    return used.repeat_interleave(k, dim=0)


def _penalised(logits: Tensor, used: Tensor, penalty: float) -> Tensor:
    """Repetition penalty of CTRL (arXiv 1909.05858) on used tokens, as in `generate`."""
    return torch.where(used, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def _perturbed(logits: Tensor, sampling: Sampling, generators: Sequence[torch.Generator]) -> Tensor:
    """Logits [rows, vocabulary]: tempered, cut to top-k and top-p, plus Gumbel noise."""
    logits = logits / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, places = logits.sort(dim=-1, descending=True)
        chances = ordered.softmax(dim=-1)
        beyond = chances.cumsum(dim=-1) - chances >= sampling.top_p  # the first always stays
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, places, beyond), -torch.inf)
    noise = torch.empty_like(logits)
    for row, generator in zip(noise, generators, strict=True):
        row.exponential_(generator=generator)
    return logits - noise.log()


class _Row(DynamicLayer):
    """Cache layer with preallocated room, in which a token is written in place.

    DynamicLayer copies all keys and values per token (https://github.com/huggingface/transformers/pull/30536);
    StaticCache attends over its whole length.
    """

    def __init__(self, keys: Tensor, values: Tensor, used: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._keys, self._values, self._used = keys, values, used
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._show()

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        start, self._used = self._used, self._used + key_states.shape[-2]
        self._keys[..., start : self._used, :] = key_states
        self._values[..., start : self._used, :] = value_states
        return self._show()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        rows = beam_idx.to(self.device)
        self._keys, self._values = self._keys[rows], self._values[rows]
        self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        keys, values = self._keys[..., : self._used, :], self._values[..., : self._used, :]
        self.keys, self.values = keys, values
        return keys, values


def _is_plain(cache: Cache) -> bool:
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def _laid_out(model: "PreTrainedModel", prompts: Sequence[Prefill], *, k: int, room: int) -> tuple[Any, Tensor | None]:
    """Caches with `k` rows per prompt, right-aligned, and the mask of the padding."""
    caches: list[Any] = [prompt.cache for prompt in prompts]  # `reorder_cache` is typed for LongTensor alone
    lengths = [prompt.length for prompt in prompts]
    if not all(_is_plain(cache) for cache in caches):
        (cache,) = caches
        cache.reorder_cache(torch.zeros(k, dtype=torch.long, device=model.device))  # k times the only row
        return cache, None
    longest, rows = max(lengths), k * len(prompts)
    laid_out = Cache(layers=[_Row(*pair, longest) for pair in _merged(caches, lengths, k=k, room=room)])
    if min(lengths) == longest:
        return laid_out, None
    mask = torch.ones(rows, longest + room, dtype=torch.bool, device=prompts[0].logits.device)
    for i, length in enumerate(lengths):
        mask[k * i : k * (i + 1), : longest - length] = False
    return laid_out, mask


def _merged(caches: Sequence[Cache], lengths: Sequence[int], *, k: int, room: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Keys and values [rows, heads, longest + room, width] of each layer."""
    longest = max(lengths)
    for index in range(len(caches[0].layers)):
        layers = [cache.layers[index] for cache in caches]
        pair = []
        for name in ("keys", "values"):
            parts = [getattr(layer, name) for layer in layers]
            _, heads, _, width = parts[0].shape
            # Zeros: what is masked must still be finite, or it spoils the sums.
            buffer = parts[0].new_zeros(k * len(parts), heads, longest + room, width)
            for i, (part, length) in enumerate(zip(parts, lengths, strict=True)):
                buffer[k * i : k * (i + 1), :, longest - length : longest] = part
            pair.append(buffer)
        for layer in layers:
            layer.reset()  # its memory is free for the next layer's buffer
        yield pair[0], pair[1]


def _shaped(model: "PreTrainedModel", mask: Tensor) -> Tensor:
    """Mask [rows, columns] as the attention takes it, so that no step converts it."""
    attention = attention_of(model)
    if attention == "sdpa":
        return mask[:, None, None, :]
    if attention == "eager":
        zero = torch.zeros((), dtype=model.dtype, device=mask.device)
        return torch.where(mask, zero, torch.finfo(model.dtype).min)[:, None, None, :]
    return mask.long()
