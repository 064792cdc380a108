"""Starts one role of eta."""

from chassis import process
from services.eta.config import EtaConfig

ROLES = {
    "serve": "services.eta.serving:serve",
    "combine": "services.eta.stream:combine",
    "stream": "services.eta.stream:stream",
    "work": "services.eta.work:work",
}


def main() -> None:
    """Console script."""
    process.main("arterial-eta", EtaConfig, ROLES)


if __name__ == "__main__":
    main()
