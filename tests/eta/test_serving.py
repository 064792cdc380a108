"""The RPCs of eta over the wire: which inputs an answer stands on, and a model that goes live while serving."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from h3.api import basic_int
from redis.asyncio import Redis

from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from arterial.api.eta.v1alpha1 import eta_service_pb2 as pb
from arterial.api.eta.v1alpha1 import eta_service_pb2_grpc
from arterial.api.types.v1 import page_pb2, position_pb2
from arterial.api.types.v1.standing_pb2 import ValueSource
from chassis import kv, resourcefiles
from chassis.config import KvConfig, LakeConfig, RpcConfig
from chassis.errors import ArterialError, Reason
from chassis.learning.artefact import Artefact, Artefacts, Candidate
from chassis.learning.boosting import Settings
from chassis.learning.serving import Loaded, ServedModel
from chassis.rpc.server import serve
from chassis.streaming.online import Head
from chassis.testing import ManualClock, channel, context, eventually
from services.eta.answers import POSSIBLE_SECONDS
from services.eta.handler import EtaHandler, TravelTimes
from services.eta.legs import Floats, Legs
from services.eta.model import FEATURES, MARGINS, MODEL_FILE, from_artefact
from services.eta.store import speed_store
from services.eta.training import Trips, fitted

SEED = Path(__file__).parents[2] / "deploy" / "resources" / "eta.yaml"
POLICY: specs_pb2.EtaPolicySpec = next(each for each in resourcefiles.read([SEED]) if each.kind == "EtaPolicy").eta_policy
NOW = 1_767_225_600.0
CITY = 81
BUILD: Callable[[Artefact], TravelTimes] = from_artefact
HERE, THERE = (40.7559, -73.9870), (40.7736, -73.9566)


def trained(root: LakeConfig, version: str, seconds_per_metre: float) -> resource_pb2.ServedVersion:
    """A version in the store, of trips that take so long."""
    random = np.random.default_rng(7)
    origins = np.array([HERE]) + random.uniform(-0.05, 0.05, (1500, 2))
    legs = Legs(CITY, origins, origins + random.uniform(-0.03, 0.03, (1500, 2)), NOW - np.arange(1500.0)[::-1] * 400)
    seconds = legs.distance_m() * seconds_per_metre * random.lognormal(0.0, 0.1, 1500)
    trips = Trips(legs, seconds)
    model = fitted(trips.where(slice(0, 1000)), trips.where(slice(1000, 1500)), Settings(rounds=20, depth=3))
    names = tuple(feature.name for feature in FEATURES)
    candidate = Candidate({MODEL_FILE: model.quantiles.encoded()}, names, {}, {MARGINS: list(model.margins)})
    saved = Artefacts(root).save("eta", version, "2026-01-01T00:00:00Z", candidate)
    return resource_pb2.ServedVersion(version=version, path=saved.path, sha256=saved.sha256)


class Constant:
    """A model that always says the same."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def predict(self, legs: Legs) -> Floats:
        """So many seconds, 10 % up and down."""
        return self._seconds * np.tile(np.linspace(0.7, 1.3, 7), (len(legs), 1))


class Failing:
    """A model that cannot answer."""

    def predict(self, legs: Legs) -> Floats:
        """Raises."""
        raise RuntimeError("broken")


@asynccontextmanager
async def served(redis: Redis, folder: Path) -> AsyncIterator["tuple[eta_service_pb2_grpc.EtaServiceAsyncStub, ServedModel[TravelTimes]]"]:
    """A running server at NOW, and the model that it asks."""
    model = ServedModel("eta", LakeConfig(root=str(folder)), folder / "copies", BUILD, possible=POSSIBLE_SECONDS)
    role, bound = context(), asyncio.get_running_loop().create_future()

    def register(server: grpc.aio.Server) -> list[str]:
        handler = EtaHandler(speed_store(redis), model, lambda: POLICY, ManualClock(NOW))
        eta_service_pb2_grpc.add_EtaServiceServicer_to_server(handler, server)
        return [pb.DESCRIPTOR.services_by_name["EtaService"].full_name]

    serving = asyncio.ensure_future(serve(RpcConfig(port=0), register, role, bound=bound))
    async with channel(f"127.0.0.1:{await bound}") as connection:
        yield eta_service_pb2_grpc.EtaServiceStub(connection), model
    role.stopping.set()
    await serving


