"""From the lake to a served model: labels that arrive later are not known earlier, and history warms the online store."""

from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from arterial.api.controlplane.v1 import control_plane_service_pb2, resource_pb2
from chassis import resourcefiles
from chassis.config import LakeConfig, OlapConfig
from chassis.lake import Step, Table
from chassis.learning.artefact import Artefacts
from chassis.learning.serving import ServedModel
from chassis.learning.snapshot import TrainingData
from chassis.learning.task import Task
from services.radar.config import RadarConfig
from services.radar.decisions import MILLION
from services.radar.features import AUTHORISED, CHARGED_BACK, FEATURES
from services.radar.lineage import train_job
from services.radar.point_in_time import PAYMENTS, training_sql
from services.radar.policy import risk_policy
from services.radar.scoring import MODEL, POSSIBLE, ModelScorer, build
from services.radar.training import begin_of, end_of, train
from services.radar.velocities import Velocities
from services.radar.work import Warming
from simulator.history import History
from simulator.parameters import Market
from tests.radar.conftest import SEED, payment

TABLE = PAYMENTS.removeprefix("lake/")
FIRST, DAYS = date(2026, 5, 4), 28
LAST = FIRST + timedelta(days=DAYS - 1)


def curated(rows: pa.Table, source: str = "payment_events_v1") -> pa.Table:
    """Events as the curated zone has them."""
    day = rows["event_time"].cast(pa.timestamp("us")).cast(pa.date32(), safe=False).cast(pa.string())
    amount = rows["amount"].combine_chunks()
    for name in ("amount_minor", "currency_code"):
        rows = rows.append_column(f"amount_{name}", pc.struct_field(amount, name))
    rows = rows.drop_columns(["amount", "region"]).append_column("_topic", pa.repeat(source, rows.num_rows))
    return rows.append_column("event_date", day).append_column("region", pa.repeat("local", rows.num_rows))


@pytest.fixture(scope="module")
def history() -> pa.Table:
    """Four weeks of payments of a small market, with fraudsters and labels that come days later."""
    days = History(FIRST, seed=5, markets=(Market(1, 700, 5000, 100),)).days(DAYS)
    return curated(pa.concat_tables([pa.table(day["payment_events_v1"].columns) for day in days]))


@pytest.fixture
def lake(history: pa.Table, tmp_path: Path) -> LakeConfig:
    """A lake that has the history."""
    config = LakeConfig(root=str(tmp_path / "lake"))
    Table.open_or_create(config, TABLE, history.schema, ("event_date", "region")).append(history, {"test": Step(None, 1)})
    return config


@pytest.fixture
def task(lake: LakeConfig, olap_config: OlapConfig, tmp_path: Path) -> Task:
    """A training run of the last day, under the seed resources."""
    declared = control_plane_service_pb2.ApplyResponse(resources=resourcefiles.read([SEED]))
    return Task(
        trainer="services.radar.training:train",
        run_id="run",
        model=MODEL,
        version="v1",
        created_at="2026-06-01",
        partition_date=LAST,
        lake=lake,
        olap=olap_config,
        models=LakeConfig(root=str(tmp_path / "models")),
        resources=declared.SerializeToString(),
    )


async def test_training_knows_only_what_was_known(task: Task, history: pa.Table) -> None:
    """No payment is younger than its label's delay, none is fraud by a label that came later, and windows lie within the data."""
    delay = risk_policy(task.desired).label_delay_seconds
    end = end_of(LAST - timedelta(days=3))
    rows = await TrainingData(task).read(training_sql(FEATURES, begin_of(FIRST), end, delay))
    times = rows["time_us"].to_numpy()
    assert times.max() < (end.timestamp() - delay) * 1e6
    assert times.min() >= (begin_of(FIRST).timestamp() + 7 * 86400) * 1e6
    charged = history.filter(pc.equal(history["stage"], CHARGED_BACK))
    known = charged.filter(pc.less(charged["event_time"], pa.scalar(end, pa.timestamp("us", "UTC"))))
    found = rows.filter(pc.not_equal(rows["fraud"], 0))["payment_id"].to_pylist()
    assert set(found) == set(known["payment_id"].to_pylist()) & set(rows["payment_id"].to_pylist())
    early = await TrainingData(task).read(training_sql(FEATURES, begin_of(FIRST), end, 86_400))
    unsettled = set(charged["payment_id"].to_pylist()) - set(known["payment_id"].to_pylist())
    taken = dict(zip(early["payment_id"].to_pylist(), early["fraud"].to_pylist(), strict=True))
    assert unsettled & taken.keys()
    assert not any(taken[payment_id] for payment_id in unsettled & taken.keys())


