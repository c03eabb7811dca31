"""Votes on disk: a journal with a flushed line per vote, and the table from it.

The first line names the study: mode, seed, token and the clips with the digests of their content. A line that was cut
off by a crash is the last one and was never acknowledged; it is removed.
"""

import io
import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from vqa.data.cells import SafeWriter
from vqa.errors import UsageError, first_few
from vqa.files import no_link, replacing, sync_folder

Mode = Literal["acr", "pairs"]
COLUMNS: dict[str, tuple[str, ...]] = {
    "acr": ("clip", "subject", "rating", "repeat", "seconds", "scale", "at"),
    "pairs": ("first", "second", "result", "subject", "repeat", "seconds", "scale", "at"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One judgement: of two clips 1 (first better), -1 or 0; of one clip 1 to 5."""

    subject: str
    number: int  # of the subject's votes, from 0, training included
    first: str  # clip_id; shown on the left
    second: str | None
    value: int
    training: bool
    repeat: bool  # shown before to the same subject, who is not told
    seconds: float  # from when it was shown
    scale: float  # pixels of the screen per pixel of the clip, 1 for native size
    at: str  # UTC, ISO 8601


class Journal:
    """The votes of a study, on disk before they are acknowledged."""

    def __init__(
        self,
        out: Path,
        *,
        mode: Mode,
        seed: int,
        clips: Mapping[str, str],
        before_write: Callable[[], None] = lambda: None,
    ) -> None:
        """Open or start the journal of `out`.

        Args:
            out: The table of votes (.csv); the journal is `NAME.journal.jsonl` beside it.
            mode: Kind of the votes.
            seed: Of the study.
            clips: Digest of the content by clip_id.
            before_write: Raises where another process has begun to write it. One process holds `out`: see
                `jobs.signals.locked_by`.

        Raises:
            UsageError: If the journal is of other clips, another mode or seed, damaged or a link; or if `out` has
                votes but no journal.
        """
        self.out, self.mode, self._before_write = out, mode, before_write
        self.path = out.with_name(f"{out.stem}.journal.jsonl")
        self.votes: list[Vote] = []
        if out.exists() and not self.path.exists():
            raise UsageError(
                f"{out} exists, but not its journal {self.path.name}. Give another --out, or move it away."
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        self._file = no_link(str(self.path), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)  # it holds the token
        try:
            self.token = self._resume(mode, seed, clips)
        except BaseException:
            self.close()
            raise
        self.write_table()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def append(self, vote: Vote) -> None:
        """Flush a vote to disk, then rewrite the table."""
        self._line(asdict(vote))
        self.votes.append(vote)
        self.write_table()

    def write_table(self) -> None:
        """Write the votes that count (no training) as CSV, atomically."""
        text = io.StringIO(newline="")
        writer = SafeWriter(text)
        writer.writerow(COLUMNS[self.mode])
        for vote in self.votes:
            if not vote.training:
                values = asdict(vote) | {"clip": vote.first, "rating": vote.value, "result": vote.value}
                values["repeat"] = str(vote.repeat).lower()
                writer.writerow([values[name] for name in COLUMNS[self.mode]])
        with replacing(self.out) as draft:
            draft.write_text(text.getvalue(), encoding="utf-8")

    def _resume(self, mode: Mode, seed: int, clips: Mapping[str, str]) -> str:
        with open(self._file, "rb", closefd=False) as file:
            text = file.read()
        whole, _, torn = text.rpartition(b"\n")
        if torn:
            os.ftruncate(self._file, len(text) - len(torn))
        lines = whole.decode("utf-8").splitlines() if whole else []
        if not lines:
            token = secrets.token_urlsafe(24)
            self._line({"mode": mode, "seed": seed, "token": token, "clips": dict(clips)})
            sync_folder(self.path.parent)
            return token
        try:
            start = json.loads(lines[0])
            known = {one.name for one in fields(Vote)}
            self.votes = [Vote(**{k: v for k, v in json.loads(line).items() if k in known}) for line in lines[1:]]
            self._refuse_other(start, mode, seed, clips)
            return str(start["token"])
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(f"{self.path} is no journal of vqa rate ({error}). Give another --out.") from error

    def _refuse_other(self, start: Mapping[str, object], mode: Mode, seed: int, clips: Mapping[str, str]) -> None:
        for name, asked in (("mode", mode), ("seed", seed)):
            if start[name] != asked:
                raise UsageError(f"{self.path}: was begun with --{name} {start[name]}. Give that, or another --out.")
        before = start["clips"]
        if before != dict(clips):
            known = before if isinstance(before, dict) else {}
            others = sorted({name for name in {*known, *clips} if known.get(name) != clips.get(name)})
            raise UsageError(
                f"{self.path}: holds votes on other clips; {len(others)} differ: {first_few(others, most=3)}. Give the "
                "same clips, or another --out."
            )

    def _line(self, values: Mapping[str, object]) -> None:
        self._before_write()
        line = (json.dumps(values, ensure_ascii=True) + "\n").encode()
        if os.write(self._file, line) != len(line):
            raise OSError(f"{self.path}: the disk took part of a vote")
        os.fsync(self._file)


def count_hidden_repeats(votes: Sequence[Vote]) -> dict[str, tuple[int, int]]:
    """Count hidden repeats by subject: answered alike (ratings: within 1), and all."""
    seen: dict[tuple[str, frozenset[str]], Vote] = {}
    found: dict[str, tuple[int, int]] = {}
    for vote in votes:
        key = (vote.subject, frozenset({vote.first, vote.second or vote.first}))
        if vote.training:
            continue
        if vote.repeat and key in seen:
            before = seen[key]
            again = vote.value if vote.first == before.first else -vote.value
            same, total = found.get(vote.subject, (0, 0))
            close = again == before.value if vote.second else abs(again - before.value) <= 1
            found[vote.subject] = (same + close, total + 1)
        seen.setdefault(key, vote)
    return found
