"""What holds for every test: the caches of whoever runs them stay as they are."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the run's own: rows and graphs that were kept here before don't count, and none are left.

    Matplotlib's list of fonts, which takes long to make, stays where it is.
    """
    with pytest.MonkeyPatch.context() as patch:
        if "MPLCONFIGDIR" not in os.environ:
            kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "matplotlib"
            patch.setenv("MPLCONFIGDIR", str(kept))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))
        yield
