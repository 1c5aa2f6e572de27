"""What stands for a server in qualified names."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core.config.prefixes import default_prefix

ALLOWED = set(string.ascii_letters + string.digits + "_-")


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("git", "git"),
        ("my server", "my_server"),
        ("a.b/c", "a_b_c"),
        ("Figma_MCP", "Figma_MCP"),
        ("-", "-"),
        ("高德地图", "server_1ecb3ba1"),
        ("天气查询", "server_144cd52b"),
        ("café", "cafe_850f7dc4"),
        ("１２ bis", "12_bis_117bfe30"),
        ("GitHub 🚀", "GitHub_ef68eb61"),
        ("Straße im Regen, lang und breit erzählt", "Stra_e_im_Regen_lang_d329bbdd"),
    ],
)
def test_a_prefix_is_the_name_and_has_a_hash_where_letters_are_lost(name: str, prefix: str) -> None:
    assert default_prefix(name) == prefix


@given(st.text(min_size=1))
def test_every_prefix_can_stand_in_a_qualified_name_and_leaves_room_in_it(name: str) -> None:
    prefix = default_prefix(name)
    assert prefix
    assert set(prefix) <= ALLOWED
    assert len(prefix) <= max(len(name), 29)


@given(st.text(alphabet=sorted(ALLOWED), min_size=1))
def test_a_name_that_fits_stays_as_it_is(name: str) -> None:
    assert default_prefix(name) == name


@given(st.sets(st.text(min_size=1).filter(lambda name: not name.isascii()), min_size=2))
def test_names_that_do_not_fit_get_different_prefixes(names: set[str]) -> None:
    assert len({default_prefix(name) for name in names}) == len(names)
