"""Gradient boosting (XGBoost; Chen and Guestrin 2016): quantiles, classes and counts, as bytes and back, with bounded threads."""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chassis.learning.checkpoints import Checkpoints


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """As if the module were not installed, for those who import it if they can."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment] # the documented way to make an import fail
    try:
        yield
    finally:
        del sys.modules[module]


# XGBoost's interface to scikit-learn is not used here, and triples what a serving process takes: 62 MB resident without, 194 MB with it.
with _hidden("sklearn"):
    import xgboost as xgb

Floats = NDArray[np.float64]
_SEED = 7


@dataclass(frozen=True)
class Settings:
    """How trees are grown. `categories` are the columns whose numbers are names, for example of zones.

    One thread unless told otherwise: training shares its machine with what serves, and threads that wait for a busy core spin.
    """

    rounds: int = 300
    depth: int = 6
    learning_rate: float = 0.1
    min_child_weight: float = 20.0
    column_share: float = 1.0
    row_share: float = 1.0
    categories: tuple[int, ...] = ()
    threads: int = 1
    extra: tuple[tuple[str, Any], ...] = ()

    def parameters(self) -> dict[str, Any]:
        """Those of XGBoost."""
        return {
            "max_depth": self.depth,
            "eta": self.learning_rate,
            "min_child_weight": self.min_child_weight,
            "colsample_bytree": self.column_share,
            "subsample": self.row_share,
            "tree_method": "hist",
            "nthread": self.threads,
            "seed": _SEED,
            "verbosity": 0,
            **dict(self.extra),
        }


class Boosted:
    """A trained ensemble; predicts on one thread, from any thread."""

    def __init__(self, booster: xgb.Booster, categories: tuple[int, ...]) -> None:
        self._booster = booster
        self._booster.set_param({"nthread": 1})
        self._categories = categories

    def predict(self, features: Floats) -> Floats:
        """Predictions; shape (n, features) to (n,), or (n, quantiles) in ascending order of the quantiles, never crossing.

        Quantiles that cross are sorted: that never makes their pinball loss worse (Chernozhukov, Fernandez-Val and Galichon 2010).
        """
        if self._categories:
            found = self._booster.predict(_matrix(features, categories=self._categories))
        else:
            # In place: no matrix is built, which is most of the time of a small prediction.
            found = self._booster.inplace_predict(features)
        found = np.asarray(found, np.float64)
        return np.sort(found, axis=1) if found.ndim == 2 else found

    def contributions(self, features: Floats) -> Floats:
        """What each feature adds to the margin (SHAP values of trees; Lundberg et al. 2020), of a model with one output.

        Shape (n, features) to (n, features); the margin's base is left out.
        """
        found = self._booster.predict(_matrix(features, categories=self._categories), pred_contribs=True)
        return np.asarray(found, np.float64)[:, :-1]

    def encoded(self) -> bytes:
        """UBJ, XGBoost's portable binary format."""
        return bytes(self._booster.save_raw("ubj"))

    @classmethod
    def decoded(cls, content: bytes, categories: tuple[int, ...] = ()) -> "Boosted":
        """A model from `encoded`.

        Raises:
            ValueError: it is not one.
        """
        booster = xgb.Booster()
        try:
            booster.load_model(bytearray(content))
        except xgb.core.XGBoostError as error:
            raise ValueError(f"not a model of XGBoost: {str(error)[:200]}") from error
        return cls(booster, categories)


def fit_quantiles(
    features: Floats, target: Floats, quantiles: Sequence[float], settings: Settings, *, checkpoints: Checkpoints | None = None
) -> Boosted:
    """One model of all these quantiles; shapes (n, features), (n,). The quantiles are ascending."""
    data = _Data(features, target, {"objective": "reg:quantileerror", "quantile_alpha": list(quantiles)})
    return _fit(data, settings, checkpoints)


def fit_classifier(
    features: Floats,
    labels: NDArray[np.bool_],
    settings: Settings,
    weights: Floats | None = None,
    *,
    checkpoints: Checkpoints | None = None,
) -> Boosted:
    """A model of the probability that a label is true; shapes (n, features), (n,), (n,)."""
    return _fit(_Data(features, labels.astype(np.float64), {"objective": "binary:logistic"}, weights), settings, checkpoints)


def fit_counts(
    features: Floats, counts: Floats, settings: Settings, exposure: Floats | None = None, *, checkpoints: Checkpoints | None = None
) -> Boosted:
    """A model of the expectation of Poisson counts per unit of exposure; shapes (n, features), (n,), (n,)."""
    rates = counts if exposure is None else counts / exposure
    return _fit(_Data(features, rates, {"objective": "count:poisson"}, exposure), settings, checkpoints)


@dataclass(frozen=True)
class _Data:
    """What is learned from, and to what end."""

    features: Floats
    target: Floats
    objective: Mapping[str, Any]
    weights: Floats | None = None

    def digest(self, settings: Settings) -> str:
        """The same for the same data, end and settings."""
        digest = hashlib.sha256(repr((self.objective, settings, self.features.shape)).encode())
        for values in (self.features, self.target, self.weights):
            digest.update(b"" if values is None else np.ascontiguousarray(values).data)
        return digest.hexdigest()[:32]


class _Keeping(xgb.callback.TrainingCallback):
    """Keeps a checkpoint every now and then."""

    def __init__(self, checkpoints: Checkpoints, name: str) -> None:
        super().__init__()
        self._checkpoints = checkpoints
        self._name = name

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """False: training goes on."""
        if self._checkpoints.due:
            self._checkpoints.save(self._name, bytes(model.save_raw("ubj")))
        return False


def _fit(data: _Data, settings: Settings, checkpoints: Checkpoints | None) -> Boosted:
    """Trained from the beginning, or on from the last checkpoint.

    Without sampling of rows or columns that comes to the same model; with it, to one of other draws.
    """
    matrix = _matrix(data.features, data.target, data.weights, categories=settings.categories)
    parameters = {**settings.parameters(), **data.objective}
    if checkpoints is None:
        return Boosted(xgb.train(parameters, matrix, settings.rounds), settings.categories)
    name = f"{data.digest(settings)}.ubj"
    begun = _begun(checkpoints.load(name))
    done = begun.num_boosted_rounds() if begun is not None else 0
    if done:
        checkpoints.tell(f"going on after {done} of {settings.rounds} rounds")
    keeping = [_Keeping(checkpoints, name)]
    return Boosted(xgb.train(parameters, matrix, settings.rounds - done, xgb_model=begun, callbacks=keeping), settings.categories)


def _begun(content: bytes | None) -> xgb.Booster | None:
    if content is None:
        return None
    booster = xgb.Booster()
    booster.load_model(bytearray(content))
    return booster


def _matrix(features: Floats, target: Floats | None = None, weights: Floats | None = None, *, categories: tuple[int, ...]) -> xgb.DMatrix:
    kinds = ["c" if column in categories else "q" for column in range(features.shape[1])] if categories else None
    return xgb.DMatrix(features, target, weight=weights, feature_types=kinds, enable_categorical=bool(categories), nthread=1)
