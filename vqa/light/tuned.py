"""EfficientNet-Lite0 tuned end to end to what VMAF says of damaged crops.

RALI tunes its encoder last (arXiv 2510.11369, section 3); opinions of a few hundred pictures would only be learnt by
heart, damage can be made without end. From the moments of all stages, which are what an embedding has of a crop, a
linear map is to tell VMAF, its parts and the colours' difference; the map is fitted first, so that the encoder starts
from where it was. Its last stages, which tell contents, are held near what they were.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

from vqa import machine
from vqa.data.synthetic.patches import EDITION, Chunk, Read, draw_chunk
from vqa.data.synthetic.picture_ladder import find_pictures
from vqa.errors import UsageError
from vqa.files import replacing
from vqa.light.config import TunedConfig
from vqa.light.encoder import CHANNELS, EfficientNetLite0
from vqa.types import Pixels

_HELD_OUT = 0.1  # of the contents, for a look at what was learnt
_FITTED = 12  # chunks that the linear map is fitted to before the first step
_RIDGE = 3000.0
_WEIGHTS = (1.0, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25)  # of VMAF, ADM, VIF at four scales, CIEDE2000
_MOST = 6.0  # deviations from the mean that a feature counts for
_LATE = 2 * sum(CHANNELS[-3:])  # features that tell contents
_WARM_UP, _SAVED = 100, 250  # steps
_SHARPNESS = 12.0  # of the ranking loss, over VMAF / 100
_ALIKE = 0.05  # in VMAF / 100: crops that are not ranked
_EPSILON = 1e-5


class _Head(NamedTuple):
    """A linear map of standardised moments."""

    mean: Tensor  # [F]
    deviation: Tensor  # [F]
    weights: Tensor  # [F, 7]
    bias: Tensor  # [7]

    def __call__(self, features: Tensor) -> Tensor:
        """[N, F] -> [N, 7]."""
        return ((features - self.mean) / self.deviation).clamp(-_MOST, _MOST) @ self.weights + self.bias


def tuned_encoder(
    published: EfficientNetLite0,
    config: TunedConfig,
    cache: Path,
    *,
    read: Read,
    suffixes: frozenset[str],
    say: Callable[[str], None],
) -> EfficientNetLite0:
    """Tune a copy of the encoder from where it ended, or read what was tuned.

    Args:
        published: The encoder to start from.
        config: Contents, crops, steps.
        cache: Keeps crops, checkpoints and what comes of them.
        read: Gives a content's picture. Raises ClipError or UsageError. Processes are given it.
        suffixes: Of files that are contents.
        say: Takes a line on each step.

    Raises:
        UsageError: no contents, or none that is large enough.
    """
    sources = find_pictures(config.sources, suffixes=suffixes)
    drawn = (EDITION, [(one.name, one.stat().st_size) for one in sources], config.crops, config.seed)
    folder = cache / f"tuned-{_digest(drawn, config.model_dump_json(exclude={'sources', 'share'}))}"
    done = folder / "encoder.safetensors"
    network = deepcopy(published)
    if not done.is_file():
        order = np.random.default_rng(config.seed).permutation(len(sources)).tolist()
        held = max(1, round(_HELD_OUT * len(sources)))
        if len(sources) < 2:
            raise UsageError(f"tuned.sources: {len(sources)} picture. Give at least two, one to judge by.")
        parts = [[sources[k] for k in some] for some in (order[held:], order[:held])]
        learnt, judged = (
            _Crops(cache / f"crops-{_digest(drawn)}" / name, some, count, config=config, read=read)
            for name, some, count in zip(("learnt", "judged"), parts, (config.chunks, config.judged), strict=True)
        )
        _draw((learnt, judged), say)
        folder.mkdir(exist_ok=True)
        _train(network, config, learnt, judged, folder / "checkpoint.safetensors", say)
        with replacing(done) as draft:
            save_file({name: one.detach().contiguous() for name, one in network.state_dict().items()}, draft)
    # Between the two an encoder keeps more of what it could (Wortsman et al., arXiv 2109.01903).
    before, after = published.state_dict(), load_file(done)
    network.load_state_dict({name: torch.lerp(one, after[name], config.share) for name, one in before.items()})
    return network.eval().requires_grad_(False)


def _digest(*what: object) -> str:
    return hashlib.blake2b(repr(what).encode(), digest_size=12).hexdigest()


class _Crops:
    """Chunks of damaged crops on disk."""

    def __init__(self, folder: Path, sources: Sequence[Path], count: int, *, config: TunedConfig, read: Read) -> None:
        self._folder, self._sources, self.count, self._config, self._read = folder, sources, count, config, read

    @property
    def missing(self) -> list[int]:
        """Numbers of chunks that are not there yet."""
        return [number for number in range(self.count) if not self._path(number).is_file()]

    def make(self, number: int) -> None:
        """Draw one and keep it. Raises UsageError."""
        seed = self._config.seed
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            chunk = draw_chunk(self._sources, self._config.crops, seed=seed, number=number, read=self._read)
        except UsageError as error:
            raise UsageError(f"tuned.sources, contents that are {self._folder.name}: {error}") from error
        with replacing(self._path(number)) as draft, draft.open("wb") as file:
            np.savez(file, crops=chunk.crops, targets=chunk.targets)

    def __getitem__(self, number: int) -> Chunk:
        with np.load(self._path(number), allow_pickle=False) as found:
            return Chunk(found["crops"], found["targets"])

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05}.npz"


def _draw(crops: Sequence[_Crops], say: Callable[[str], None]) -> None:
    """Make what is not there yet, in a process a core."""
    wanted = [(one, number) for one in crops for number in one.missing]
    if len(wanted) <= machine.cores():  # a process takes as long to start
        for one in wanted:
            _make(one)
        return
    with ProcessPoolExecutor(machine.cores(), mp_context=get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(_make, wanted), 1):
            if done % 10 == 0:
                say(f"{done} of {len(wanted)} chunks of damaged crops")


def _make(wanted: tuple[_Crops, int]) -> None:
    crops, number = wanted
    crops.make(number)


def _train(
    network: EfficientNetLite0,
    config: TunedConfig,
    learnt: _Crops,
    judged: _Crops,
    checkpoint: Path,
    say: Callable[[str], None],
) -> None:
    """Tune in place."""
    before = deepcopy(network).eval()
    network.train().requires_grad_(True)
    head = _fit(before, [learnt[k] for k in range(min(_FITTED, learnt.count))])
    head.weights.requires_grad_(True)
    head.bias.requires_grad_(True)
    groups = [list(network.parameters()), [head.weights, head.bias]]
    rates = (config.learning_rate, 0.3 * config.learning_rate)
    optimizer = torch.optim.AdamW(
        [
            {"params": some, "weight_decay": decay}
            for some, decay in zip(groups, (config.weight_decay, 0.0), strict=True)
        ],
        betas=(0.9, 0.98),
    )
    done = _resume(checkpoint, network, head, optimizer)
    say(f"encoder: step {done} of {config.steps}, {_judge(network, head, judged)}")
    batches = _batches(learnt, config, start=done)
    for step, (crops, targets) in zip(range(done + 1, config.steps + 1), batches, strict=False):
        _loss(network, head, before, crops, targets, config).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        share = min(1.0, step / _WARM_UP) * (0.01 + 0.99 * (1 + np.cos(np.pi * step / config.steps)) / 2)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * share
        optimizer.step()
        optimizer.zero_grad()
        if step % _SAVED == 0 or step == config.steps:
            _save(checkpoint, network, head, optimizer, step)
            say(f"encoder: step {step} of {config.steps}, {_judge(network, head, judged)}")


def _batches(learnt: _Crops, config: TunedConfig, *, start: int) -> Iterator[tuple[Pixels, NDArray[np.float32]]]:
    """Crops and targets of each step from one on; every other turn mirrored."""
    step, groups = 0, math.ceil(learnt.count / config.shuffled)
    for turn in itertools.count():
        generator = np.random.default_rng([config.seed, turn])
        for some in np.array_split(generator.permutation(learnt.count), groups):
            each = len(some) * config.crops // config.batch
            order = generator.permutation(len(some) * config.crops)[: each * config.batch]
            step += each
            if step <= start:
                continue
            chunks = [learnt[int(k)] for k in some]
            crops, targets = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
            for chosen in np.split(order, each)[max(0, start - step + each) :]:
                yield (crops[chosen, :, ::-1] if turn % 2 else crops[chosen]), targets[chosen]


def _loss(
    network: EfficientNetLite0,
    head: _Head,
    before: EfficientNetLite0,
    crops: Pixels,
    targets: NDArray[np.float32],
    config: TunedConfig,
) -> Tensor:
    """Error to the targets, order of VMAF in the batch, and way of the late features."""
    wanted = torch.from_numpy(targets)
    features = _features(network, crops)
    told = head(features)
    error = functional.smooth_l1_loss(told, wanted, beta=0.1, reduction="none") * torch.tensor(_WEIGHTS)
    gap = wanted[:, None, 0] - wanted[None, :, 0]
    ranked = functional.softplus(-_SHARPNESS * torch.sign(gap) * (told[:, None, 0] - told[None, :, 0]))
    few = len(crops) // 4 or 1
    with torch.no_grad():
        was = _features(before, crops[:few])
    way = ((features[:few] - was) / head.deviation)[:, -_LATE:].square().clamp(max=25).mean()
    is_apart = gap.abs() > _ALIKE
    order = ranked[is_apart].mean() if bool(is_apart.any()) else ranked.sum() * 0
    return error.mean() + config.order * order + config.stay * way


def _features(network: EfficientNetLite0, crops: Pixels) -> Tensor:
    """Means and deviations of all stages, float32 [N, 2 * sum(CHANNELS)]."""
    pictures = torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        maps = [one.float() for one in network(pictures)]
    found = []
    for one in maps:  # the moments of an embedding are computed in place, which has no gradient
        mean = one.mean((2, 3))
        found += [mean, ((one - mean[..., None, None]).square().mean((2, 3)) + _EPSILON).sqrt()]
    return torch.cat(found, 1)


def _some(crops: Pixels) -> list[Pixels]:
    """As many at once as fit."""
    return np.array_split(crops, max(1, len(crops) // 32))


def _fit(network: EfficientNetLite0, chunks: Sequence[Chunk]) -> _Head:
    """A ridge regression on what the encoder gives."""
    with torch.no_grad():
        features = torch.cat([_features(network, one) for chunk in chunks for one in _some(chunk.crops)]).double()
    targets = torch.from_numpy(np.concatenate([chunk.targets for chunk in chunks])).double()
    mean, deviation, bias = features.mean(0), features.std(0) + 1e-3, targets.mean(0)
    rows = ((features - mean) / deviation).clamp(-_MOST, _MOST)
    weights = rows.T @ torch.linalg.solve(rows @ rows.T + _RIDGE * torch.eye(len(rows)), targets - bias)
    return _Head(mean.float(), deviation.float(), weights.float(), bias.float())


def _judge(network: EfficientNetLite0, head: _Head, crops: _Crops) -> str:
    """What is told of contents that nothing was learnt of, in words."""
    network.eval()
    with torch.no_grad():
        chunks = [crops[k] for k in range(crops.count)]
        told = torch.cat([head(_features(network, one)) for chunk in chunks for one in _some(chunk.crops)])
    network.train()
    wanted = np.concatenate([chunk.targets for chunk in chunks])
    explained = 1 - ((told.numpy() - wanted) ** 2).mean(0) / wanted.var(0)
    order = spearmanr(told[:, 0].numpy(), wanted[:, 0])[0]
    return (
        f"other contents' crops: R2 of VMAF {explained[0]:.3f}, of colour {explained[-1]:.3f}; SRCC of VMAF {order:.3f}"
    )


def _save(path: Path, network: nn.Module, head: _Head, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write all that goes on from a step."""
    moments = {
        f"optimizer.{k}.{name}": value
        for k, one in optimizer.state_dict()["state"].items()
        for name, value in one.items()
    }
    weights = {f"encoder.{name}": one for name, one in network.state_dict().items()}
    tensors = {**weights, "head.weights": head.weights, "head.bias": head.bias, **moments, "step": torch.tensor(step)}
    with replacing(path) as draft:
        save_file({name: one.detach().contiguous() for name, one in tensors.items()}, draft)


def _resume(path: Path, network: nn.Module, head: _Head, optimizer: torch.optim.Optimizer) -> int:
    """Read what `_save` wrote, if anything; the steps done."""
    if not path.is_file():
        return 0
    found = load_file(path)
    network.load_state_dict(
        {name.removeprefix("encoder."): one for name, one in found.items() if name[:8] == "encoder."}
    )
    with torch.no_grad():
        head.weights.copy_(found["head.weights"])
        head.bias.copy_(found["head.bias"])
    state: dict[int, dict[str, Tensor]] = {}
    for name, one in found.items():
        if name.startswith("optimizer."):
            _, k, part = name.split(".")
            state.setdefault(int(k), {})[part] = one
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(found["step"])
