"""Training goes on from its last checkpoint, if it is the same training."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from chassis.config import LakeConfig
from chassis.learning import boosting
from chassis.learning.boosting import Floats
from chassis.learning.checkpoints import FOLDER, KEPT, Checkpoints

SETTINGS = boosting.Settings(rounds=30, depth=3)
QUANTILES = (0.1, 0.5, 0.9)


class Died(Exception):
    """The process was killed."""


class Dying(Checkpoints):
    """Saves so many checkpoints, and then the process dies."""

    lives = 12

    def save(self, name: str, content: bytes) -> None:
        """Saves, or dies."""
        if self.lives == 0:
            raise Died
        self.lives -= 1
        super().save(name, content)


def data(seed: int = 1) -> tuple[Floats, Floats]:
    """Something to learn."""
    random = np.random.default_rng(seed)
    features = random.uniform(0, 10, (800, 3))
    return features, features[:, 0] ** 2 + random.normal(0, 1, 800)


@pytest.fixture
def models(tmp_path: Path) -> LakeConfig:
    """A root of models."""
    return LakeConfig(root=str(tmp_path))


def test_an_attempt_goes_on_where_the_last_one_died_and_comes_to_the_same_model(models: LakeConfig) -> None:
    """It says so in the log; ended well, nothing is left of it."""
    lines: list[str] = []
    features, target = data()
    with pytest.raises(Died):
        boosting.fit_quantiles(features, target, QUANTILES, SETTINGS, checkpoints=Dying(models, "run-1", lines.append, interval_seconds=0))
    kept = Checkpoints(models, "run-1", lines.append)
    resumed = boosting.fit_quantiles(features, target, QUANTILES, SETTINGS, checkpoints=kept)
    whole = boosting.fit_quantiles(features, target, QUANTILES, SETTINGS)
    assert lines == ["going on after 12 of 30 rounds"]
    assert np.allclose(resumed.predict(features), whole.predict(features), rtol=1e-5)
    kept.clear()
    assert list(Path(models.root, FOLDER).iterdir()) == []


def test_other_data_settings_or_runs_begin_anew(models: LakeConfig) -> None:
    """What was learned from data that were corrected since is not gone on with; neither is what is damaged."""
    lines: list[str] = []
    features, target = data()
    with pytest.raises(Died):
        boosting.fit_counts(features, target**2, SETTINGS, checkpoints=Dying(models, "run-1", lines.append, interval_seconds=0))
    kept = Checkpoints(models, "run-1", lines.append)
    boosting.fit_counts(features, target**2 + 1, SETTINGS, checkpoints=kept)
    boosting.fit_counts(features, target**2, boosting.Settings(rounds=31, depth=3), checkpoints=kept)
    boosting.fit_counts(features, target**2, SETTINGS, checkpoints=Checkpoints(models, "run-2", lines.append))
    (file,) = Path(models.root, FOLDER, "run-1").iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    boosting.fit_counts(features, target**2, SETTINGS, checkpoints=kept)
    assert lines == []


def test_what_was_left_long_ago_is_removed(models: LakeConfig) -> None:
    """By whoever ends well after it; what is newer stays, for it may be gone on with."""
    for run_id in ("run-1", "run-2"):
        Checkpoints(models, run_id, print).save("a", b"content")
    old = Path(models.root, FOLDER, "run-1")
    long_ago = old.stat().st_mtime - KEPT.total_seconds() - 60
    os.utime(old, (long_ago, long_ago))
    Checkpoints(models, "run-3", print).clear()
    assert [folder.name for folder in Path(models.root, FOLDER).iterdir()] == ["run-2"]


def test_workers_that_end_at_once_do_not_fail_over_what_others_left(models: LakeConfig) -> None:
    """Each may remove what is old."""
    for number in range(300):
        folder = Path(models.root, FOLDER, f"run-{number}")
        folder.mkdir(parents=True)
        (folder / "rounds").write_bytes(b"x")
        os.utime(folder, (0, 0))
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda number: Checkpoints(models, f"ended-{number}", print).clear(), range(3)))
