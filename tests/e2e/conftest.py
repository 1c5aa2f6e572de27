"""What the end-to-end tests share: nothing that they start outlives them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.polling import eventually

from .entries import RUN
from .harness import ROOT
from .processes import marked


@pytest.fixture(scope="package", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """After the last test no process that carries our mark lives, and no directory of a daemon remains."""
    yield
    eventually(lambda: not marked(RUN), within=5, what=f"the end of all that the tests started ({marked(RUN)})")
    left = list(Path(ROOT).glob(f"mms-{RUN}-*"))
    assert not left, f"directories were left: {left}"
