"""Starts one role of the Data Stats Service."""

from chassis import process
from services.dss.config import DssConfig

ROLES = {
    "serve": "services.dss.serving:serve",
    "profile": "services.dss.following:profile",
}


def main() -> None:
    """Console script."""
    process.main("arterial-dss", DssConfig, ROLES)


if __name__ == "__main__":
    main()
