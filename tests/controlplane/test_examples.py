"""The examples are what they say: each plans without a violation."""

import io
from pathlib import Path

import pytest

from chassis.errors import ArterialError
from tests.terminal import Terminal

EXAMPLES = sorted(folder for folder in (Path(__file__).parents[2] / "examples").iterdir() if folder.is_dir())


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
async def test_an_example_can_be_planned(terminal: Terminal, folder: Path) -> None:
    """Against a control plane with the seed resources."""
    changes = (await terminal.document("plan", str(folder)))["changes"]
    assert changes and {change["action"] for change in changes} == {"ACTION_CREATE"}


async def test_a_new_dataset_of_every_tier_can_be_planned(terminal: Terminal, tmp_path: Path) -> None:
    """What `init` writes has what its tier demands."""
    for tier in ("1", "2", "3"):
        folder = tmp_path / tier
        words = ("--name", f"bike_rentals_{tier}", "--owner", "bikes", "--tier", tier, "--key", "bike_id", "--folder", str(folder))
        await terminal.text("init", "dataset", *words)
        assert len((await terminal.document("plan", str(folder)))["changes"]) == 15


async def test_a_schema_of_an_example_can_be_checked(terminal: Terminal) -> None:
    """In whatever language it is."""
    for file in sorted(file for folder in EXAMPLES for file in folder.iterdir() if file.suffix in (".proto", ".jsonschema")):
        assert (await terminal.document("schema", "check", str(file)))["compatible"]


async def test_what_makes_no_dataset_is_told(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All answers at once, those included whose files could not be read; and that nobody answers."""
    words = ("--name", "s", "--owner", "null", "--tier", "4", "--key", "sequence", "--folder", str(tmp_path / "new"))
    with pytest.raises(ArterialError) as caught:
        await terminal.text("init", "dataset", *words)
    assert [violation.field for violation in caught.value.violations] == ["name", "owner", "tier", "key"]
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(ArterialError, match="nobody answers"):
        await terminal.text("init", "dataset", "--folder", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


async def test_a_schedule_says_when_it_ticks_next(terminal: Terminal) -> None:
    """Described like any other resource, with the moments that come."""
    await terminal.text("apply", str(EXAMPLES[0].parent / "training_schedules"))
    assert (await terminal.text("describe", "Schedule", "radar-weekly")).count("ticks next 20") == 3
    assert "ticks next" not in await terminal.text("describe", "Schedule", "eta-daily"), "it ticks by data"
    for name in ("radar-weekly", "eta-daily"):
        await terminal.text("delete", "Schedule", name)
