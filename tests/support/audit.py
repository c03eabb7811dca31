"""Pinned versions that the package safety-db lists as insecure: `python tests/support/audit.py constraints.txt`."""

import json
import sys
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name


def main(pins: Path) -> int:
    """Print what is listed; 1 where something is."""
    path = Path(str(distribution("safety-db").locate_file("safety_db/insecure.json")))  # its module cannot be imported
    listed: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    insecure = {canonicalize_name(name): ranges for name, ranges in listed.items() if not name.startswith("$")}
    lines = [line.partition("#")[0].strip() for line in pins.read_text(encoding="utf-8").splitlines()]
    pinned = [Requirement(line) for line in lines if line]
    versions = {canonicalize_name(one.name): next(iter(one.specifier)).version for one in pinned}
    found = [
        f"{name} {version}: {one}"
        for name, version in versions.items()
        for one in insecure.get(name, ())
        if version in SpecifierSet(one)
    ]
    known = sum(name in insecure for name in versions)
    print("\n".join([*found, f"{len(found)} listed; {known} of {len(versions)} packages are in the list at all"]))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
