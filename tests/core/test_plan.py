"""The difference between two configs, as what to do with each server."""

from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core.config.config import Config, DaemonConfig, ServerConfig
from mcp_multi_server.core.config.plan import APPLIES_AT_ONCE, DEFINES_THE_SERVER, Plan
from mcp_multi_server.core.errors import Problem

from .server_entries import CHANGES, server

BROKEN = "broken"


def config(daemon: DaemonConfig | None = None, /, **entries: ServerConfig | str) -> Config:
    """A config of these entries; BROKEN stands for one that cannot be used."""
    return Config(
        order=tuple(entries),
        servers=MappingProxyType({name: entry for name, entry in entries.items() if isinstance(entry, ServerConfig)}),
        broken=MappingProxyType({name: (Problem(name, "bad"),) for name, entry in entries.items() if entry == BROKEN}),
        daemon=daemon or DaemonConfig(),
    )


OFF = server(disabled=True)


def test_every_field_of_a_server_has_its_step() -> None:
    assert DEFINES_THE_SERVER | APPLIES_AT_ONCE | {"disabled"} == set(ServerConfig.model_fields)
    assert not DEFINES_THE_SERVER & APPLIES_AT_ONCE


def test_the_first_config_starts_all_that_are_enabled_and_usable() -> None:
    assert Plan.between(None, config(a=server(), b=OFF, c=BROKEN, d=server())) == Plan(start=("a", "d"))


@pytest.mark.parametrize("field", sorted(set(ServerConfig.model_fields) - {"disabled"}))
def test_a_changed_field_takes_its_step(field: str) -> None:
    before, after = CHANGES[field]
    plan = Plan.between(config(a=server(**before), b=server()), config(a=server(**after), b=server()))
    step = "replace" if field in DEFINES_THE_SERVER else "update"
    assert plan == Plan(keep=("b",), **{step: ("a",)})


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {"a": server()}, Plan(start=("a",))),
        ({"a": server()}, {}, Plan(stop=("a",))),
        ({"a": OFF}, {"a": server()}, Plan(start=("a",))),
        ({"a": server()}, {"a": OFF}, Plan(stop=("a",))),
        ({"a": OFF}, {"a": OFF}, Plan()),
        ({"a": OFF}, {}, Plan()),
        ({"a": server()}, {"a": BROKEN}, Plan(keep=("a",))),
        ({"a": OFF}, {"a": BROKEN}, Plan()),
        ({"a": BROKEN}, {"a": BROKEN}, Plan()),
        ({"a": BROKEN}, {"a": server()}, Plan(start=("a",))),
        ({"a": BROKEN}, {}, Plan()),
        ({}, {"a": BROKEN}, Plan()),
        ({"a": server()}, {"a": server(timeout=1, env={"A": "1"})}, Plan(replace=("a",))),
        ({"a": server(timeout=60.0)}, {"a": server()}, Plan(keep=("a",))),
    ],
)
def test_an_entry_that_comes_goes_or_breaks(
    before: dict[str, ServerConfig | str], after: dict[str, ServerConfig | str], expected: Plan
) -> None:
    assert Plan.between(config(**before), config(**after)) == expected


@pytest.mark.parametrize(
    ("fixed", "expected"),
    [
        (server(), Plan(keep=("a",))),
        (server(timeout=1), Plan(update=("a",))),
        (server(command="other"), Plan(replace=("a",))),
        (OFF, Plan(stop=("a",))),
        (BROKEN, Plan(keep=("a",))),
    ],
)
def test_what_went_on_while_its_entry_was_broken_is_compared_once_it_is_not(
    fixed: ServerConfig | str, expected: Plan
) -> None:
    applied = config(a=BROKEN).keeping(config(a=server()))
    assert Plan.between(applied, config(a=fixed).keeping(applied)) == expected


def test_what_went_on_while_its_entry_was_broken_stops_with_the_entry() -> None:
    applied = config(a=BROKEN).keeping(config(a=server()))
    assert Plan.between(applied, config().keeping(applied)) == Plan(stop=("a",))


def test_settings_of_the_daemon_do_nothing_to_a_server() -> None:
    after = config(DaemonConfig(naming="qualified", separator=".", collisions="last", hold=0), a=server())
    assert Plan.between(config(a=server()), after) == Plan(keep=("a",))


def test_names_are_in_the_new_order_and_removed_ones_last() -> None:
    before = config(gone=server(), a=server(), b=server(), c=server(), off=server())
    after = config(off=OFF, new2=server(), c=server(), b=server(), new1=server(), a=server())
    assert Plan.between(before, after).to_dict() == {
        "start": ["new2", "new1"],
        "stop": ["off", "gone"],
        "replace": [],
        "update": [],
        "keep": ["c", "b", "a"],
    }


ENTRIES: st.SearchStrategy[ServerConfig | str] = st.sampled_from(
    [server(), server(timeout=1), server(command="other"), OFF, BROKEN]
)
CONFIGS = st.dictionaries(st.sampled_from("abcde"), ENTRIES).map(lambda entries: config(None, **entries))


def running(of: Config) -> set[str]:
    return {name for name, entry in of.servers.items() if not entry.disabled}


@given(CONFIGS)
def test_a_config_against_itself_keeps_all_that_runs(same: Config) -> None:
    kept = tuple(name for name in same.order if name in running(same))
    assert Plan.between(same, same) == Plan(keep=kept)


@given(CONFIGS, CONFIGS)
def test_carrying_a_plan_out_leads_from_one_config_to_the_other(old: Config, new: Config) -> None:
    plan = Plan.between(old, new)
    listed = [name for names in plan.to_dict().values() for name in names]
    assert len(listed) == len(set(listed))
    assert set(plan.stop + plan.replace + plan.update + plan.keep) == running(old)
    assert set(plan.start + plan.replace + plan.update + plan.keep) == running(new.keeping(old))


@given(st.lists(CONFIGS, max_size=5))
def test_a_broken_entry_never_stops_what_runs(configs: list[Config]) -> None:
    applied = config()
    for new in configs:
        plan = Plan.between(applied, new.keeping(applied))
        assert not set(plan.stop + plan.replace + plan.update) & set(new.broken)
        applied = new.keeping(applied)
