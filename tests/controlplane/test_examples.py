"""The examples are what they say: each plans without a violation."""

from pathlib import Path

import pytest

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


async def test_a_schedule_says_when_it_ticks_next(terminal: Terminal) -> None:
    """Described like any other resource, with the moments that come."""
    await terminal.text("apply", str(EXAMPLES[0].parent / "training_schedules"))
    assert (await terminal.text("describe", "Schedule", "radar-weekly")).count("ticks next 20") == 3
    assert "ticks next" not in await terminal.text("describe", "Schedule", "eta-daily"), "it ticks by data"
    for name in ("radar-weekly", "eta-daily"):
        await terminal.text("delete", "Schedule", name)
