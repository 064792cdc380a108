"""How far tables are that follow others, near and far."""

from pathlib import Path

from arterial.api.controlplane.v1 import resource_pb2
from chassis import resourcefiles
from chassis.config import LakeConfig, OlapConfig
from chassis.desired import Desired
from chassis.olap import Olap
from chassis.resources import from_document
from services.ingestion.curated import Curated
from services.ingestion.positions import Positions, follows_of, raw_tables
from tests.ingestion.correcting import Filled, Told
from tests.ingestion.deriving import derived, follow_all
from tests.ingestion.raw_tables import TOPIC

SEED = Path(__file__).parents[2] / "deploy" / "resources"
RAW, CURATED = f"raw/{TOPIC.name}", f"curated/{TOPIC.name}"
SQL = f"SELECT trip_id AS id, event_time AS at FROM `lake/{CURATED}`"


def declared(name: str, sql: str) -> resource_pb2.Resource:
    """A declared table."""
    spec = {"sql": sql, "keys": ["id"], "timeColumn": "at"}
    return from_document({"apiVersion": "arterial.dev/v1", "kind": "CuratedTable", "metadata": {"name": name}, "spec": spec})


def test_what_follows_what_is_read_from_the_declarations() -> None:
    """Topics with a curated table, trips, and declared tables over any of these; a table that nothing makes is followed to nowhere."""
    more = (declared("out", SQL), declared("far", "SELECT * FROM `lake/curated/out` UNION ALL SELECT * FROM `lake/raw/gps_pings_v1`"))
    follows = follows_of(Desired((*resourcefiles.read([SEED]), *more)))
    assert follows["curated/trips"] == follows[CURATED] == [RAW]
    assert follows["curated/out"] == [CURATED] and raw_tables(follows, "curated/far") == {RAW, "raw/gps_pings_v1"}


def curate(lake: LakeConfig) -> None:
    """The curated table of the topic takes all that raw has."""
    curated = Curated(lake, TOPIC)
    while curated.step():
        pass


async def test_a_declared_table_has_of_raw_what_its_source_had(lake_config: LakeConfig, olap_config: OlapConfig, tmp_path: Path) -> None:
    """Not what the source has gained since; who did not see what the source had then does not know."""
    raw, olap, follows = Filled(lake_config, tmp_path), Olap(olap_config), {CURATED: [RAW], "curated/out": [CURATED]}
    positions = Positions(lake_config)
    assert positions.of(follows, "curated/out") == (-1, {RAW: -1})
    await raw.live("live", [Told(1)])
    curate(lake_config)
    await follow_all(derived(lake_config, olap, SQL))
    first, known = raw.table.version, positions.of(follows, "curated/out")
    assert known is not None and known[1] == {RAW: first}
    await raw.live("live", [Told(2)])
    curate(lake_config)
    assert raw.table.version > first
    behind, source = positions.of(follows, "curated/out"), positions.of(follows, CURATED)
    assert behind is not None and behind[1] == {RAW: first} and source is not None and source[1] == {RAW: raw.table.version}
    anew = Positions(lake_config)
    assert anew.of(follows, "curated/out") is None
    await follow_all(derived(lake_config, olap, SQL))
    for each in (positions, anew):
        found = each.of(follows, "curated/out")
        assert found is not None and found[1] == {RAW: raw.table.version}
    await olap.close()
