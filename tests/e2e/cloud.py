"""The emulated cloud as a user sees it: `punch run` from this machine, and what it left behind."""

from __future__ import annotations

import html
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from docker.models.containers import Container

from punchlib.runs import run_folder
from services.emulation import ROOT, Emulation

EXAMPLE = ROOT / "examples" / "sort-width2"
INPUT = "oneliners/inputs/1M.txt"
OUTPUT = "oneliners/outputs/sort.sh:1M.txt:2:leashstdout.txt"
FUNCTION = "lambda"
PUNCH = str(Path(sys.executable).parent / "punch")


class Cloud:
    """Jobs, objects, the function and its workers."""

    def __init__(self, emulation: Emulation, folder: Path) -> None:
        self.emulation = emulation
        self.folder = folder
        env = emulation.environment
        self._environment = {
            **{
                k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PUNCH_", "PASH_"))
            },
            **env,
            "XDG_STATE_HOME": str(folder / "state"),
        }
        self.bucket = env["AWS_BUCKET"]
        session = boto3.session.Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"])
        once = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})

        def client(service: str) -> Any:
            return session.client(
                service,  # type: ignore[call-overload]
                region_name=env["AWS_REGION"],
                endpoint_url=env["AWS_ENDPOINT_URL"],
                config=once,
            )

        self.s3, self.function, self.logs = client("s3"), client("lambda"), client("logs")
        self._changed = self._limited = False
        self._configured = self.function.get_function_configuration(FunctionName=FUNCTION)

    def run(self, job: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a job to its end."""
        with self.start(job, *arguments) as process:
            out, err = process.communicate(timeout=180)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start(self, job: Path, *arguments: str) -> subprocess.Popen[str]:
        """Starts a job; it runs once, where nothing else is asked for."""
        once = [] if "--retries" in arguments else ["--retries", "0"]
        return subprocess.Popen(
            [PUNCH, "run", str(job), *once, *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def sh(self, *arguments: str, shell: str = "") -> subprocess.CompletedProcess[bytes]:
        """Runs a pipeline by `punch sh`; `shell` is what follows it on the line."""
        return subprocess.run(
            ["bash", "-c", f'"$@" {shell}', "bash", PUNCH, "sh", "--retries", "0", *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=180,
            check=False,
        )

    def latest_run(self) -> list[str]:
        """The events of the latest run, a line each."""
        root = Path(self._environment["XDG_STATE_HOME"]) / "punch/runs"
        return run_folder.load_lines(run_folder.all_runs(root)[0])

    def missing_commands(self, names: Sequence[str]) -> list[str]:
        """Which of some commands a worker has not."""
        event = json.dumps({"probe": "commands", "commands": names})
        answer = self.function.invoke(FunctionName=FUNCTION, Payload=event)
        missing: list[str] = json.loads(answer["Payload"].read())["missing"]
        return missing

    def told(self) -> dict[str, str]:
        """What else says how the latest run went: `punch inspect`, `logs`, `report`."""
        commands = {"inspect": [], "logs": [], "report": ["-o", "-"]}
        return {
            name: html.unescape(
                subprocess.run(
                    [PUNCH, name, *options],
                    env=self._environment,
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
            )
            for name, options in commands.items()
        }

    def job(self, name: str = "job", /, **scripts: str) -> Path:
        """A job of its own: one script for each keyword."""
        folder = self.folder / name
        folder.mkdir()
        for name, text in scripts.items():
            (folder / f"{name}.sh").write_text(text)
        return folder

    def example(self, replace: Mapping[str, str], name: str = "job") -> Path:
        """The example with something else in the place of a command, in each script."""
        texts = {}
        for script in EXAMPLE.glob("*.sh"):
            text = script.read_text()
            for old, new in replace.items():
                text = text.replace(old, new)
            texts[script.stem] = text
        assert any(texts[s.stem] != s.read_text() for s in EXAMPLE.glob("*.sh"))
        return self.job(name, **texts)

    def text(self, size: int) -> Path:
        """A text of about `size` bytes, the same for the same size."""
        rng = random.Random(size)
        words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(3000)]
        file = self.folder / f"{size}.txt"
        with file.open("w") as out:
            while out.tell() < size:
                out.write("\n".join(" ".join(rng.choices(words, k=9)) for _ in range(1000)) + "\n")
        return file

    def exists(self, key: str) -> bool:
        try:
            self.s3.head_object(Bucket=self.bucket, Key=key)
        except ClientError:
            return False
        return True

    def write(self, key: str, content: bytes) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=content)

    def read(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def remove(self, key: str) -> None:
        self.s3.delete_object(Bucket=self.bucket, Key=key)

    def unfinished_uploads(self) -> list[str]:
        return [upload["Key"] for upload in self._uploads()]

    def abort_uploads(self) -> None:
        for upload in self._uploads():
            self.s3.abort_multipart_upload(
                Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )

    def _uploads(self) -> list[dict[str, str]]:
        uploads: list[dict[str, str]] = self.s3.list_multipart_uploads(Bucket=self.bucket).get(
            "Uploads", []
        )
        return uploads

    def objects(self, prefix: str = "") -> list[str]:
        answer = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for item in answer.get("Contents", [])]

    def log_lines(self) -> list[str]:
        """The function's log, as `aws logs tail` shows it."""
        group = f"/aws/lambda/{FUNCTION}"
        events = self.logs.filter_log_events(logGroupName=group)["events"]
        return [event["message"] for event in events]

    def workers(self) -> list[Container]:
        return [w for w in self.emulation.workers() if w.status == "running"]

    def forget_workers(self) -> None:
        """The next invocations start cold."""
        self._configure()

    def set_timeout(self, seconds: int) -> None:
        self._configure(Timeout=seconds)

    def set_cold_start(self, text: str) -> None:
        variables = {**self._configured["Environment"]["Variables"], "PUNCH_COLD_START": text}
        self._configure(Environment={"Variables": variables})

    def set_concurrency(self, limit: int) -> None:
        self._limited = True
        self.function.put_function_concurrency(
            FunctionName=FUNCTION, ReservedConcurrentExecutions=limit
        )

    def restore(self) -> None:
        """Makes the function what it was."""
        if self._limited:
            self.function.delete_function_concurrency(FunctionName=FUNCTION)
        if self._changed:
            self._configure(Timeout=self._configured["Timeout"])

    def _configure(self, **settings: object) -> None:
        # Naming the environment, changed or not, ends the workers of the old configuration.
        settings = {"Environment": self._configured["Environment"], **settings}
        self.function.update_function_configuration(FunctionName=FUNCTION, **settings)
        self._changed = True
        wait_for(lambda: not self.workers(), "the old workers to be gone")


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Polls until the condition holds.

    Raises:
        AssertionError: it did not in time; the message says what was waited for.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.2)
