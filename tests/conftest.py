"""What every test shares."""

import signal

import pytest

# A shell starts what runs beside it with Ctrl-C switched off, and children inherit that: the programs that tests
# interrupt have to begin as they do at a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
