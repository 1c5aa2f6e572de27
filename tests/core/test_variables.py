"""Variables in the strings of a config."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_multi_server.core.config.variables import Scope, Source, Unexpandable, expand

KNOWN: dict[tuple[Source, str], str] = {
    ("env", "TOKEN"): "s3cret",
    ("env", "EMPTY"): "",
    ("env", "HOME"): "/home/me",
    ("env", "NESTED"): "${TOKEN} $$",
    ("file", "/run/token"): "from file\n",
    ("file", "two lines"): "one\ntwo\n\n",
    ("file", "dos"): "from file\r\n",
    ("file", "odd:-name"): "odd",
    ("cred", "github"): "from systemd\n",
}


def look(source: Source, name: str) -> str:
    if (source, name) not in KNOWN:
        raise LookupError(f"no {source} {name}")
    return KNOWN[source, name]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${TOKEN}", "s3cret"),
        ("${env:TOKEN}", "s3cret"),
        ("Bearer ${TOKEN}!", "Bearer s3cret!"),
        ("${TOKEN}${TOKEN}", "s3crets3cret"),
        ("${EMPTY}", ""),
        ("${TOKEN:-other}", "s3cret"),
        ("${NOPE:-http://x:1/?a=b}", "http://x:1/?a=b"),
        ("${env:NOPE:-other}", "other"),
        ("${EMPTY:-other}", "other"),
        ("${NOPE:-}", ""),
        ("${NOPE:-one\ntwo}", "one\ntwo"),
        ("${file:/run/token}", "from file"),
        ("${file:dos}", "from file"),
        ("${file:two lines}", "one\ntwo\n"),
        ("${file:odd:-name}", "odd"),
        ("${cred:github}", "from systemd"),
        ("$${TOKEN}", "${TOKEN}"),
        ("$$${TOKEN}", "$${TOKEN}"),
        ("$${TOKEN}${TOKEN}", "${TOKEN}s3cret"),
        ("$$$$", "$$$$"),
        ("pa$$w0rd", "pa$$w0rd"),
        ("$$TOKEN $", "$$TOKEN $"),
        ("${NOPE:-$}${TOKEN}", "$s3cret"),
        ("a${/}b${pathSeparator}c", "a/b/c"),
        ("${userHome}/x", "/home/me/x"),
        ("${HOME}", "/home/me"),
        ("$TOKEN costs 5$ or $5 {TOKEN}", "$TOKEN costs 5$ or $5 {TOKEN}"),
        ("${NESTED}", "${TOKEN} $$"),
        ("${TOKEN}}", "s3cret}"),
    ],
)
def test_variables_are_replaced(text: str, expected: str) -> None:
    assert expand(text, Scope(look)) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${NOPE}", "no env NOPE"),
        ("${env:NOPE}", "no env NOPE"),
        ("${file:nope}", "no file nope"),
        ("${cred:nope}", "no cred nope"),
        ("${TOKEN", "without its }"),
        ("a ${", "without its }"),
        ("${}", "no variable's name"),
        ("${1ST}", "no variable's name"),
        ("${A B}", "no variable's name"),
        ("${TOKEN-x}", "no variable's name"),
        ("${env:}", "${env:…} holds no name"),
        ("${file:}", "${file:…} holds no name"),
        ("${cred:}", "${cred:…} holds no name"),
        ("${vault:secret/x}", "unknown source"),
        ("${input:token}", "has no meaning here"),
        ("${input:}", "${input:…} holds no name"),
        ("${workspaceFolder}/.env", "the directory of a project"),
        ("${workspaceFolder:other}", "the directory of a project"),
        ("${workspaceFolderBasename}", "the directory of a project"),
        ("${A:-${B}}", "inside another"),
    ],
)
def test_what_has_no_value_is_an_error(text: str, said: str) -> None:
    with pytest.raises(Unexpandable) as caught:
        expand(text, Scope(look))
    assert len(caught.value.messages) == 1
    assert said in caught.value.messages[0]


def test_all_that_is_wrong_is_told_at_once_and_the_same_only_once() -> None:
    with pytest.raises(Unexpandable) as caught:
        expand("${A} ${B} ${A} ${TOKEN} ${C:-fine}", Scope(look))
    assert caught.value.messages == ("no env A", "no env B")


def test_a_default_is_never_in_a_message() -> None:
    with pytest.raises(Unexpandable) as caught:
        expand("${1:-hunter2} ${vault:hunter2} ${A:-${hunter2}}", Scope(look))
    assert "hunter2" not in str(caught.value)


@given(st.text().filter(lambda text: "$" not in text))
def test_without_a_dollar_nothing_changes(text: str) -> None:
    assert expand(text, Scope(look)) == text


@given(st.text() | st.text(alphabet="${A}"))
def test_an_escaped_text_is_the_text_itself(text: str) -> None:
    assert expand(text.replace("${", "$${"), Scope(look)) == text


@given(st.text(alphabet="ab$ 1"))
def test_dollar_signs_without_a_brace_stay(text: str) -> None:
    assert expand(text, Scope(look)) == text


@given(st.text().filter(lambda text: not text.endswith("$")), st.text(alphabet="${}:-ABC\n\\1g<"))
def test_variables_in_the_value_of_a_variable_are_not_replaced(around: str, value: str) -> None:
    quoted = around.replace("${", "$${")
    assert expand(f"{quoted}${{X}}{quoted}", Scope(lambda source, name: value)) == f"{around}{value}{around}"


def test_a_name_means_the_entry_s_own_env_before_the_daemon_s() -> None:
    scope = Scope(look, own={"TOKEN": "mine", "ONLY": "own $$ ${TOKEN}", "NONE": None})
    assert expand("${TOKEN} ${env:TOKEN} ${ONLY} ${TOKEN:-x} ${NONE:-x}", scope) == "mine s3cret own $$ ${TOKEN} mine x"
    for text, said in (("${env:ONLY}", "${ONLY} means the one in env"), ("${NONE}", "NONE is null in env")):
        with pytest.raises(Unexpandable) as caught:
            expand(text, scope)
        assert said in str(caught.value)


def test_a_bare_name_is_a_variable_only_where_the_host_has_it_so() -> None:
    bare = Scope(look, own={"OWN": "mine"}, bare=True)
    assert expand("$TOKEN-$OWN $NOPE pa$$w0rd $5", bare) == "s3cret-mine $NOPE pa$$w0rd $5"
    assert expand("$TOKEN", Scope(look)) == "$TOKEN"


def test_an_input_is_asked_for_by_its_id() -> None:
    assert expand("Bearer ${input:my key}", Scope(look, input_value=str.upper)) == "Bearer MY KEY"


@given(st.text(alphabet="${}:-AB env:file"))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    try:
        expand(text, Scope(look))
    except Unexpandable as failure:
        assert all(failure.messages)
