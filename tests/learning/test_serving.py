"""Models that are swapped while they serve, and the last good one that is always there."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from arterial.api.controlplane.v1.resource_pb2 import Metadata, ModelStatus, Resource, ServedVersion, Status
from arterial.api.controlplane.v1.specs_pb2 import ModelInput, ModelSpec
from chassis.config import LakeConfig, ServiceConfig
from chassis.desired import Desired, DesiredFeed
from chassis.learning.artefact import Artefact, Artefacts, Candidate
from chassis.learning.serving import Comparison, ServedModel, serving
from chassis.testing import eventually


def _build(artefact: Artefact) -> float:
    """A model that always answers the number in its file."""
    return float(artefact.files["number"])


@pytest.fixture
def trained(lake_config: LakeConfig) -> Callable[[str, bytes], ServedVersion]:
    """Saves a version and returns what the control plane would say of it."""

    def save(version: str, number: bytes) -> ServedVersion:
        saved = Artefacts(lake_config).save("eta", version, "2026-11-28", Candidate({"number": number}, (), {}, {}))
        return ServedVersion(version=version, path=saved.path, sha256=saved.sha256)

    return save


def _desired(live: ServedVersion | None, shadow: ServedVersion | None = None, number: int = 1) -> Desired:
    status = Status(model=ModelStatus(live=live, shadow=shadow))
    spec = ModelSpec(service="eta", inputs=[ModelInput(dataset="lake/curated/trips", days=1)])
    resource = Resource(api_version="arterial.dev/v1", kind="Model", metadata=Metadata(name="eta"), model=spec, status=status)
    return Desired((resource,), number)


def _served(lake: LakeConfig, folder: Path) -> ServedModel[float]:
    return ServedModel("eta", lake, folder, _build, possible=(0.0, 100.0))


async def test_a_new_version_replaces_the_old_one_while_serving(
    lake_config: LakeConfig, tmp_path: Path, trained: Callable[[str, bytes], ServedVersion]
) -> None:
    """Each change of the desired state is followed: first live version, shadow, promotion, roll-back."""
    first, second = trained("v1", b"1"), trained("v2", b"2")
    feed = DesiredFeed(_desired(None), tmp_path / "state", None)
    config = ServiceConfig(state_dir=tmp_path / "state")
    async with serving("eta", lake_config, _build, config=config, feed=feed, possible=(0.0, 100.0)) as served:

        async def serves(live: float | None, shadow: float | None) -> None:
            def now() -> tuple[float | None, float | None]:
                return served.live.model if served.live else None, served.shadow.model if served.shadow else None

            await eventually(lambda: asyncio.sleep(0, now() == (live, shadow)), f"{live} and {shadow}, not {now()}")

        await serves(None, None)
        for number, (live, shadow) in enumerate(((first, None), (first, second), (second, None), (first, None)), start=1):
            feed.replace(_desired(live, shadow, number))
            await serves(float(live.version[1]), float(shadow.version[1]) if shadow else None)


async def test_what_cannot_be_loaded_never_replaces_a_good_one(
    lake_config: LakeConfig, tmp_path: Path, trained: Callable[[str, bytes], ServedVersion]
) -> None:
    """A wrong digest, a missing folder, a file that is no model: the live version goes on, and the caller is told to try again."""
    served = _served(lake_config, tmp_path / "models")
    good = trained("v1", b"1")
    assert await served.apply(ModelStatus(live=good))
    wrong = ServedVersion(version="v2", path=trained("v2", b"2").path, sha256="0" * 64)
    for bad in (wrong, ServedVersion(version="v9", path="eta/v9", sha256="0" * 64), trained("v3", b"no number")):
        assert not await served.apply(ModelStatus(live=bad, shadow=bad))
        assert served.live is not None
        assert (served.live.model, served.shadow) == (1.0, None)


async def test_a_restart_without_control_plane_and_store_has_the_last_good(
    lake_config: LakeConfig, tmp_path: Path, trained: Callable[[str, bytes], ServedVersion]
) -> None:
    """The copy answers although the store is gone, and is the version that was live last; older copies are gone."""
    served = _served(lake_config, tmp_path / "models")
    for status in (ModelStatus(live=trained("v1", b"1")), ModelStatus(live=trained("v2", b"2"))):
        assert await served.apply(status)
    again = _served(LakeConfig(root=str(tmp_path / "gone")), tmp_path / "models")
    await again.restore()
    assert again.live is not None
    assert (again.live.version, again.live.model) == ("v2", 2.0)
    assert sorted(path.name for path in (tmp_path / "models" / "eta").iterdir()) == ["last_good.json", "v2"]
    assert await again.apply(ModelStatus())
    assert again.live.version == "v2", "a control plane that lost its memory takes no model away"
    assert await again.apply(None)
    assert again.live is None, "a Model that is not declared any more is not served"


async def test_a_corrupt_copy_is_passed_over(
    lake_config: LakeConfig, tmp_path: Path, trained: Callable[[str, bytes], ServedVersion]
) -> None:
    """Nothing is served rather than something that is not what was registered."""
    good = trained("v1", b"1")
    assert await _served(lake_config, tmp_path / "models").apply(ModelStatus(live=good))
    (tmp_path / "models" / "eta" / "v1" / "number").write_bytes(b"7")
    again = _served(lake_config, tmp_path / "models")
    await again.restore()
    assert again.live is None
    assert await again.apply(ModelStatus(live=good))
    repaired = _served(LakeConfig(root=str(tmp_path / "gone")), tmp_path / "models")
    await repaired.restore()
    assert repaired.live is not None, "the next load makes the copy good again"


def test_a_comparison_counts_failures_apart() -> None:
    """Impossible and missing answers are failures and do not enter the mean difference."""
    seen = Comparison("v2")
    seen.add(np.array([10.0, 20.0, 30.0]), np.array([12.0, np.nan, 300.0]), (0.0, 100.0))
    seen.add(np.array([10.0]), None, (0.0, 100.0))
    report = seen.request("eta")
    assert (report.answers, report.failures, report.mean_difference) == (1, 3, 2.0)
