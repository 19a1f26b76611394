"""Where a script runs, by its text."""

from __future__ import annotations

import pytest

from punchlib.jobs.placement import place


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("runtime/r_split F 1000000 F F", "ec2"),
        ("# a comment about splitting", "ec2"),
        ("python3.9 aws/s3-put-object.py KEY F", "ec2"),
        ("sort -m F F", "ec2"),
        ("runtime/r_merge F F", "ec2"),
        ("sort -n -m F F", "lambda"),
        ("sort F", "lambda"),
        ("", "lambda"),
    ],
)
def test_placement_by_text(text: str, expected: str) -> None:
    assert place(text) == expected
