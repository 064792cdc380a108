"""What the tests of dss share: a store and a profiler on the real engine."""

import pytest

from chassis.config import LakeConfig
from chassis.olap import Olap
from chassis.testing import ManualClock
from services.dss.profiler import Profiler
from services.dss.store import SeriesStore

# 2026-03-10 12:00 UTC.
NOON = 1_773_144_000.0


@pytest.fixture
def clock() -> ManualClock:
    """Noon of 2026-03-10."""
    return ManualClock(NOON)


@pytest.fixture
def profiler(lake_config: LakeConfig, olap: Olap, clock: ManualClock) -> Profiler:
    """Profiles the test's lake into its database."""
    return Profiler(lake_config, SeriesStore(olap), clock)
