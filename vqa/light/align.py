"""Align encoder features with texts of reasons: RALI's step 1 (arXiv 2510.11369).

The encoder stays as it was published; what is learnt is a linear map from its features into the space of the texts. The
paper tunes the encoder itself, on pictures of 100 times as many and on GPUs.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vqa.light.config import AlignConfig

Matrix = NDArray[np.float64]


def align(points: Matrix, text_of: NDArray[np.int64], texts: Matrix, config: AlignConfig) -> Matrix:
    """Fit a linear map into the space of texts.

    Args:
        points: [N, R] features of pictures.
        text_of: [N] which text each picture has.
        texts: [U, J] embeddings of texts, rows of length 1.
        config: Steps and rates.

    Returns:
        The map [R, J].
    """
    wanted = texts[text_of] - texts[text_of].mean(0)
    kernel = points.T @ points + config.ridge * len(points) * np.eye(points.shape[1])
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(config.seed)
        weights = torch.nn.Parameter(torch.from_numpy(np.linalg.solve(kernel, points.T @ wanted)).float())
        pictures, spoken = torch.from_numpy(points).float(), torch.from_numpy(texts).float()
        named = torch.from_numpy(text_of)
        middle = spoken.mean(0)
        optimiser = torch.optim.AdamW([weights], lr=config.learning_rate, weight_decay=config.weight_decay)
        for _ in range(config.steps):
            chosen = torch.randperm(len(pictures))[: config.batch]
            ids = named[chosen]
            optimiser.zero_grad()
            loss = contrastive_loss(
                pictures[chosen] @ weights, spoken[ids] - middle, ids, temperature=config.temperature
            )
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return np.asarray(weights.detach().double().numpy())


def contrastive_loss(pictures: Tensor, texts: Tensor, ids: Tensor, *, temperature: float) -> Tensor:
    """CLIP's two-way in-batch loss; pictures that share a text are no negatives.

    Args:
        pictures: [B, J].
        texts: [B, J], of each picture.
        ids: [B] equal where the texts are.
        temperature: Of the softmax over cosines.
    """
    alike = (ids[:, None] == ids[None]).to(pictures.dtype)
    target = alike / alike.sum(1, keepdim=True)
    logits = functional.normalize(pictures, dim=1) @ functional.normalize(texts, dim=1).T / temperature
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
