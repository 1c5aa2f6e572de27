"""One booted machine for all tests that need it, and the service in it as each test finds it: stopped and plain."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.systemd.machine import Machine, missing
from tests.systemd.needs import require
from tests.systemd.unit import Unit


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    require(missing())
    with Machine() as machine:
        yield machine


@pytest.fixture
def unit(machine: Machine) -> Iterator[Unit]:
    unit = Unit(machine)
    unit.reset()
    try:
        yield unit
    except BaseException as error:
        error.add_note(unit.journal()[-6000:])
        raise
    finally:
        unit.reset()
