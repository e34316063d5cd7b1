"""What is measured of the small networks that restoration asks, as a report."""

from __future__ import annotations

from velatura.cli.evaluate_networks import report_of_estimator


def test_the_report_of_the_estimator():
    rows = {
        kind: {
            name: [value + i, value, value + 2] for i, name in enumerate(("input", "grey world", "stretched", "ours"))
        }
        for value, kind in enumerate(("faded", "grey", "tone"))
    }
    report = report_of_estimator({"rows": rows, "clean": [0.5, 0.1, 0.9], "changed": 0.25, "images": 7}, "mine")
    assert report.judged == ["mine, in colour", "mine, without colour, toned", "mine, without colour or tint"]
    assert [score["value"] - score["baseline_value"] for score in report.scores()] == [3, 3, 3]
    assert "75% of them keep every bit" in report.notes[0]
