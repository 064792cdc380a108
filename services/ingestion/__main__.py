"""Starts one role of ingestion."""

from chassis import process
from services.ingestion.config import IngestionConfig

ROLES = {
    "serve": "services.ingestion.serving:serve",
    "stream": "services.ingestion.stream:stream",
    "follow": "services.ingestion.follow:follow",
    "backfill": "services.ingestion.backfill:backfill",
}


def main() -> None:
    """Console script."""
    process.main("arterial-ingestion", IngestionConfig, ROLES)


if __name__ == "__main__":
    main()
