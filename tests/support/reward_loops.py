"""The published formulas as slow loops over single answers, written from the papers, to check the arrays against."""

import itertools
import math
import statistics

import numpy as np


def parsed(scores, i, j):
    return not math.isnan(scores[i][j])


def pairwise(scores, opinions, datasets, *, strict=False):
    """1.2 c, ranks met one to one; no unparsed answers."""
    clips, answers = scores.shape
    paid = np.zeros((clips, answers))
    for i in range(clips):
        order = sorted(range(answers), key=lambda j: scores[i][j])
        for k, j in enumerate(order):
            rewards = []
            for z in range(clips):
                if z == i or datasets[z] != datasets[i] or opinions[z] == opinions[i]:
                    continue
                s, t = scores[i][j], sorted(scores[z])[k]
                same = (s > t) == (opinions[i] > opinions[z]) and (s < t) == (opinions[i] < opinions[z])
                gap = abs(opinions[i] - opinions[z])
                m = gap / (gap + abs(s - opinions[i]) + abs(t - opinions[z]))
                rewards.append(math.sqrt(m) if same else 0.0 if strict else math.sqrt(1 - m))
            paid[i][j] = statistics.fmean(rewards) if rewards else 0.0
    return paid


def spread(values):
    """1.2 a."""
    return np.array([[0.5 * max(0.0, 0.5 - statistics.pstdev(v)) for v in group] for group in values.tolist()])


def balance(values, aspects):
    """1.2 b; unparsed answers are in no triple."""
    clips, answers = values.shape[:2]
    paid = np.zeros((clips, answers))
    for i in range(clips):
        there = [j for j in range(answers) if not np.isnan(values[i, j]).any()]
        gain = dict.fromkeys(there, 0)
        for triple in itertools.combinations(there, 3):
            for d in range(aspects):
                low, middle, high = sorted(triple, key=lambda j: values[i, j, d])
                median = values[i, middle, d]
                gain[middle] += 1
                gain[low] += abs(values[i, low, d] - median) < 0.05
                gain[high] += abs(values[i, high, d] - median) < 0.05
        triples = math.comb(len(there) - 1, 2) if there else 0
        for j in there:
            paid[i][j] = 0.5 * gain[j] / (triples * aspects) if triples else 0.0
    return paid


def triplet(scores, opinions, datasets):
    """1.2 d; a clip whose answer j was not parsed is no peer at j; NaN where an answer has fewer than two peers."""
    clips, answers = scores.shape
    paid = np.full((clips, answers), np.nan)
    for i, j in itertools.product(range(clips), range(answers)):
        if not parsed(scores, i, j):
            continue
        peers = [z for z in range(clips) if z != i and datasets[z] == datasets[i] and parsed(scores, z, j)]
        shares = []
        for a, b in itertools.combinations(peers, 2):
            right = [(scores[p][j] > scores[q][j]) == (opinions[p] > opinions[q]) for p, q in ((i, a), (a, b), (i, b))]
            shares.append(sum(right) / 3)
        if shares:
            paid[i][j] = statistics.fmean(shares)
    return paid


def fidelity(scores, opinions, datasets, *, ties_win=False):
    """2.1; unparsed answers left out."""
    clips, answers = scores.shape
    there = [[s for s in group if not math.isnan(s)] for group in scores]
    paid = np.zeros((clips, answers))
    for i, j in itertools.product(range(clips), range(answers)):
        rewards = []
        for z in range(clips):
            if z == i or datasets[z] != datasets[i] or not there[z] or not parsed(scores, i, j):
                continue
            variance = sum(statistics.variance(g) if len(g) > 1 else 0.0 for g in (there[i], there[z]))
            x = (scores[i][j] - statistics.fmean(there[z])) / math.sqrt(variance + 1e-6)
            p = 0.5 * math.erfc(-x / math.sqrt(2))
            tie = 1.0 if ties_win else 0.5
            wins = tie if opinions[i] == opinions[z] else float(opinions[i] > opinions[z])
            rewards.append(math.sqrt(p * wins + 1e-6) + math.sqrt((1 - p) * (1 - wins) + 1e-6))
        paid[i][j] = statistics.fmean(rewards) if rewards else 0.0
    return paid


def rank_to_truth(scores, opinions):
    """1.2 e; no unparsed answers."""
    clips, answers = scores.shape
    paid = np.zeros((clips, answers))
    for i, j in itertools.product(range(clips), range(answers)):
        ranked = sorted([*scores[i], opinions[i]])
        away = abs(ranked.index(scores[i][j]) - ranked.index(opinions[i]))
        hit = abs(scores[i][j] - opinions[i]) < 0.02
        paid[i][j] = 1.0 if hit else math.exp(-away / (answers + 1))
    return paid
