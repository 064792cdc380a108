"""What the tests on the running stack share."""

from typing import Any

import pytest

from arterial.channel import Channel
from chassis import testing


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's commands, and the client library, do not run out of time on a busy machine."""

    def connect(address: str, **_: Any) -> Channel:
        return testing.channel(address)

    for module in ("arterial.client", "cli.connect"):
        monkeypatch.setattr(f"{module}.connect", connect)
