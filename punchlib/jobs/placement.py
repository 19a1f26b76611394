"""Which scripts run on EC2 and which on Lambda (docs/running-jobs.md)."""

from __future__ import annotations

from typing import Literal

#: `here` is the machine that runs the job, which may receive its result and runs no script.
Place = Literal["ec2", "lambda", "here"]

#: A script that holds one of these, anywhere and literally, runs on EC2.
EC2_MARKS = ("split", "s3-put", "sort -m", "merge")


def place(text: str) -> Place:
    """Where a script runs when no manifest says otherwise."""
    return "ec2" if any(mark in text for mark in EC2_MARKS) else "lambda"
