"""Starts one role of pricing."""

from chassis import process
from services.pricing.config import PricingConfig

ROLES = {
    "serve": "services.pricing.serving:serve",
    "combine": "services.pricing.stream:combine",
    "stream": "services.pricing.stream:stream",
    "work": "services.pricing.work:work",
    "features": "services.pricing.declared:features",
}


def main() -> None:
    """Console script."""
    process.main("arterial-pricing", PricingConfig, ROLES)


if __name__ == "__main__":
    main()
