"""One run of a sweep in this process, for a few iterations, with a debugger where it fails."""

import pdb
import sys
import tempfile
import traceback
from pathlib import Path

from vwm.errors import UserError
from vwm.sweep.grid import SweepRun
from vwm.training.run_folder import Phase, RunFolder, prepare_run_folder


def debug_run(run: SweepRun, iterations: int) -> tuple[Phase, str | None]:
    """Train ``run`` from its beginning for ``iterations``, evaluate it, and forget it; the sweep is not touched.

    An error opens the debugger where it was raised.

    Returns:
        The phase it ended in, and the detail of a failure.

    Raises:
        UserError: the run is refused.
    """
    training = run.configuration.training_params
    training = training.model_copy(update={"num_iterations": iterations, "logging_period": 1})
    configuration = run.configuration.model_copy(update={"training_params": training})
    with tempfile.TemporaryDirectory(prefix="vwm-debug-") as temporary:
        folder = prepare_run_folder(Path(temporary, run.run_id), configuration)
        return _train(folder)


def _train(folder: RunFolder) -> tuple[Phase, str | None]:
    from vwm.training.train import train_folders

    try:
        train_folders([folder])
    except UserError:
        raise
    except Exception as error:  # Whatever it is, the debugger is to open where it was raised.
        traceback.print_exc()
        print("The debugger stands where the error was raised: w shows the way there, q leaves.", file=sys.stderr)
        pdb.post_mortem(error.__traceback__)
        return "failed", None
    state = folder.read_state()
    assert state is not None
    return state.phase, state.detail
