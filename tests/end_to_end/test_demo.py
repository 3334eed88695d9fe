"""The demo's second half: the report exists, shows every picture, and its numbers tell the two networks apart."""

from pathlib import Path

import pytest

import demo_report


def test_the_demo_shows_the_shortcut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_report, "CORE", ("gradient", "integrated_gradients"))
    report = demo_report.make_report(tmp_path / "demo")
    page = report.read_text("utf-8")
    for sample in demo_report.read_samples():
        assert f"{sample.label};" in page
    assert page.count("<article>") == len(demo_report.read_samples())
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "integrated_gradients" in line]
    shares = {line[0]: (int(line[2].rstrip("%")), int(line[3].rstrip("%"))) for line in lines if line[-1].endswith("%")}
    assert shares["honest"][0] > 2 * shares["honest"][1]
    assert shares["shortcut"][1] > 4 * shares["shortcut"][0]