async def jam(redis: Redis, city: int, *, ratio: int, age_seconds: float) -> None:
    """All cells within two rings of the leg are slow by this ratio; the watermark is so old."""
    cells = sorted({near for end in (HERE, THERE) for near in basic_int.grid_disk(basic_int.latlng_to_cell(*end, 8), 4)})
    us = int((NOW - age_seconds) * 1e6)
    values = np.tile(np.array([ratio, 8_000_000 // ratio, 100, int(NOW)]), (len(cells), 1))
    places = np.column_stack([np.full(len(cells), city), cells])
    await speed_store(redis).write_cells(Head(us, us, us, 0, 3, 41), places, values, places[:0])


def leg(departure: float | None = None) -> pb.Leg:
    """The leg that all tests ask about."""
    ends = [position_pb2.Position(latitude=latitude, longitude=longitude) for latitude, longitude in (HERE, THERE)]
    when = None if departure is None else Timestamp(seconds=int(departure))
    return pb.Leg(origin=ends[0], destination=ends[1], departure_time=when)


def source(eta: pb.Eta) -> str:
    """Where an answer comes from."""
    return ValueSource.Name(eta.standing.source).removeprefix("VALUE_SOURCE_")


async def test_an_answer_says_what_it_stands_on(redis_url: str, tmp_path: Path) -> None:
    """Rule, model, live, last good, and the rule again when the model fails; a model goes live between two calls."""
    redis = kv.connect(KvConfig(url=redis_url))
    async with served(redis, tmp_path) as (stub, model):

        async def ask(city: int, departure: float | None = None) -> pb.Eta:
            return (await stub.GetEta(pb.GetEtaRequest(city_id=city, leg=leg(departure)))).eta

        rule = await ask(CITY)
        assert (source(rule), rule.model_version, rule.standing.position.source) == ("RULE_FALLBACK", "", "EtaPolicy/eta")
        assert rule.seconds == pytest.approx(rule.distance_m / 8.0)
        model.live = Loaded("7", "sha", Constant(600.0))
        calm = await ask(CITY)
        assert (source(calm), calm.seconds, calm.model_version, calm.live_ratio_milli) == ("MODEL_ESTIMATE", 600.0, "7", 1000)
        assert calm.standing.position.source == "model/eta@7"
        await jam(redis, CITY + 1, ratio=3000, age_seconds=2)
        slow = await ask(CITY + 1)
        assert (source(slow), slow.standing.stale, slow.live_ratio_milli) == ("LIVE", False, 3000)
        assert slow.seconds > 700 and slow.standing.position.offset == 42
        await jam(redis, CITY + 2, ratio=3000, age_seconds=POLICY.max_age_seconds + 60)
        old = await ask(CITY + 2)
        assert (source(old), old.standing.stale) == ("LAST_GOOD", True) and calm.seconds < old.seconds < slow.seconds
        assert source(await ask(CITY + 1, NOW + 3600)) == "MODEL_ESTIMATE"
        model.live = Loaded("8", "sha8", Failing())
        broken = await ask(CITY)
        assert (source(broken), broken.model_version, broken.seconds) == ("RULE_FALLBACK", "", rule.seconds)
    await redis.aclose()


async def test_a_trained_version_goes_live_between_calls_and_a_broken_one_does_not(redis_url: str, tmp_path: Path) -> None:
    """No call fails meanwhile; every answer is of the version that it names, and has intervals of its own."""
    redis = kv.connect(KvConfig(url=redis_url))
    root = LakeConfig(root=str(tmp_path))
    first, second = [await asyncio.to_thread(trained, root, version, pace) for version, pace in (("1", 0.1), ("2", 0.2))]
    broken = resource_pb2.ServedVersion(version="3", path=second.path, sha256="0" * 64)
    async with served(redis, tmp_path) as (stub, model):
        seen: list[pb.Eta] = []
        asking = True

        async def ask() -> None:
            while asking:
                seen.append((await stub.GetEta(pb.GetEtaRequest(city_id=CITY, leg=leg()))).eta)
                await asyncio.sleep(0.005)

        caller = asyncio.ensure_future(ask())
        loaded = []
        for version in (first, second, broken):
            loaded.append(await model.apply(resource_pb2.ModelStatus(live=version)))
            enough = len(seen) + 2  # one may have been asked for before
            await eventually(lambda enough=enough: asyncio.sleep(0, len(seen) >= enough), "an answer of what is served now")  # type: ignore[misc]
        asking = False
        await caller
        assert loaded == [True, True, False]
        versions = [eta.model_version for eta in seen]
        assert versions == sorted(versions) and set(versions) >= {"1", "2"} and versions[-1] == "2"
        for eta in seen:
            pace = {"": 0.125, "1": 0.1, "2": 0.2}[eta.model_version]
            assert eta.seconds == pytest.approx(eta.distance_m * pace, rel=0.15)
            assert [interval.coverage_percent for interval in eta.intervals] == [50, 80, 95]
            assert all(interval.low_seconds < eta.seconds < interval.high_seconds for interval in eta.intervals)
    await redis.aclose()


async def test_many_legs_are_answered_in_their_order_as_one_by_one(redis_url: str, tmp_path: Path) -> None:
    """A thousand legs, and the shadow is told of them."""
    redis = kv.connect(KvConfig(url=redis_url))
    async with served(redis, tmp_path) as (stub, model):
        model.live, model.shadow = Loaded("7", "sha", Constant(600.0)), Loaded("8", "sha8", Constant(500.0))
        await jam(redis, CITY + 3, ratio=2000, age_seconds=1)
        single = (await stub.GetEta(pb.GetEtaRequest(city_id=CITY + 3, leg=leg()))).eta
        legs = [leg(NOW + 3600 if number % 2 else None) for number in range(1000)]
        many = (await stub.ListEtas(pb.ListEtasRequest(city_id=CITY + 3, legs=legs))).etas
        assert [source(eta) for eta in many[:2]] == ["LIVE", "MODEL_ESTIMATE"] and len(many) == 1000
        assert all(eta == single for eta in many[::2])
        await model._ask()
        assert model._compared is not None and (model._compared.version, model._compared.answers) == ("8", 1001)
    await redis.aclose()


async def test_live_speeds_come_slowest_first_in_pages(redis_url: str, tmp_path: Path) -> None:
    """Pages join to the whole list; a token of another city is refused."""
    redis = kv.connect(KvConfig(url=redis_url))
    async with served(redis, tmp_path) as (stub, _):
        await jam(redis, CITY + 4, ratio=1500, age_seconds=1)
        cell = basic_int.latlng_to_cell(*THERE, 8)
        await speed_store(redis).write_cells(
            Head(int(NOW * 1e6), 0, 0, 0, 3, 42),
            np.array([[CITY + 4, cell]]),
            np.array([[4000, 2000, 50, int(NOW)]]),
            np.zeros((0, 2), np.int64),
        )
        found: list[pb.LiveSpeed] = []
        request = pb.ListLiveSpeedsRequest(city_id=CITY + 4)
        request.page.page_size = 40
        while True:
            reply = await stub.ListLiveSpeeds(request)
            found += reply.speeds
            if not reply.page.next_page_token:
                break
            request.page.page_token = reply.page.next_page_token
        assert (found[0].cell, found[0].ratio_milli, found[0].speed_mmps, found[0].observations) == (cell, 4000, 2000, 50)
        assert len(found) == len({speed.cell for speed in found}) > 80
        request.city_id = CITY
        request.page.page_token = (
            await stub.ListLiveSpeeds(pb.ListLiveSpeedsRequest(city_id=CITY + 4, page=page_pb2.PageRequest(page_size=1)))
        ).page.next_page_token
        with pytest.raises(ArterialError) as refused:
            await stub.ListLiveSpeeds(request)
        assert refused.value.reason is Reason.INVALID_PAGE_TOKEN
    await redis.aclose()


async def test_without_the_online_store_the_model_answers(tmp_path: Path) -> None:
    """What is live is missing, times of arrival are not; the list of speeds says what does not answer."""
    redis = kv.connect(KvConfig(url="redis://127.0.0.1:1"))
    async with served(redis, tmp_path) as (stub, model):
        model.live = Loaded("7", "sha", Constant(600.0))
        assert source((await stub.GetEta(pb.GetEtaRequest(city_id=CITY, leg=leg()))).eta) == "MODEL_ESTIMATE"
        with pytest.raises(ArterialError) as refused:
            await stub.ListLiveSpeeds(pb.ListLiveSpeedsRequest(city_id=CITY))
        assert refused.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    await redis.aclose()