async def test_a_trained_version_passes_its_gate_and_serves(task: Task, tmp_path: Path) -> None:
    """The version is better than its gate asks, loads, scores, and explains what it would not allow."""
    candidate = await train(task, lambda _: None)
    gates = {gate.metric: gate.at_least for gate in task.spec.gates}
    assert gates and all(candidate.metrics[name] >= least for name, least in gates.items())
    assert candidate.snapshots[0].dataset == PAYMENTS
    saved = Artefacts(task.models).save(MODEL, "v1", task.created_at, candidate)
    served = ServedModel(MODEL, task.models, tmp_path / "copies", build, possible=POSSIBLE)
    scorer = ModelScorer(served)
    features = np.zeros((2, len(FEATURES.names)), np.int64)
    assert await scorer.score(features, 0) is None
    status = resource_pb2.ModelStatus(live=resource_pb2.ServedVersion(version="v1", path=saved.path, sha256=saved.sha256))
    assert await served.apply(status)
    scored = await scorer.score(features, 0)
    assert scored is not None
    assert all(0 <= each.score_micro <= MILLION and each.model_version == "v1" for each in scored)
    silent = await scorer.score(features, MILLION + 1)
    assert silent is not None and not any(each.reasons for each in silent)


async def test_history_warms_the_online_store(
    task: Task, velocities: Velocities, redis_url: str, history: pa.Table, tmp_path: Path
) -> None:
    """Recent events of the lake are in the windows of what comes next; what a file adds later joins them, once."""
    config = _config(task, redis_url, tmp_path)
    now = end_of(LAST)
    warming = Warming(config, velocities)
    assert await warming.step(now) > 1000
    assert await warming.step(now) == 0
    recent = history.filter(pc.greater(history["event_time"], pa.scalar(now - timedelta(days=7), pa.timestamp("us", "UTC"))))
    busiest = recent.filter(pc.equal(recent["stage"], AUTHORISED))["account_id"].value_counts().to_pylist()
    account = max(busiest, key=lambda each: int(each["counts"]))
    later = payment(int(now.timestamp() * 1e6), account["values"], "another-card", "another-phone")
    [features] = await velocities.observe([later], AUTHORISED)
    assert features is not None
    assert dict(zip(FEATURES.names, features, strict=True))["account_payments_7d"] == (account["counts"] + 1) * 1000
    table = Table.open(task.lake, TABLE)
    assert table is not None
    table.append(_from_file(history, now), {"file": Step(None, 1)})
    assert await warming.step(now) == 1


def _from_file(history: pa.Table, now: datetime) -> pa.Table:
    """One more event, of a file."""
    row = history.filter(pc.equal(history["stage"], AUTHORISED)).slice(0, 1)
    values: dict[str, object] = {
        "_topic": "file:abc",
        "event_id": b"x" * 16,
        "event_time": now - timedelta(hours=1),
        "event_date": LAST.isoformat(),
    }
    for name, value in values.items():
        place = row.column_names.index(name)
        row = row.set_column(place, row.schema.field(place), pa.array([value], row.schema.field(place).type))
    return row


def _config(task: Task, redis_url: str, folder: Path) -> RadarConfig:
    return RadarConfig.model_validate(
        {
            "state_dir": folder,
            "kafka": {"bootstrap": "127.0.0.1:1"},
            "kv": {"url": redis_url},
            "sql": {"url": "postgresql+asyncpg://nobody@127.0.0.1:1/none"},
            "lake": task.lake,
            "olap": task.olap,
            "models": task.models,
            "checkpoints": task.models,
            "rpc": {"port": 0},
        }
    )


async def test_lineage_follows_the_training_sql() -> None:
    """Each feature of the model is told with the columns that its SQL reads, and no others."""
    declared = control_plane_service_pb2.ApplyResponse(resources=resourcefiles.read([SEED]))
    policy = next(resource.risk_policy for resource in declared.resources if resource.kind == "RiskPolicy")
    job = train_job(policy, 28)
    assert job.inputs == (PAYMENTS,)
    columns = {name: {each.column for each in inputs} for name, inputs in job.outputs[0].columns.items()}
    assert set(FEATURES.names) < columns.keys()
    # The event id is in the order of the window.
    assert columns["device_accounts_1d"] == {"account_id", "device_fingerprint", "event_time", "event_id", "stage"}
    assert columns["amount"] == {"amount_amount_minor"}
    assert "payment_id" in columns["fraud"]
