"""Role `features`: the declared features that name this service."""

from chassis.features.role import features as run
from chassis.process import Context
from services.pricing.config import PricingConfig

SERVICE = "pricing"


async def features(config: PricingConfig, context: Context) -> None:
    """Runs until the process is stopped."""
    await run(config, context, SERVICE)
