"""The command of ``vwm-sweep`` that measures packs."""

from vwm.cli.sweep_options import RUNS, On, Runs, SweepName, count_of_runs, new_console


def measure_packs(sweep: SweepName, runs: Runs = RUNS, on: On = None) -> None:
    """Measure on the GPU of this machine how many runs a job should train together, for a profile that leaves it open.

    That is a profile with runs_per_job: auto. Packs of 1, 2, 4, … runs of each kind in the sweep are trained for a few
    iterations, for as long as twice as many do more in all. The result goes into a file beside the profile, and counts
    for every sweep on it. On a cluster: srun --gres=gpu:1 vwm-sweep measure-packs SWEEP --on PROFILE
    """
    from vwm.errors import UserError
    from vwm.sweep.find import find_sweep
    from vwm.sweep.packing import WORTH_DOUBLING, chosen, kind_of, measurements_file, write_pack
    from vwm.sweep.profile import read_profile

    found = find_sweep(sweep, runs)
    profile = on or found.sweep.profile
    if profile is None:
        raise UserError("The result stands beside a launch profile, and none is named. Name one with --on.")
    if read_profile(profile).runs_per_job != "auto":
        raise UserError(
            f"{profile}: the number of runs in a job is fixed there. Write runs_per_job: auto to have it open."
        )

    from vwm.training.pack_speed import card, pack_speeds

    name = card()
    if name is None:
        raise UserError(
            "There is no GPU here, and on CPUs packs gain nothing. On a cluster, start this with srun on one."
        )
    console = new_console()
    console.print(f"{name}; iterations a second of all runs together, and memory", markup=False, soft_wrap=True)
    kinds = {kind_of(run.configuration): run.configuration for run in found.sweep.runs}
    for kind, configuration in kinds.items():
        console.print(f"\n{kind}", markup=False, soft_wrap=True)
        speeds = []
        for speed in pack_speeds(configuration, WORTH_DOUBLING):
            speeds.append(speed)
            rate = f"{speed.iterations_per_second:,.0f}"
            console.print(f"{count_of_runs(speed.runs):>8}{rate:>10}/s{speed.gib:>8.2f} GiB", markup=False)
        if not speeds:
            raise UserError(f"{kind}: the memory of {name} does not hold one run. Lower training_params.num_trials.")
        pack = chosen(name, speeds)
        write_pack(profile, configuration, pack, speeds)
        console.print(f"chosen: {pack.runs}, {pack.gain:.2g} times the iterations of one", markup=False)
    console.print(f"\nWritten to {measurements_file(profile)}.", markup=False, soft_wrap=True)
