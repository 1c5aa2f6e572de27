"""The books of the fault bench find what must never happen, and the bench runs."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from benchmarks.ledger import Ending, Ledger, Outcome, outcome, seen

ROOT = Path(__file__).parent.parent
AWAY = {"server": "a", "state": "backoff", "reason": "exit", "retryAt": None}


def ended(response: Mapping[str, Any]) -> Outcome:
    return outcome(response, "c1", "a", begun=1.0, ended=2.0)


def answer(text: str) -> dict[str, Any]:
    return {"id": 1, "result": {"content": [{"type": "text", "text": text}]}}


def failure(code: int, data: object) -> dict[str, Any]:
    return {"id": 1, "error": {"code": code, "message": "no", "data": data}}


@pytest.mark.parametrize(
    ("response", "executed", "wrong"),
    [
        (answer("c1"), {"c1": 1}, None),
        (answer("c1"), {"c1": 2}, "carried out 2 times"),
        (answer("c1"), {}, "carried out by nobody"),
        (answer("c2"), {"c1": 1}, "wrong answer"),
        (failure(-32603, AWAY), {}, None),
        (failure(-32603, AWAY), {"c1": 1}, None),
        (failure(-32603, AWAY), {"c1": 2}, "carried out 2 times"),
        (failure(-32603, AWAY | {"server": "b"}), {}, "untyped error"),
        (failure(-32603, None), {}, "untyped error"),
        (failure(-32602, None), {}, "untyped error"),
    ],
)
def test_the_ledger_finds_what_must_never_happen(
    response: Mapping[str, Any], executed: Mapping[str, int], wrong: str | None
) -> None:
    wrongs = Ledger(outcomes=[ended(response)], made=1).wrongs(executed)
    assert [wrong in found for found in wrongs] == [True] if wrong else wrongs == []


@pytest.mark.parametrize(("may_cut", "wrongs"), [(False, 1), (True, 0)])
def test_a_cut_call_is_wrong_unless_its_client_was_cut_on_purpose(may_cut: bool, wrongs: int) -> None:
    ledger = Ledger(outcomes=[Outcome("c1", "a", 1.0, 2.0, Ending.CUT)], made=1)
    assert len(ledger.wrongs({}, may_cut=may_cut)) == wrongs


def test_a_call_without_an_end_is_lost() -> None:
    assert Ledger(made=2).wrongs({}) == ["2 calls have no end"]


def test_what_clients_saw_tells_held_calls_from_failed_ones() -> None:
    outcomes = [
        Outcome("c1", "a", 1.0, 1.01, Ending.ANSWERED),
        Outcome("c2", "a", 1.0, 3.0, Ending.ANSWERED),
        ended(failure(-32603, AWAY)),
    ]
    assert seen(outcomes) == "1 × held, then answered, 1 × -32603 exit"


def test_a_fault_is_made_detected_and_recovered_from(tmp_path: Path) -> None:
    told = tmp_path / "results"
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "--fault", "exit-3", "--repeat", "1", "--json", str(told)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=50,
    )
    assert ran.returncode == 0, ran.stdout.decode()
    (result,) = json.loads(told.read_text())["results"]
    assert result["reasons"] == ["exit"]
    assert len(result["recovered"]) == 1
    assert result["made"] > result["failed"]
