"""How far networks are from people, at the set sizes that both have."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from vwm.behaviour.circular import FloatArray
from vwm.behaviour.human_facts import CITATIONS as CITATIONS
from vwm.behaviour.human_facts import FACTS, SUBJECTS

_COLUMNS = ["source", "set_size", "measure", "mean", "se", "n_responders"]
_MEASURES = (
    *("mean_abs_error", "circular_sd", "circular_variance", "circular_kurtosis", "precision"),
    *("w", "kappa", "capacity", "sd", "information", "p_t", "p_n", "p_u"),
)
_RANKED_BY = ("circular_variance", "circular_kurtosis")

SUMMARIES = pd.DataFrame(
    [
        (source, n, measure, mean, se, float(SUBJECTS.get(source, np.nan)))
        for source, measures in FACTS.items()
        for measure, by_set_size in measures.items()
        for n, (mean, se) in by_set_size.items()
    ],
    columns=_COLUMNS,
)
"""Published means and standard errors over subjects: ``source``, ``set_size``, ``measure`` (named as in
``tables.MEASURES``), ``mean``, ``se`` and ``n_responders`` (NaN where not known)."""


def summarise(measured: pd.DataFrame, source: str) -> pd.DataFrame:
    """Full data of people in the form of ``SUMMARIES``.

    All cells go into the means, those that are flagged too, as in the publications.

    Args:
        measured: rows responder × set size: ``responder`` and the columns of ``tables.measures``.
        source: what to call these data.
    """
    parts = []
    for measure in (name for name in _MEASURES if name in measured):
        groups = measured.groupby("set_size")[measure]
        table = pd.DataFrame({"mean": groups.mean(), "se": groups.sem(), "n_responders": groups.count().astype(float)})
        parts.append(table[table["n_responders"] > 0].reset_index().assign(source=source, measure=measure))
    return pd.concat(parts, ignore_index=True)[_COLUMNS]


def compare(by_set_size: pd.DataFrame, human: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Each grid point beside people at the set sizes that both have.

    Args:
        by_set_size: rows grid point × set size with the columns ``by``, ``set_size`` and ``<measure>_mean``.
        human: rows of ``SUMMARIES`` or ``summarise``.
        by: the columns that name a grid point.

    Returns:
        One row per grid point, source, measure and matched set size: ``by``, ``source``, ``measure``, ``set_size``,
        ``network``, ``human``, ``human_se`` and ``z`` = (network − human)/human_se, NaN without a standard error.
    """
    measures = [name for name in human["measure"].unique() if f"{name}_mean" in by_set_size]
    networks = by_set_size[[*by, "set_size", *(f"{name}_mean" for name in measures)]]
    networks = networks.rename(columns={f"{name}_mean": name for name in measures})
    # The grid points keep their order, which a merge on set sizes alone would not.
    long = networks.assign(_point=np.arange(len(networks))).melt(
        id_vars=["_point", *by, "set_size"], var_name="measure", value_name="network"
    )
    people = human.rename(columns={"mean": "human", "se": "human_se"}).assign(_source=_order(human["source"]))
    found = long.dropna(subset="network").merge(people, on=["measure", "set_size"], how="inner")
    found["z"] = (found["network"] - found["human"]) / found["human_se"].where(found["human_se"] > 0)
    found["_measure"] = _order(found["measure"])
    grid_point = found.groupby(list(by), sort=False, dropna=False)["_point"].transform("min") if by else 0
    found = found.assign(_grid_point=grid_point)
    found = found.sort_values(["_grid_point", "_source", "_measure", "set_size"], kind="stable", ignore_index=True)
    return found[[*by, "source", "measure", "set_size", "network", "human", "human_se", "z"]]


def rank(by_set_size: pd.DataFrame, human: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Grid points by closeness to people, the closest first within each source.

    Returns:
        One row per grid point and source that has variance and kurtosis: ``by``, ``source``, ``n_set_sizes``
        (matched), ``variance_distance`` (root mean square of ln(network variance/human variance)),
        ``kurtosis_distance`` (root mean square difference), ``exponent_distance`` (|difference| of the exponent of
        variance over the matched set sizes), ``rms_z`` (root mean square z of both measures) and ``rank`` by ``rms_z``.
    """
    compared = compare(by_set_size, human, by)
    compared = compared[compared["measure"].isin(_RANKED_BY)]
    rows = []
    for names, points in compared.groupby([*by, "source"], sort=False, dropna=False):
        variance, kurtosis = (points[points["measure"] == measure] for measure in _RANKED_BY)
        sizes = sorted(set(variance["set_size"]) & set(kurtosis["set_size"]))
        if sizes:
            rows.append((*names, len(sizes), *_distances(variance, kurtosis, sizes)))
    columns = ["n_set_sizes", "variance_distance", "kurtosis_distance", "exponent_distance", "rms_z"]
    table = pd.DataFrame(rows, columns=[*by, "source", *columns])
    table["rank"] = table.groupby("source")["rms_z"].rank(method="min", na_option="bottom").astype(int)
    order = pd.DataFrame({"source": _order(table["source"]), "rank": table["rank"]})
    return table.loc[order.sort_values(["source", "rank"], kind="stable").index].reset_index(drop=True)


def _distances(
    variance: pd.DataFrame, kurtosis: pd.DataFrame, sizes: Sequence[int]
) -> tuple[float, float, float, float]:
    """In variance, kurtosis and exponent, and the RMS of z, over the set sizes ``sizes``."""
    variance, kurtosis = (table.set_index("set_size").loc[list(sizes)] for table in (variance, kurtosis))
    ratio = np.log(variance["network"].to_numpy() / variance["human"].to_numpy())
    difference = (kurtosis["network"] - kurtosis["human"]).to_numpy()
    # The difference of two least-squares slopes is the slope of the difference.
    exponent = abs(np.polyfit(np.log(sizes), ratio, 1)[0]) if len(sizes) > 1 else np.nan
    z = np.concatenate([variance["z"], kurtosis["z"]])
    return _rms(ratio), _rms(difference), float(exponent), _rms(z)


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _order(names: "pd.Series[str]") -> "pd.Series[int]":
    """The place of each name in the order in which names first appear."""
    return pd.Series(pd.factorize(names)[0], index=names.index)
