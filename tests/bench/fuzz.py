"""Mutations of good files (tests/support/mutations.py), each looked at in the guarded child as a job does:
`python tests/bench/fuzz.py [--count 20000] [--log build/bench/fuzz.jsonl] [--only N]`.

One line of the log for each mutation, written at once: a run that was broken off goes on where it stopped. At the end a
table, and exit code 1 if any mutation has no row, or ended in anything but views that keep their contract or a
`ClipError` that names the file, or took longer than the deadline and what it takes to kill a child. `--only N` writes
that file beside the log and says what came of it.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.fuzzing import Runner
from tests.support.mutations import SEEDS, mutant

KILL_SECONDS = 10.0  # what ending a child and starting another may take on a machine that is swamped


def report(rows: list[dict[str, Any]], *, count: int, deadline_seconds: float) -> bool:
    """Prints the table; False where something happened that must not."""
    by_seed: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        by_seed[row["seed"]][row["outcome"]] += 1
    total = sum(by_seed.values(), Counter())
    kinds = [kind for kind, _ in total.most_common()]
    print("seed".ljust(22), "tried".rjust(6), *(kind.rjust(max(7, len(kind))) for kind in kinds))
    for seed, counts in [*sorted(by_seed.items()), ("all", total)]:
        numbers = (str(counts[kind]).rjust(max(7, len(kind))) for kind in kinds)
        print(seed.ljust(22), str(counts.total()).rjust(6), *numbers)
    read = [row for row in rows if row["outcome"] == "ok"]
    alike = sum(row.get("difference") == 0 for row in read)
    moved = sum(row.get("difference") is None for row in read)
    longest = sorted(rows, key=lambda row: row["seconds"])[-5:]
    over = max(0.0, longest[-1]["seconds"] - deadline_seconds) if rows else 0.0
    died = sum(row["is_new_child"] and row["outcome"] != "timeout" for row in rows)
    print(f"ok: {alike} as the good file, {moved} at other times or sizes, {len(read) - alike - moved} other pictures")
    print(
        f"the child died in {died} of {len(rows)}; killed at the deadline of {deadline_seconds:g} s: {total['timeout']}"
    )
    print("slowest:", ", ".join(f"{row['number']} ({row['seconds']:.1f} s, {row['outcome']})" for row in longest))
    print(f"longest over the deadline: {over:.1f} s")
    for who in ("own_mb", "child_mb"):
        seen = [row[who] for row in rows] or [0]
        print(f"{who}: {seen[min(500, len(seen) - 1)]} after the first 500, {seen[-1]} at the end, {max(seen)} at most")
    missing = sorted(set(range(count)) - {row["number"] for row in rows})
    faults = [row for row in rows if row["outcome"] == "fault"]
    for row in faults[:20]:
        print(f"FAULT {row['number']} {row['seed']}: {'; '.join(row['steps'])}\n{row['error']}")
    if missing:
        print(f"NO ROW: {len(missing)}, first {missing[:5]}")
    return not faults and not missing and over <= KILL_SECONDS


def main() -> bool:
    """Runs what the log does not hold yet; whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--log", type=Path, default=Path("build/bench/fuzz.jsonl"))
    parser.add_argument("--deadline", type=float, default=10.0, help="seconds")
    parser.add_argument("--only", type=int, help="one mutation")
    arguments = parser.parse_args()
    log: Path = arguments.log
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Runner(Path(folder), deadline_seconds=arguments.deadline) as runner:
        if arguments.only is not None:
            found = mutant(arguments.only)
            path = log.with_name(f"{found.number} {found.seed}")
            path.write_bytes(found.data)
            print(path, json.dumps(runner.row(found), indent=1), sep="\n")
            return True
        rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        done = {row["number"] for row in rows}
        started = time.perf_counter()
        with log.open("a") as lines:
            for number in range(arguments.count):
                if number in done:
                    continue
                rows.append(runner.row(mutant(number)))
                print(json.dumps(rows[-1]), file=lines, flush=True)
    print(f"{len(rows) - len(done)} mutations of {len(SEEDS)} files in {time.perf_counter() - started:.0f} s")
    return report(rows, count=arguments.count, deadline_seconds=arguments.deadline)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
