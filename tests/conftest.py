"""What every test shares."""

import signal

import pytest
from hypothesis import HealthCheck, settings

# A shell starts what runs beside it with Ctrl-C switched off, and children inherit that: the programs that tests
# interrupt have to begin as they do at a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is, and nothing of the code: no test asserts times.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
