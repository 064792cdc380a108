"""Plan, apply, history, past states and removal on the command line, against a running control plane."""

from pathlib import Path

import pytest

from chassis.errors import ArterialError, Reason
from tests.controlplane.conftest import ControlPlane
from tests.terminal import Terminal

HEAD = "apiVersion: arterial.dev/v1\nkind: "


def write(folder: Path, name: str, *, tier: int = 3, owner: str = "risk", more: str = "") -> Path:
    """A file with a dataset."""
    file = folder / "one.yaml"
    labels = f"labels: {{made-by: {name.replace('/', '-')}}}"
    file.write_text(f"{HEAD}Dataset\nmetadata: {{name: {name}, owner: {owner}, {labels}}}\nspec: {{tier: {tier}{more}}}\n")
    return file


async def test_a_change_is_recorded_and_every_past_state_can_be_seen_and_restored(terminal: Terminal, tmp_path: Path) -> None:
    """Who, what, why; --as-of, diff and rollback."""
    name = "lake/curated/recorded"
    await terminal.text("apply", str(write(tmp_path, name)), "--message", "first")
    first = (await terminal.document("get", "Dataset", name))["metadata"]["resourceVersion"]
    await terminal.text("apply", str(write(tmp_path, name, tier=2)), "--message", "it matters more")
    told = await terminal.document("history", "Dataset", name)
    assert [change["message"] for change in told] == ["it matters more", "first"] and all(change["actor"] for change in told)
    assert [field["path"] for field in told[0]["change"]["fields"]] == ["spec.tier"]
    assert (await terminal.document("get", "Dataset", name, "--as-of", first))["spec"]["tier"] == 3
    assert "-  tier: 3" in await terminal.text("diff", "Dataset", name, first, status=1)
    with pytest.raises(ArterialError, match="one-way doors"):
        await terminal.text("rollback", "Dataset", name, "--to", first)
    await terminal.text("rollback", "Dataset", name, "--to", first, "--approve", f"Dataset/{name}:spec.tier")
    assert (await terminal.document("get", "Dataset", name))["spec"]["tier"] == 3
    assert "rollback to" in await terminal.text("describe", "Dataset", name)


async def test_a_tier_1_table_needs_owner_sla_and_tests(terminal: Terminal, tmp_path: Path) -> None:
    """All that is missing is told at once, with the place; what is complete is taken."""
    name = "lake/curated/important"
    with pytest.raises(ArterialError) as caught:
        await terminal.text("apply", str(write(tmp_path, name, tier=1, owner='""')))
    assert [violation.description for violation in caught.value.violations] == [
        f"tier 1 demands {what}"
        for what in (
            "metadata.owner",
            "spec.sla.freshnessSeconds",
            "a QualityRule with test QUALITY_TEST_NOT_NULL",
            "a QualityRule with test QUALITY_TEST_UNIQUE",
        )
    ]
    assert all("one.yaml:4 spec.tier" in violation.field for violation in caught.value.violations)
    file = write(tmp_path, name, tier=1, more=", sla: {freshnessSeconds: 60}")
    rules = [
        f"---\n{HEAD}QualityRule\nmetadata: {{name: important-{test.lower()}, owner: risk}}\n"
        f"spec: {{dataset: {name}, test: QUALITY_TEST_{test}, columns: [id]}}\n"
        for test in ("NOT_NULL", "UNIQUE")
    ]
    file.write_text(file.read_text() + "".join(rules))
    await terminal.text("apply", str(file))
    promise = (await terminal.document("describe", "Dataset", name))["promise"]
    assert promise["sla"]["freshnessSeconds"] == "60" and promise["computeClass"] == "reserved" and len(promise["qualityRules"]) == 2


async def test_what_is_no_longer_declared_is_removed_only_if_asked_and_approved(
    terminal: Terminal,
    tmp_path: Path,
) -> None:
    """Prune by label; data are a one-way door; what others refer to stays."""
    kept, gone = "lake/curated/kept", "lake/curated/gone"
    for name in (kept, gone):
        await terminal.text("apply", str(write(tmp_path, name)))
    rule = tmp_path / "rule.yaml"
    rule.write_text(
        f"{HEAD}QualityRule\nmetadata: {{name: of-gone}}\nspec: {{dataset: {gone}, test: QUALITY_TEST_NOT_NULL, columns: [id]}}\n"
    )
    await terminal.text("apply", str(rule))
    words = ("apply", str(write(tmp_path, kept)), "--prune", "made-by=lake-curated-gone")
    assert f"- Dataset/{gone}" not in await terminal.text("plan", str(write(tmp_path, kept)), "--prune", "made-by=another")
    with pytest.raises(ArterialError, match="QualityRule/of-gone"):
        await terminal.text(*words)
    await terminal.text("delete", "QualityRule", "of-gone", "--message", "not needed")
    with pytest.raises(ArterialError, match="one-way doors"):
        await terminal.text(*words)
    await terminal.text(*words, "--approve", f"Dataset/{gone}:deleted")
    with pytest.raises(ArterialError) as caught:
        await terminal.text("get", "Dataset", gone)
    assert caught.value.reason is Reason.NOT_FOUND


