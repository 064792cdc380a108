"""The simulated city, all numbers in one place, each with its source. Rates are per second for the whole city at scale 1."""

from dataclasses import dataclass


@dataclass(frozen=True)
class HotSpot:
    """Where demand gathers: degrees, standard deviation in metres, share of all demand."""

    name: str
    latitude: float
    longitude: float
    spread_m: float
    share: float


# Shares follow the TLC FOIL release of April 2014: two thirds in Manhattan below 96th Street, a few per cent at each airport.
HOT_SPOTS = (
    HotSpot("midtown", 40.7549, -73.9840, 900, 0.30),
    HotSpot("chelsea", 40.7440, -74.0000, 700, 0.17),
    HotSpot("downtown", 40.7210, -74.0000, 900, 0.19),
    HotSpot("upper-east", 40.7740, -73.9590, 1000, 0.13),
    HotSpot("williamsburg", 40.7140, -73.9560, 1100, 0.10),
    HotSpot("laguardia", 40.7730, -73.8720, 400, 0.03),
    HotSpot("kennedy", 40.6440, -73.7830, 500, 0.03),
    HotSpot("anywhere", 40.7300, -73.9500, 6000, 0.05),
)
# Share of a day's pickups by hour, Monday to Sunday together; the same release: lowest at 2 to 4, a morning shoulder, peak from 17 to 20.
HOURLY_SHARE = (
    0.022, 0.014, 0.010, 0.011, 0.015, 0.024, 0.037, 0.044, 0.042, 0.036, 0.033, 0.034,
    0.035, 0.039, 0.045, 0.053, 0.062, 0.069, 0.068, 0.066, 0.065, 0.066, 0.062, 0.048,
)  # fmt: skip
# Thursday to Saturday are a fifth busier than the mean, Sunday and Monday a fifth quieter; the same release. Monday first.
WEEKDAY_FACTOR = (0.82, 0.95, 1.05, 1.15, 1.18, 1.10, 0.80)


# How much longer a trip takes at an hour of the day than at night; the shape of Manhattan's mean speeds by hour (NYC DOT Mobility Report).
CONGESTION = (
    0.90, 0.85, 0.85, 0.85, 0.88, 0.95, 1.05, 1.20, 1.30, 1.30, 1.25, 1.25,
    1.28, 1.28, 1.32, 1.38, 1.42, 1.45, 1.38, 1.25, 1.15, 1.08, 1.02, 0.95,
)  # fmt: skip


@dataclass(frozen=True)
class Market:
    """A city of the history. It lies away from the first by so many degrees; sizes are small enough for a laptop, assumed."""

    city_id: int
    trips_per_day: float
    riders: int
    drivers: int
    north_degrees: float = 0.0
    east_degrees: float = 0.0
    speed_factor: float = 1.0


MARKETS = (
    Market(1, 2500, 20_000, 900),
    Market(2, 2100, 16_000, 700, north_degrees=1.6, east_degrees=2.9, speed_factor=0.92),
    Market(3, 2800, 24_000, 1000, north_degrees=-0.8, east_degrees=-1.2, speed_factor=1.1),
)


@dataclass(frozen=True)
class Burst:
    """A short event of the demo: so many more requests per second at one place, from so many seconds after the start on."""

    spot: HotSpot
    requests_per_second: float
    after_seconds: int
    seconds: int


# Doors open after a show at the arena above Penn Station: some 15,000 people, a few per cent of whom ask within minutes; assumed.
CONCERT = Burst(HotSpot("arena", 40.7505, -73.9934, 250, 1.0), requests_per_second=6.0, after_seconds=15, seconds=60)


@dataclass(frozen=True)
class Parameters:
    """One city. `requests_per_second` is the mean over a week."""

    city_id: int = 1
    region: str = "us-east"
    requests_per_second: float = 2.0
    drivers: int = 1500
    hot_spots: tuple[HotSpot, ...] = HOT_SPOTS
    # Hall, Kendrick and Nosko (2015) report that a large part of opened sessions ends without a request; two per request is assumed.
    sessions_per_request: float = 2.0
    quotes_per_request: float = 1.4
    # City driving including lights, all boroughs: about 25 to 30 km/h (NYC DOT Mobility Report).
    speed_mps: float = 8.0
    # Trips of the TLC green records of 2022: median about 3 km.
    mean_trip_m: float = 2800.0
    # Fares: NYC ride-hail rate card of the time, base + per km + per minute, cents.
    base_minor: int = 255
    per_km_minor: int = 109
    per_minute_minor: int = 35
    gps_interval_seconds: int = 4
    heartbeat_seconds: int = 15
    # A driver further away than this is not offered a trip.
    max_pickup_m: float = 3000.0
    # Candidates looked at per request: a sample of the free drivers, as a dispatcher looks at those near by.
    candidates: int = 48
    # From now and then a match or a rider fails: assumed.
    cancel_share: float = 0.04
    # All riders pay by card; cash makes no payment events.
    products: tuple[str, ...] = ("standard", "pool", "scooter")
    product_share: tuple[float, ...] = (0.8, 0.15, 0.05)
    # Crash or failure share of app telemetry: assumed.
    failed_share: float = 0.01
