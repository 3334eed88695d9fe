"""The benchmark counts what it should: ratios by round, void runs, wrong maps; its table says what was measured."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench_gradient
import bench_results
import bench_table
from bench_networks import NETWORKS
from bench_report import report
from bench_rounds import ATTEMPTS, Timing, settled, timed
from bench_statistics import agrees, interval, ratio, scaled_ratio
from bench_subject import Subject, error

WHERE = {"machine": "2 cores (One)", "versions": {"onnxruntime": "1.2"}, "date": "2026-01-01"}
BRIEF = Timing(rounds=2, least=2, warmup=1)
STANDS_IN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv.pop())
import bench
bench.environment_python = lambda *_: sys.executable
bench.TOOLS = Path(sys.argv.pop())
sys.argv.append("--quick")
sys.exit(bench.main())
"""


def figure(value: float) -> dict:
    return {"median": value, "interval": [value - 0.1, value + 0.1], "rounds": 20}


def entry(**ratios: float) -> dict:
    return {
        "ratios": {key: figure(value) for key, value in ratios.items()},
        "seconds": {"forward": figure(0.2)},
        "made_with": {"code": "abc", "batch": 4, "threads": 2},
        **WHERE,
    }


def found(networks: dict) -> dict:
    return {"networks": networks}


def test_ratio_is_paired_by_round() -> None:
    drift = np.linspace(1, 10, 20)  # a machine that gets slower all the while
    seconds = {"a": list(drift), "b": list(2 * drift)}
    paired = ratio(seconds, "b", "a")
    assert paired["median"] == pytest.approx(2)
    assert paired["interval"] == pytest.approx([2, 2])
    assert scaled_ratio(seconds, "b", "a", 0.25)["median"] == pytest.approx(0.5)


def test_rounds_that_are_missing_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio({"a": [1.0, 1.0], "b": [1.0]}, "b", "a")


def test_interval_holds_the_median_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    hits = 0
    for _ in range(100):
        low, high = interval(list(generator.exponential(1.0, 25)))
        hits += low <= np.log(2) <= high
    assert 88 <= hits <= 100


@pytest.mark.parametrize(("other", "counts"), [(1.029, True), (0.971, True), (1.031, False), (0.969, False)])
def test_run_counts_within_three_per_cent(other: float, counts: bool) -> None:
    assert agrees({"ours": [1.0] * 5, "again": [other] * 5}, "ours", "again") is counts


