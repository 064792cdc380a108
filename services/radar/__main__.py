"""Starts one role of radar."""

from chassis import process
from services.radar.config import RadarConfig

ROLES = {
    "serve": "services.radar.serving:serve",
    "combine": "services.radar.combine:combine",
    "stream": "services.radar.stream:stream",
    "work": "services.radar.work:work",
}


def main() -> None:
    """Console script."""
    process.main("arterial-radar", RadarConfig, ROLES)


if __name__ == "__main__":
    main()
