"""One analysis by name, done for a run: computed, drawn, written."""

from pathlib import Path
from types import ModuleType

from vwm.analysis import error_distribution, fixed_points, mixed_selectivity, normalisation, signal_to_noise, weights
from vwm.analysis.names import FROM_RESPONSES
from vwm.analysis.results import Progress, Result, unwatched, write_result
from vwm.behaviour.responses import Responses
from vwm.config import Configuration
from vwm.errors import UserError
from vwm.model.network import Network

# Each has analyse(network, configuration[, responses], progress) -> Result, DEFINITIONS, and plot(result).
MODULES: dict[str, ModuleType] = {
    "error_distribution": error_distribution,
    "signal_to_noise": signal_to_noise,
    "normalisation": normalisation,
    "mixed_selectivity": mixed_selectivity,
    "weights": weights,
    "fixed_points": fixed_points,
}


def compute(
    name: str,
    network: Network,
    configuration: Configuration,
    responses: Responses | None = None,
    progress: Progress = unwatched,
) -> Result:
    """The numbers of one analysis.

    Args:
        name: one of ``names.QUESTIONS``.
        network: trained.
        configuration: of the run.
        responses: of this network, where ``name`` is one of ``names.FROM_RESPONSES``.
        progress: told how far it is.

    Raises:
        UserError: the network or the responses cannot be analysed.
    """
    module = MODULES[name]
    if name not in FROM_RESPONSES:
        result: Result = module.analyse(network, configuration, progress)
        return result
    assert responses is not None
    trained = sorted(configuration.model_params.item_num)
    if responses.set_sizes() != trained:
        raise UserError(
            f"{name}: the responses are to set sizes {responses.set_sizes()}, but this network was trained with "
            f"item_num {trained}. Evaluate it again: vwm evaluate"
        )
    of_responses: Result = module.analyse(network, configuration, responses, progress)
    return of_responses


def write(name: str, result: Result, configuration: Configuration, folder: Path, made_from: str) -> list[Path]:
    """Draw the figures of a result and write all its files; returns them, the text first.

    Args:
        name: of the analysis.
        result: what `compute` gave.
        configuration: of the run.
        folder: <run>/analysis.
        made_from: see `made_from.made_from`.
    """
    module = MODULES[name]
    return write_result(folder, name, configuration.run_id, made_from, module.DEFINITIONS, result, module.plot(result))
