"""The statistics once more, by their definitions, in plain Python loops: what the quick ones are held against."""

import math
from collections.abc import Sequence
from itertools import combinations

Numbers = Sequence[float]


def ranks(values: Numbers) -> list[float]:
    return [sum(v < value for v in values) + (1 + sum(v == value for v in values)) / 2 for value in values]


def plcc(x: Numbers, y: Numbers) -> float:
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    dx, dy = [v - mean_x for v in x], [v - mean_y for v in y]
    below = math.sqrt(math.fsum(v * v for v in dx) * math.fsum(v * v for v in dy))
    return math.fsum(a * b for a, b in zip(dx, dy, strict=True)) / below


def srcc(x: Numbers, y: Numbers) -> float:
    return plcc(ranks(x), ranks(y))


def sign(value: float) -> int:
    return int(value > 0) - int(value < 0)


def orders(x: Numbers, y: Numbers) -> list[tuple[int, int]]:
    return [(sign(x[i] - x[j]), sign(y[i] - y[j])) for i, j in combinations(range(len(x)), 2)]


def krcc(x: Numbers, y: Numbers) -> float:
    pairs = orders(x, y)
    below = sum(a != 0 for a, _ in pairs) * sum(b != 0 for _, b in pairs)
    return sum(a * b for a, b in pairs) / math.sqrt(below)


def pairwise_accuracy(x: Numbers, y: Numbers) -> float:
    marks = [1.0 if a == b else 0.5 if a == 0 else 0.0 for a, b in orders(x, y) if b != 0]
    return sum(marks) / len(marks)


def rmse(x: Numbers, y: Numbers) -> float:
    return math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / len(x))


def mae(x: Numbers, y: Numbers) -> float:
    return math.fsum(abs(a - b) for a, b in zip(x, y, strict=True)) / len(x)


def auc(positive: Numbers, negative: Numbers) -> float:
    marks = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positive for n in negative]
    return sum(marks) / len(marks)
