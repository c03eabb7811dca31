"""Choice of who judges what next: training, hidden repeats, what tells most.

Ratings: of the clips that a subject has not rated, one with the fewest votes so far. Comparisons: the pair whose answer
tells most about the values, p (1 - p) times the variance of the difference under the Bradley-Terry fit of all votes
(the expected information, to first order): clips that little or nothing connects come first, pairs whose winner is
known anyway last. Of what votes leave equal, scores of a model may choose (`vqa.rate.doubt`): clips of the widest
score, pairs of the closest scores. Ties are broken at random by subject.
"""

import hashlib
import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vqa.config import Strict
from vqa.data.subjective.pairs import Comparisons
from vqa.data.subjective.strengths import fit_strengths
from vqa.errors import UsageError
from vqa.rate.journal import Journal, Vote
from vqa.rate.stimuli import Stimulus

NEAR_BEST = 0.9  # of the greatest gain or doubt: what tells nearly as much is drawn from at random
REPEAT_AFTER = 4  # votes between a clip and its hidden repeat, at least


class StudyConfig(Strict):
    """Settings of a study."""

    per_subject: int | None = Field(None, ge=1, description="judgements of a subject; null: every clip, or 60 pairs")
    training: int = Field(3, ge=0, le=20, description="judgements that a subject makes first and that do not count")
    repeats: float = Field(0.1, ge=0, le=0.5, description="hidden repeats as a share of the judgements")
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a subject is shown: one clip, or two; indices into the stimuli."""

    number: int
    first: int
    second: int | None
    training: bool
    repeat: bool


class RefusedVoteError(ValueError):
    """A vote that does not fit the study; the message says why."""


class Study:
    """Tasks and votes of any number of subjects at once."""

    def __init__(
        self,
        stimuli: Sequence[Stimulus],
        journal: Journal,
        config: StudyConfig,
        doubt: NDArray[np.float64] | None = None,
    ) -> None:
        """Join the stimuli and the journal.

        Args:
            stimuli: E clips.
            journal: Of the same clips.
            config: Settings.
            doubt: Of clips [E] or pairs [E, E], as `vqa.rate.doubt.doubts` finds it; None: votes alone decide.

        Raises:
            UsageError: If there are fewer than two clips.
        """
        if len(stimuli) < 2:
            raise UsageError(f"{len(stimuli)} clips can be shown, fewer than 2. Give more clips.")
        self.stimuli, self.journal, self.config, self.doubt = stimuli, journal, config, doubt
        self.place = {one.clip_id: at for at, one in enumerate(stimuli)}
        self.goal = config.per_subject or (len(stimuli) if journal.mode == "acr" else 60)
        if journal.mode == "acr":
            self.goal = min(self.goal, len(stimuli))
        else:
            self.goal = min(self.goal, math.comb(len(stimuli), 2))
        self.lock = threading.Lock()  # one vote, or one choice, at a time
        self._gains: tuple[int, NDArray[np.float64]] | None = None  # by number of votes

    def next(self, subject: str) -> Task | None:
        """Choose the next task of a subject; None when all are done."""
        with self.lock:
            mine = [vote for vote in self.journal.votes if vote.subject == subject]
            random = self._random(subject, len(mine))
            trained = sum(vote.training for vote in mine)
            if trained < self.config.training:
                order = self._random(subject, 0).permutation(len(self.stimuli))
                first, second = (int(order[(2 * trained + side) % len(order)]) for side in (0, 1))
                return self._task(mine, first, second, training=True)
            counted = [vote for vote in mine if not vote.training]
            fresh = [vote for vote in counted if not vote.repeat]
            again = self._repeat(counted, len(fresh), random)
            if again is not None:
                first, second = self.place[again.first], self.place[again.second or again.first]
                return self._task(mine, second, first, repeat=True)  # the sides of a pair change
            if len(fresh) >= self.goal:
                return None
            first, second = self._clip(fresh, random) if self.journal.mode == "acr" else self._pair(fresh, random)
            return self._task(mine, first, second)

    def vote(self, values: Mapping[str, object]) -> bool:
        """Record a vote; returns False if it was recorded before.

        Args:
            values: As a page sends them: the task as it was given, subject, value, seconds and scale.

        Raises:
            RefusedVoteError: If a value is out of range, or votes of the subject before it are missing.
        """
        with self.lock:
            vote = self._checked(values)
            count = sum(one.subject == vote.subject for one in self.journal.votes)
            if vote.number < count:
                return False  # sent again by a page that never got the answer
            if vote.number > count:
                raise RefusedVoteError(f"vote {vote.number + 1} of {vote.subject}, but {count} are recorded")
            self.journal.append(vote)
            return True

    def done(self, subject: str) -> int:
        """Number of the subject's votes that count, repeats left out."""
        return sum(vote.subject == subject and not vote.training and not vote.repeat for vote in self.journal.votes)

    def _checked(self, values: Mapping[str, object]) -> Vote:
        allowed = range(1, 6) if self.journal.mode == "acr" else (-1, 0, 1)
        value, number = values.get("value"), values.get("number")
        if type(value) is not int or value not in allowed or type(number) is not int or number < 0:
            raise RefusedVoteError(f"value {value!r} or number {number!r} is out of range")
        places = [values.get("first"), values.get("second")] if self.journal.mode == "pairs" else [values.get("first")]
        if not all(type(at) is int and 0 <= at < len(self.stimuli) for at in places) or len(set(places)) < len(places):
            raise RefusedVoteError(f"no such clips: {places}")
        names = [self.stimuli[at].clip_id for at in places if isinstance(at, int)]
        seconds, scale = (_number(values.get(name)) for name in ("seconds", "scale"))
        return Vote(
            subject=subject_name(values.get("subject")),
            number=number,
            first=names[0],
            second=names[1] if len(names) > 1 else None,
            value=value,
            training=values.get("training") is True,
            repeat=values.get("repeat") is True,
            seconds=round(seconds, 3),
            scale=round(scale, 4),
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )

    def _task(
        self, mine: Sequence[Vote], first: int, second: int, *, training: bool = False, repeat: bool = False
    ) -> Task:
        other = second if self.journal.mode == "pairs" else None
        return Task(number=len(mine), first=first, second=other, training=training, repeat=repeat)

    def _random(self, subject: str, number: int) -> np.random.Generator:
        digest = hashlib.blake2b(subject.encode(), digest_size=8).digest()
        return np.random.default_rng([self.config.seed, int.from_bytes(digest, "little"), number])

    def _repeat(self, counted: Sequence[Vote], fresh: int, random: np.random.Generator) -> Vote | None:
        made = len(counted) - fresh
        if made >= round(self.config.repeats * fresh):
            return None
        known = Counter(frozenset({vote.first, vote.second}) for vote in counted)
        early = [v for v in counted[:-REPEAT_AFTER] if known[frozenset({v.first, v.second})] == 1]
        return early[random.integers(len(early))] if early else None

    def _clip(self, fresh: Sequence[Vote], random: np.random.Generator) -> tuple[int, int]:
        votes = Counter(vote.first for vote in self.journal.votes if not vote.training and not vote.repeat)
        left = {one.clip_id for one in self.stimuli} - {vote.first for vote in fresh}
        least = min(votes[name] for name in left)
        thin = sorted(self.place[name] for name in left if votes[name] == least)
        if self.doubt is not None:
            thin = [thin[at] for at in _near_best(self.doubt[thin])]
        at = int(random.choice(thin))
        return at, at

    def _pair(self, fresh: Sequence[Vote], random: np.random.Generator) -> tuple[int, int]:
        gain = self._gain().copy()
        for vote in fresh:
            one, other = self.place[vote.first], self.place[str(vote.second)]
            gain[one, other] = gain[other, one] = -1
        near = np.argwhere(np.triu(gain, 1) >= NEAR_BEST * gain.max())
        if self.doubt is not None:
            near = near[_near_best(self.doubt[near[:, 0], near[:, 1]])]
        first, second = (int(at) for at in random.permutation(near[random.integers(len(near))]))
        return first, second

    def _gain(self) -> NDArray[np.float64]:
        """Gain of comparing each two clips [E, E]; fitted anew with 2 % more votes."""
        votes = [vote for vote in self.journal.votes if not vote.training]
        if self._gains is not None and len(votes) < 1.02 * self._gains[0] + 1:
            return self._gains[1]
        size = len(self.stimuli)
        if not votes:
            return np.ones((size, size))
        pairs = Comparisons(
            clips=tuple(one.clip_id for one in self.stimuli),
            subjects=(),
            first=np.array([self.place[vote.first] for vote in votes]),
            second=np.array([self.place[str(vote.second)] for vote in votes]),
            result=np.array([vote.value for vote in votes], np.int8),
            subject=np.zeros(len(votes), np.intp),
            count=np.ones(len(votes)),
        )
        found = fit_strengths(pairs, method="bradley-terry")
        covariance = np.linalg.inv(found.information)
        spread = covariance.diagonal()
        variance = spread[:, None] + spread - 2 * covariance
        won = 1 / (1 + np.exp(found.value - found.value[:, None]))
        self._gains = (len(votes), won * (1 - won) * variance)
        return self._gains[1]


def _near_best(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Places of values [N] that are at least NEAR_BEST of the greatest."""
    return np.flatnonzero(values >= NEAR_BEST * values.max())


def subject_name(given: object) -> str:
    """A name of 1 to 40 printable characters, trimmed. Raises RefusedVoteError."""
    name = given.strip() if isinstance(given, str) else ""
    if not 1 <= len(name) <= 40 or not name.isprintable():
        raise RefusedVoteError("a name needs 1 to 40 printable characters")
    return name


def task_values(task: Task, stimuli: Sequence[Stimulus]) -> dict[str, object]:
    """A task as the page gets it, without names, which would tell the distortion."""
    shown = [stimuli[at] for at in (task.first, task.second) if at is not None]
    media = [{"kind": one.kind, "width": one.width, "height": one.height} for one in shown]
    return asdict(task) | {"media": media}


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e6:
        raise RefusedVoteError(f"{value!r} is no duration or scale")
    return float(value)
