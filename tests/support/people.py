"""Where pictures with people's opinions lie, beside the checkout; never committed."""

import os
from pathlib import Path

import pytest

from tests.support.kept import ROOT

PEOPLE = Path(os.environ.get("VQA_PEOPLE", ROOT.parent / "shared" / "people"))
needs_people = pytest.mark.skipif(not PEOPLE.is_dir(), reason=f"{PEOPLE} is not here ($VQA_PEOPLE)")