async def test_what_files_declare_is_deleted_together(terminal: Terminal, tmp_path: Path) -> None:
    """In one change, whatever refers to what among them; the doors may be given as they were told; what is gone is no change."""
    name = "lake/curated/together"
    file = write(tmp_path, name)
    rule = f"{HEAD}QualityRule\nmetadata: {{name: together}}\nspec: {{dataset: {name}, test: QUALITY_TEST_NOT_NULL, columns: [id]}}\n"
    file.write_text(file.read_text() + "---\n" + rule)
    await terminal.text("apply", str(file))
    with pytest.raises(ArterialError, match="one-way doors") as caught:
        await terminal.text("delete", "-f", str(file))
    told = await terminal.text("delete", "-f", str(file), "--approve", caught.value.metadata["approvals"])
    assert f"- Dataset/{name}" in told and "- QualityRule/together" in told
    assert "0 of 2" in await terminal.text("delete", "-f", str(file))
    for words in (("delete",), ("delete", "Dataset"), ("delete", "Dataset", name, "-f", str(file))):
        with pytest.raises(ArterialError, match="usage"):
            await terminal.text(*words)


async def test_what_is_exported_can_be_applied_and_changes_nothing(
    terminal: Terminal,
    shared_plane: ControlPlane,
    tmp_path: Path,
) -> None:
    """Export is what apply takes."""
    file = tmp_path / "all.yaml"
    file.write_text(await terminal.text("export"))
    assert "0 of" in await terminal.text("plan", str(file))


async def test_an_edit_is_applied_unless_somebody_was_faster(
    terminal: Terminal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The editor is whatever $EDITOR names."""
    name = "lake/curated/edited"
    await terminal.text("apply", str(write(tmp_path, name)))
    monkeypatch.setenv("EDITOR", "sed -i s/tier:.3/tier:\\ 2/")
    await terminal.text("edit", "Dataset", name, "--message", "by hand")
    assert (await terminal.document("get", "Dataset", name))["spec"]["tier"] == 2
    assert "nothing is changed" in await terminal.text("edit", "Dataset", name)
    monkeypatch.setenv("EDITOR", "sed -i s/edited/another/")
    with pytest.raises(ArterialError, match="nothing else"):
        await terminal.text("edit", "Dataset", name)


async def test_a_feature_must_fit_the_columns_of_its_topic(terminal: Terminal, tmp_path: Path) -> None:
    """Every mistake at once, with its place and what there is instead."""
    file = tmp_path / "feature.yaml"
    file.write_text(
        f"{HEAD}Feature\nmetadata: {{name: wrong}}\nspec:\n  topic: trip_events_v2\n  key: trip_id\n  filter: stat = 1\n"
        "  aggregates: [{name: far, function: AGGREGATE_FUNCTION_SUM, column: distance}]\n  windowsSeconds: [15]\n  service: pricing\n"
    )
    with pytest.raises(ArterialError) as caught:
        await terminal.text("plan", str(file))
    told = {violation.field.split(" ")[-1]: violation.description for violation in caught.value.violations}
    assert told.keys() == {"spec.windowsSeconds[0]", "spec.aggregates[0].column", "spec.filter", "spec.key"}
    assert "distance_m" in told["spec.aggregates[0].column"] and "city_id" in told["spec.key"]


async def test_a_thousand_mistakes_are_still_told(terminal: Terminal, tmp_path: Path) -> None:
    """As many as an answer can carry, and how many there are besides."""
    file = tmp_path / "many.yaml"
    file.write_text(
        "---\n".join(
            f"{HEAD}Dataset\nmetadata: {{name: lake/curated/wrong{number}, owner: nobody-of-this-name}}\nspec: {{tier: 3}}\n"
            for number in range(1000)
        )
    )
    with pytest.raises(ArterialError) as caught:
        await terminal.text("plan", str(file))
    assert caught.value.reason is Reason.INVALID_REQUEST and "many.yaml:3 metadata.owner" in caught.value.violations[0].field
    assert "more" in caught.value.violations[-1].description
