"""Progress reaches people as a bar and programs as one JSON object per line, with the time left, at once."""

from __future__ import annotations

import io
import json
import threading

import pytest
from samconvex.cli.console import ConsoleProgress, loud_verdict
from samconvex.cli.evaluate import table
from samconvex.cli.register import summary
from samconvex.errors import Cancelled

PLAN = (("read", 1.0), ("solve", 3.0))


class _Terminal(io.StringIO):
    flushed = 0

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        self.flushed += 1


def test_json_lines_hold_the_promised_fields_and_never_go_back() -> None:
    stream = _Terminal()
    progress = ConsoleProgress("json", PLAN, stream=stream)
    for stage, fraction in (("read", 0.0), ("read", 1.0), ("solve", 0.0), ("solve", 1.0), ("read", 0.5), ("odd", 0.5)):
        progress(stage, fraction, 'a "quoted"\nmessage')
    progress.finish("out")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert all(set(line) == {"stage", "fraction", "percent", "seconds_left", "memory_mib", "message"} for line in lines)
    percents = [line["percent"] for line in lines]
    assert percents == sorted(percents) and percents[0] == 0.0 and percents[-1] == 100.0
    assert {line["stage"]: line["percent"] for line in lines}["read"] >= 25.0
    assert lines[-1]["stage"] == "done" and lines[-1]["message"] == "out"
    assert lines[0]["memory_mib"] > 1
    assert stream.flushed >= len(lines)


def test_the_time_left_follows_from_the_time_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("samconvex.cli.console.time.monotonic", lambda: clock[0])
    stream = _Terminal()
    progress = ConsoleProgress("json", PLAN, stream=stream)
    clock[0] = 110.0
    progress("read", 1.0)
    assert json.loads(stream.getvalue())["seconds_left"] == pytest.approx(30.0)


def test_a_terminal_gets_a_bar_that_fits_and_vanishes() -> None:
    stream = _Terminal()
    progress = ConsoleProgress("bar", PLAN, stream=stream)
    progress("solve", 0.5, "x" * 300)
    text = stream.getvalue()
    assert "solve" in text and " 62 %" in text and "\n" not in text
    assert len(text.strip("\r").replace("\x1b[K", "")) < 200
    progress.finish()
    assert stream.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize("kind", ["bar", "none"])
def test_nothing_is_drawn_into_a_file(kind: str) -> None:
    stream = io.StringIO()
    progress = ConsoleProgress(kind, PLAN, stream=stream)
    progress("solve", 0.5)
    progress.finish()
    assert stream.getvalue() == ""


@pytest.mark.parametrize("kind", ["bar", "json", "none"])
def test_a_cancellation_surfaces_at_the_next_report(kind: str) -> None:
    cancelled = threading.Event()
    progress = ConsoleProgress(kind, PLAN, cancelled, stream=io.StringIO())
    progress("read", 0.5)
    cancelled.set()
    with pytest.raises(Cancelled):
        progress("read", 0.6)


@pytest.mark.parametrize(("level", "color"), [("good", "32"), ("check", "33"), ("do not use", "31")])
def test_the_verdict_is_loud_on_a_terminal_and_plain_in_a_file(level: str, color: str, monkeypatch) -> None:
    judged = {"level": level, "reasons": ["Bones do not lie on each other."]}
    plain = f"VERDICT: {level.upper()}. Bones do not lie on each other."
    for stream, text in ((io.StringIO(), plain), (_Terminal(), f"\x1b[1;{color}m{plain}\x1b[0m")):
        monkeypatch.setattr("sys.stdout", stream)
        assert loud_verdict(judged) == text


def test_the_verdict_is_the_last_line_of_register_and_evaluate() -> None:
    report = {"peak_memory_mib": 1.0, "verdict": {"level": "check", "reasons": ["Look."]}, "warnings": ["A note."]}
    assert summary(report, "out")[-2:] == ["Results are in out.", "VERDICT: CHECK. Look."]
    assert table(report)[-1] == "VERDICT: CHECK. Look."
