"""The names of the analyses, what each asks, and which of them a configuration switches on. Imports no torch."""

from vwm.config import Configuration
from vwm.errors import UserError
from vwm.files import nearest

QUESTIONS = {
    "error_distribution": "how errors are distributed at each set size, and how they grow over the delay",
    "signal_to_noise": "how far signals stand above noise, and how much of what the spikes tell is used",
    "normalisation": "whether several items divide the response between them",
    "mixed_selectivity": "to what units respond: one item, several added up, or items in combination",
    "weights": "how the weights are structured, and whether excitation and inhibition balance",
    "fixed_points": "where the network stands still, and how its memory drifts",
}
"""What each analysis asks, in the order in which they are done."""

FROM_RESPONSES = ("error_distribution", "signal_to_noise", "normalisation")
"""Those that start from the responses of the final evaluation."""


def check_names(names: list[str]) -> list[str]:
    """The names in the order of the catalogue, all of them where none is given.

    Raises:
        UserError: there is no analysis of some name.
    """
    for name in names:
        if name not in QUESTIONS:
            hint = nearest(name, QUESTIONS)
            known = f"the analyses are {', '.join(QUESTIONS)}"
            raise UserError(f"There is no analysis {name!r}; {hint or known}")
    return [name for name in QUESTIONS if name in names or not names]


def switched_on(configuration: Configuration) -> list[str]:
    """The analyses that a configuration asks for after training, in the order of the catalogue."""
    switches = configuration.model_and_logging_params
    wanted = {
        "error_distribution": switches.error_dist_bool or switches.fit_mixture_bool,
        "signal_to_noise": switches.snr_analy_bool,
        "mixed_selectivity": switches.mixed_selec_bool,
        "weights": switches.plot_weights_bool,
        "fixed_points": configuration.fpf_params.fpf_bool,
    }
    return [name for name in QUESTIONS if wanted.get(name, False)]
