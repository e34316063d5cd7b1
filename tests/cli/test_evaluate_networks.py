"""What is measured of the small networks that restoration asks, as a report."""

from __future__ import annotations

from velatura.cli.evaluate_networks import report_of_estimator, report_of_finder


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


def test_the_report_of_the_finder():
    names = ("photographs", "photographs_covered", "scenes", "scenes_covered")
    others = ("extra", "landscapes", "landscapes_enlarged", "landmarks", "landmarks_covered", "milliseconds")
    rows = {name: [i / 10, 0.0, 1.0] for i, name in enumerate((*names, *others))}
    report = report_of_finder({"rows": rows, "counts": dict.fromkeys(rows, 3)}, "mine")
    assert [score["value"] for score in report.scores()] == [0, 0.1, 0.2, 0.3]
    assert all("baseline" not in score for score in report.scores())
    assert report.count == 6
    assert "0.500 (0.000..1.000) on a landscape" in report.notes[1]
