"""Plan, apply, history, past states and removal on the command line, against a running control plane."""

import asyncio
from pathlib import Path

import pytest

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from chassis import sql
from chassis.errors import ArterialError, Reason
from services.controlplane.resources.store import Edit, ResourceStore, Why
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.stubs import stubs
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


async def test_what_a_tier_demands_is_not_taken_away_later(terminal: Terminal, tmp_path: Path) -> None:
    """Neither by the removal of a test nor by making it advisory; together with the dataset it goes."""
    name = "lake/curated/demanding"
    file = write(tmp_path, name, tier=1, more=", sla: {freshnessSeconds: 60}")
    rules = [
        f"{HEAD}QualityRule\nmetadata: {{name: demanding-{test.lower().replace('_', '-')}, owner: risk}}\n"
        f"spec: {{dataset: {name}, test: QUALITY_TEST_{test}, columns: [id]}}\n"
        for test in ("NOT_NULL", "UNIQUE")
    ]
    file.write_text("---\n".join([file.read_text(), *rules]))
    await terminal.text("apply", str(file))
    weaker = tmp_path / "weaker.yaml"
    weaker.write_text(rules[0].replace("columns", "advisory: true, columns"))
    for words in (("apply", str(weaker)), ("plan", str(weaker)), ("delete", "QualityRule", "demanding-not-null")):
        with pytest.raises(ArterialError) as caught:
            await terminal.text(*words)
        told = [(violation.field, violation.description) for violation in caught.value.violations]
        assert told == [(f"Dataset/{name} spec.tier", "tier 1 demands a QualityRule with test QUALITY_TEST_NOT_NULL")]
    await terminal.text("delete", "-f", str(file), "--approve", f"Dataset/{name}:deleted")


async def test_a_topic_does_not_change_under_a_feature_that_it_would_not_fit(terminal: Terminal, tmp_path: Path) -> None:
    """With an approval of its own neither; together they change."""
    file = tmp_path / "feature.yaml"

    def declare(topic_key: str, feature_key: str) -> str:
        topic = f"{HEAD}Topic\nmetadata: {{name: rekeyed_v1}}\n"
        topic += f"spec: {{message: arterial.api.events.v1.TripEvent, keyField: {topic_key}}}\n"
        feature = f"{HEAD}Feature\nmetadata: {{name: rekeyed}}\nspec:\n  topic: rekeyed_v1\n  key: {feature_key}\n"
        feature += "  aggregates: [{name: events, function: AGGREGATE_FUNCTION_COUNT}]\n  windowsSeconds: [60]\n  service: pricing\n"
        file.write_text(f"{topic}---\n{feature}" if feature_key else topic)
        return str(file)

    doors = ("--approve", "Topic/rekeyed_v1:spec.keyField,Feature/rekeyed:spec.key")
    await terminal.text("apply", declare("city_id", "city_id"))
    with pytest.raises(ArterialError) as caught:
        await terminal.text("apply", declare("region", ""), *doors)
    assert [violation.field for violation in caught.value.violations] == ["Feature/rekeyed spec.key"]
    await terminal.text("apply", declare("region", "region"), *doors)


async def test_nothing_is_left_that_refers_to_what_goes_at_the_same_time(terminal: Terminal, shared_plane: ControlPlane) -> None:
    """Of a removal and of a change that needs what it removes, one is done."""
    async with stubs(shared_plane) as to:
        for number in range(5):
            owner = (await to.control.GetResource(pb.GetResourceRequest(kind="Owner", name="risk"))).resource
            owner.metadata.name, owner.metadata.resource_version = f"brief-{number}", 0
            await to.control.Apply(pb.ApplyRequest(resources=[owner]), timeout=30)
            owned = resource_pb2.Resource(api_version="arterial.dev/v1", kind="Cell", cell=specs_pb2.CellSpec(region="r"))
            owned.metadata.CopyFrom(resource_pb2.Metadata(name=f"brief-{number}", owner=f"brief-{number}"))
            done = await asyncio.gather(
                to.control.Apply(pb.ApplyRequest(resources=[owned]), timeout=30),
                to.control.DeleteResource(pb.DeleteResourceRequest(kind="Owner", name=f"brief-{number}"), timeout=30),
                return_exceptions=True,
            )
            assert sorted(isinstance(each, ArterialError) for each in done) == [False, True]


async def test_what_another_replica_declares_meanwhile_is_not_written_over(shared_plane: ControlPlane) -> None:
    """A change is checked against a state; over another one it is not made."""
    engine = sql.engine(shared_plane.config.sql)
    store = ResourceStore(engine)
    found = resource_pb2.Resource(api_version="arterial.dev/v1", kind="Cell", cell=specs_pb2.CellSpec(region="r"))
    found.metadata.name = "meanwhile"
    edit = Edit(("Cell", "meanwhile"), found, b"")
    try:
        version = await store.version()
        await store.write([edit], Why("a", ""), version)
        with pytest.raises(ArterialError, match="changed meanwhile"):
            await store.write([edit], Why("b", ""), version)
    finally:
        await engine.dispose()


async def test_a_version_that_is_not_made_yet_has_no_state(terminal: Terminal) -> None:
    """It is no other name for now."""
    for words in (("get", "Owner", "risk", "--as-of", "999999"), ("get", "Owner", "--as-of", "999999"), ("rollback", "--to", "999999")):
        with pytest.raises(ArterialError, match="there is no version 999999 yet: the newest is"):
            await terminal.text(*words)


async def test_a_kind_that_there_is_not_is_told(terminal: Terminal, capsys: "pytest.CaptureFixture[str]") -> None:
    """As wrong usage, with what may be meant; not as a table of none, or by waiting for ever."""
    for words in (("get", "topik"), ("history", "Topik", "x"), ("watch", "Topik"), ("export", "Topik")):
        with pytest.raises(SystemExit, match="2"):
            await terminal.text(*words)
        assert "did you mean Topic?" in capsys.readouterr().err
    for moment in ("9" * 30, "\N{SUPERSCRIPT TWO}"):
        with pytest.raises(ArterialError, match="neither a resource version nor a time"):
            await terminal.text("get", "Owner", "--as-of", moment)


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
