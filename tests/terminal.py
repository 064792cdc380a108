"""A terminal: runs `arterial` as a person or a program does."""

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cli.__main__ import parser


class Terminal:
    """Runs commands against services at given addresses, by name; `folder` becomes the data folder of a stack."""

    def __init__(self, addresses: Mapping[str, str], folder: Path, output: "pytest.CaptureFixture[str]") -> None:
        (folder / "stack.json").write_text(json.dumps({"pid": os.getpid(), "addresses": dict(addresses)}))
        self._folder = folder
        self._output = output

    async def text(self, *words: str, status: int | None = 0) -> str:
        """What a person sees; the command must end with the exit status (None: any)."""
        arguments = parser().parse_args(["--data-dir", str(self._folder), *words])
        self._output.readouterr()  # what a command that failed before this one printed
        ended = arguments.run(arguments)
        ended = await ended if asyncio.iscoroutine(ended) else ended
        assert status is None or ended == status
        return self._output.readouterr().out

    async def document(self, *words: str, status: int | None = 0) -> Any:
        """What a program gets."""
        return json.loads((await self.text("--output", "json", *words, status=status)).splitlines()[-1])