def test_disagreeing_run_is_repeated_and_then_void(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []

    def slower_again(*_: object) -> dict:
        runs.append(1)
        return {"ours": [1.0], "again": [1.2]}

    monkeypatch.setattr("bench_rounds.timed", slower_again)
    _, attempts = settled({}, BRIEF, "ours", "again")
    assert attempts == len(runs) == ATTEMPTS


def test_every_round_has_every_contender() -> None:
    calls: list[str] = []
    contenders = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = timed(contenders, BRIEF)
    assert [len(values) for values in seconds.values()] == [2, 2]
    assert set(calls) == {"a", "b"}


def test_one_picture_at_a_kink_is_the_worst_not_the_typical_one() -> None:
    truth = np.ones((3, 1, 2, 2))
    found = truth.copy()
    found[1] *= 1.5
    assert error(found, truth) == pytest.approx({"typical": 0.0, "worst": 0.5})


def test_wrong_map_scores_nothing() -> None:
    right, wrong = {"typical": 1e-6, "worst": 1e-3}, {"typical": 0.1, "worst": 0.2}
    assert bench_gradient._right(right, right, "float32")
    assert not bench_gradient._right(wrong, right, "float32")
    assert not bench_gradient._right({"typical": float("nan"), "worst": 0.0}, right, "float32")


def test_void_result_is_recorded_without_figures_and_measured_again(tmp_path: Path) -> None:
    file, made_with = tmp_path / "bench.json", {"code": "abc"}
    result = {**entry(**{"gradient ÷ forward": 2.0}), "made_with": made_with, "attempts": 3}
    bench_results.record("cpu", "b", "gradient", result | {"void": True}, ["a", "b"], file)
    known = bench_results.read(file)
    assert "ratios" not in known["cpu"]["networks"]["b"]["gradient"]
    assert not bench_results.is_done(known, "cpu", "b", "gradient", made_with)
    bench_results.record("cpu", "a", "gradient", result | {"void": False}, ["a", "b"], file)
    known = bench_results.read(file)
    assert list(known["cpu"]["networks"]) == ["a", "b"]
    assert bench_results.is_done(known, "cpu", "a", "gradient", made_with)
    assert not bench_results.is_done(known, "cpu", "a", "gradient", {"code": "new"})


def test_worst_is_the_dearest_cost_and_the_smallest_lead() -> None:
    entries = [{"gradient ÷ forward": figure(value), "captum ÷ ours": figure(value)} for value in (2.0, 8.0)]
    assert bench_table.mean_and_worst(entries, "gradient ÷ forward") == "4.00 (8.00)"
    assert bench_table.mean_and_worst(entries, "captum ÷ ours") == "4.00 (2.00)"


def test_table_has_a_line_for_what_counts_and_names_what_is_void() -> None:
    good = entry(**{"gradient ÷ forward": 2.0, "captum ÷ ours": 1.5})
    void = {"void": True, "made_with": good["made_with"], **WHERE}
    everything = found({"a": {"gradient": good}, "b": {"gradient": void}})
    lines = list(bench_table.gradient("CPU", everything))
    assert lines[2] == "| a | 200 | 2.00 (1.90–2.10) | – | – | – | 1.50 (1.40–1.60) | – |"
    assert not any(line.startswith("| b") for line in lines)
    assert next(bench_table.remarks(everything)).endswith("b (gradient).")
    assert "2 cores (One); 2 threads, 4 pictures at once, onnxruntime 1.2." in bench_table.caption(everything)


def test_lines_of_a_new_process_say_what_the_export_took_and_what_kept_graphs_save() -> None:
    start = entry(**{"torch + captum ÷ ours": 5.0}) | {
        "seconds": {"ours": figure(0.25)},
        "megabytes": {"ours": 80.4},
        "memory of torch + captum ÷ ours": 4.0,
        "export, seconds": 1.25,
    }
    lines = list(bench_table.processes("CPU", found({"a": {"start": start}})))
    assert lines[2:] == ["| a, one picture | 0.25 s | 5.00 (4.90–5.10) | 80 MB | 4.0 | 1.2 s |"]
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    start["seconds"]["ours, graphs kept"] = figure(0.2)
    start["ratios"]["torch + captum ÷ ours, graphs kept"] = figure(6.0)
    start["megabytes"]["ours, graphs kept"] = 70.0
    start["memory of torch + captum ÷ ours, graphs kept"] = 4.5
    lines = list(bench_table.processes("CPU", found({"a": {"start": start}})))
    assert lines[3:] == ["| a, one picture, `cache=True` | 0.20 s | 6.00 (5.90–6.10) | 70 MB | 4.5 | – |"]


def test_caption_says_when_parts_were_measured_on_several_days() -> None:
    late = entry(a=1.0) | {"date": "2026-01-03"}
    assert " on 2026-01-03: " in bench_table.caption(found({"a": {"gradient": late}}))
    both = found({"a": {"gradient": entry(a=1.0)}, "b": {"gradient": late}})
    assert " from 2026-01-01 to 2026-01-03: " in bench_table.caption(both)


def test_caption_says_what_was_measured_on_another_machine() -> None:
    other = entry(a=1.0) | {"machine": "4 cores (Two)", "versions": {"onnxruntime": "1.3"}}
    words = bench_table.caption(found({"a": {"gradient": entry(a=1.0), "start": entry(a=1.0)}, "b": {"start": other}}))
    assert ": 2 cores (One); on 4 cores (Two) b (start); 2 threads" in words
    assert "onnxruntime 1.2/1.3." in words


def test_recorded_result_says_on_which_machine(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    measured = {**entry(a=1.0), "void": False, "gpu": "Card"}
    bench_results.record("cuda", "a", "gradient", measured, ["a"], file)
    kept = bench_results.read(file)["cuda"]["networks"]["a"]["gradient"]
    assert kept["machine"] == bench_results.machine("Card")
    assert kept["machine"].endswith(", Card)")
    assert kept["versions"] == WHERE["versions"]
    assert "gpu" not in kept


def test_what_another_machine_measured_before_is_kept_and_has_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bench.json"

    def measure(where: str, network: str, value: float, void: bool = False) -> dict[str, Any]:
        monkeypatch.setattr(bench_results, "machine", lambda _: where)
        measured = {**entry(**{"gradient ÷ forward": value}), "void": void}
        bench_results.record("cpu", network, "gradient", measured, ["a", "b"], file)
        return bench_results.read(file)["cpu"]

    measure("2 cores (One)", "a", 2.0)
    measure("2 cores (One)", "b", 8.0)
    assert measure("2 cores (One)", "b", 4.5)["elsewhere"] == {}
    measure("2 cores (Two)", "a", 3.0)
    known = measure("2 cores (Two)", "b", 3.0)
    means = [line for line in bench_table.gradient("CPU", known) if "|  |" not in line][-2:]
    assert means[0].startswith("| **geometric mean** (worst) | | 3.00 (3.00) | ")
    assert means[1].startswith("| 2 networks on 2 cores (One) | | 3.00 (4.50) | ")
    assert measure("2 cores (One)", "a", 2.0)["elsewhere"].keys() == {"2 cores (One)", "2 cores (Two)"}
    assert "gradient" not in measure("2 cores (One)", "a", 2.0)["elsewhere"]["2 cores (One)"]["a"]
    # A void result takes no other's place elsewhere.
    measure("2 cores (Two)", "b", 3.0, void=True)
    known = measure("2 cores (One)", "b", 2.0)
    assert "b" not in known["elsewhere"]["2 cores (Two)"]
    assert "gradient" not in known["elsewhere"]["2 cores (One)"]["b"]


def test_recorded_results_make_a_table_and_are_of_listed_networks() -> None:
    assert list(bench_table.table())
    for device in (
        json.loads(bench_results.RESULTS.read_text("utf-8")).values() if bench_results.RESULTS.exists() else []
    ):
        assert set(device["networks"]) <= {*NETWORKS, "squeezenet"}


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
def test_ended_benchmark_ends_what_it_measures_with(tmp_path: Path) -> None:
    measures = 'import os, sys, time\nopen(sys.argv[0] + ".pid", "w").write(str(os.getpid()) + " ")\ntime.sleep(60)\n'
    (tmp_path / "bench_measure.py").write_text(measures, "utf-8")
    pid = tmp_path / "bench_measure.py.pid"
    command = [sys.executable, "-c", STANDS_IN, str(tmp_path), str(bench_results.TOOLS)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        started = time.monotonic()
        while not (pid.exists() and pid.read_text("utf-8").endswith(" ")) and time.monotonic() < started + 50:
            time.sleep(0.05)
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text("utf-8")), 0)


@pytest.mark.filterwarnings("ignore")  # Captum warns of its own hooks
def test_smallest_network_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("captum", reason="captum is a contender: pip install captum")

    def absent(_: Subject) -> None:
        raise bench_gradient.NotHereError("compiling takes long")

    monkeypatch.setattr(bench_gradient, "compiled", absent)
    subject = Subject("honest", tmp_path, batch=2, threads=1)
    result = bench_gradient.measure(subject, BRIEF)
    assert result["absent"] == {"torch.compile": "compiling takes long"}
    assert max(value["typical"] for value in result["errors"].values()) < 1e-5
    assert {"gradient ÷ forward", "torch eager ÷ ours", "captum ÷ ours"} <= set(result["ratios"])
    assert any(line.startswith("gradient ÷ forward: ") for line in report(result))
