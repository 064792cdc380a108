"""Artefacts: whole or not there, and exactly what was registered."""

import json
from dataclasses import replace

import pytest

from chassis.config import LakeConfig
from chassis.errors import ArterialError, Reason
from chassis.learning.artefact import Artefacts, Candidate, TableSnapshot

CANDIDATE = Candidate(
    {"model.ubj": b"trees", "table.json": b"[]"},
    ("distance_m", "hour"),
    {"mae_seconds": 61.5},
    {"margins": [1.5, -2.0]},
    (TableSnapshot("lake/curated/trips", 7, "2026-11-01", "2026-11-28", 1200),),
)


def test_a_saved_version_loads_as_it_was(lake_config: LakeConfig) -> None:
    """Files, features, metrics, parameters and snapshots come back."""
    saved = Artefacts(lake_config).save("eta", "20261128-000000-abcdef", "2026-11-28T00:00:00+00:00", CANDIDATE)
    loaded = Artefacts(lake_config).load("eta/20261128-000000-abcdef", saved.sha256)
    assert loaded == saved
    assert loaded.candidate == CANDIDATE


def test_a_version_never_changes(lake_config: LakeConfig) -> None:
    """A second save under the same name is refused and leaves the first as it was."""
    artefacts = Artefacts(lake_config)
    saved = artefacts.save("eta", "v1", "2026-11-28", CANDIDATE)
    with pytest.raises(ArterialError) as refused:
        artefacts.save("eta", "v1", "2026-11-28", replace(CANDIDATE, files={"model.ubj": b"other"}))
    assert refused.value.reason is Reason.REFUSED
    assert artefacts.load("eta/v1", saved.sha256).files == CANDIDATE.files


def test_a_half_written_version_is_none(lake_config: LakeConfig) -> None:
    """Without its manifest a folder of files is not a version, and the write can be done again."""
    artefacts = Artefacts(lake_config)
    saved = artefacts.save("eta", "v1", "2026-11-28", CANDIDATE)
    manifest = f"{lake_config.root}/eta/v1/manifest.json"
    with open(manifest) as file:  # noqa: PTH123 - the root is text
        assert json.load(file)["version"] == "v1"
    artefacts._files.move(manifest, f"{manifest}.draft")
    with pytest.raises(ArterialError) as missing:
        artefacts.load("eta/v1", saved.sha256)
    assert missing.value.reason is Reason.NOT_FOUND
    assert artefacts.save("eta", "v1", "2026-11-28", CANDIDATE).sha256 == saved.sha256


@pytest.mark.parametrize("name", ["manifest.json", "model.ubj", "table.json"])
def test_what_was_tampered_with_does_not_load(lake_config: LakeConfig, name: str) -> None:
    """One octet more in the manifest or in any file is refused."""
    artefacts = Artefacts(lake_config)
    saved = artefacts.save("eta", "v1", "2026-11-28", CANDIDATE)
    with open(f"{lake_config.root}/eta/v1/{name}", "ab") as file:  # noqa: PTH123 - the root is text
        file.write(b" ")
    with pytest.raises(ArterialError) as refused:
        artefacts.load("eta/v1", saved.sha256)
    assert refused.value.reason is Reason.REFUSED
    assert name in refused.value.message


@pytest.mark.parametrize("path", ["../eta/v1", "/etc/v1", "eta/../../v1", "eta", "eta//v1"])
def test_a_path_does_not_leave_the_root(lake_config: LakeConfig, path: str) -> None:
    """Paths come from the control plane, and name versions only."""
    with pytest.raises(ArterialError) as refused:
        Artefacts(lake_config).load(path, "0" * 64)
    assert refused.value.reason is Reason.INVALID_REQUEST
