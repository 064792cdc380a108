"""One module per service, each with `CASES`: a case per RPC, by "Service/Rpc"."""

import importlib
import pkgutil

from tests.contract.case import Case


def all_cases() -> dict[str, Case]:
    """The cases of every module here."""
    found: dict[str, Case] = {}
    for module in pkgutil.iter_modules(__path__):
        found |= importlib.import_module(f"{__name__}.{module.name}").CASES
    return found
