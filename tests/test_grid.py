"""The grammar of a sweep file against points written out by hand, and what it refuses."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import tiny
from tests.sweep_files import write_sweep
from vwm.config_file import InvalidInput, validate
from vwm.files import dump_yaml
from vwm.sweep.axes import axis_values
from vwm.sweep.grid import Sweep, read_sweep

NOISE, LOSS = "model_params.spike_noise_factor", "training_params.error_def"
DELAY, DECODE = "model_params.T_delay", "model_params.T_decode"


def points(sweep: Sweep) -> list[tuple[Any, ...]]:
    """Values of the axes and the seed, run by run."""
    return [(*run.settings.values(), run.seed) for run in sweep.runs]


def test_the_grammar_of_the_design_expands_to_these_points(tmp_path: Path) -> None:
    path = write_sweep(
        tmp_path,
        set={"training_params.num_iterations": 20},
        grid={
            NOISE: [0.05, 0.1, 0.2, 0.3],
            LOSS: ["rad", "l2"],
            "zip": {DELAY: [500, 1000], DECODE: [240, 500]},
        },
        exclude=[{NOISE: 0.3, LOSS: "l2"}],
        include=[{NOISE: 0.0}],
        seeds=5,
        table={"rows": NOISE},
    )

    sweep = read_sweep(path)

    grid = [
        (noise, loss, delay, decode)
        for noise in (0.05, 0.1, 0.2, 0.3)
        for loss in ("rad", "l2")
        for delay, decode in ((500.0, 240.0), (1000.0, 500.0))
        if (noise, loss) != (0.3, "l2")
    ]
    base = tiny()["model_params"]
    extra = (0.0, "rad", base["T_delay"], base["T_decode"])
    assert points(sweep) == [(*point, seed) for point in [*grid, extra] for seed in range(5)]
    assert sweep.axes == (NOISE, LOSS, DELAY, DECODE)
    assert sweep.rows == (NOISE,)
    assert all(run.configuration.training_params.num_iterations == 20 for run in sweep.runs)


def test_a_run_is_the_base_with_its_settings_and_nothing_else(tmp_path: Path) -> None:
    sweep = read_sweep(write_sweep(tmp_path, grid={NOISE: [0.1, 0.4]}, seeds=[7]))

    for run, noise in zip(sweep.runs, (0.1, 0.4), strict=True):
        by_hand = validate(tiny(model_params__spike_noise_factor=noise, training_params__seed=7), str)
        assert run.configuration == by_hand
        assert run.run_id == by_hand.run_id


def test_the_resolved_sweep_stands_alone_and_expands_to_the_same_runs(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(tiny()))
    (tmp_path / "launch").mkdir()
    path = write_sweep(
        tmp_path / "sweeps",
        base="../base.yaml",
        grid={NOISE: {"geomspace": [0.01, 0.3, 4]}, "model_params.item_num": [[1], [1, 3]]},
        include=[{"model_params.ILC_noise": 0.3}],
        launch="../launch/local.yaml",
    )
    sweep = read_sweep(path)

    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "sweep.yaml"
    copy.write_text(dump_yaml(dict(sweep.resolved)))
    (tmp_path / "base.yaml").unlink()

    again = read_sweep(copy)
    assert [run.run_id for run in again.runs] == [run.run_id for run in sweep.runs]
    assert again == sweep
    assert sweep.profile == tmp_path / "launch" / "local.yaml"


def test_adding_a_value_keeps_the_identity_of_every_other_run(tmp_path: Path) -> None:
    before = read_sweep(write_sweep(tmp_path, grid={NOISE: [0.1, 0.2]}, seeds=2))
    after = read_sweep(write_sweep(tmp_path, grid={NOISE: [0.1, 0.15, 0.2]}, seeds=3))

    assert {run.run_id for run in before.runs} < {run.run_id for run in after.runs}
    assert len({run.run_id for run in after.runs}) == 9


@pytest.mark.parametrize(
    ("formula", "values"),
    [
        ({"linspace": [0, 1, 5]}, [0.0, 0.25, 0.5, 0.75, 1.0]),
        ({"linspace": [3, 1, 2]}, [3.0, 1.0]),
        ({"linspace": [0.3, 9, 1]}, [0.3]),
        ({"geomspace": [1e-6, 1e-3, 4]}, [1e-6, 1e-5, 1e-4, 1e-3]),
        ({"range": [0, 1, 0.1]}, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        ({"range": [1, 10, 4]}, [1, 5, 9]),
        ({"range": [10, 1, -3]}, [10, 7, 4, 1]),
        ({"range": [0.1, 0.7, 0.2]}, [0.1, 0.3, 0.5, 0.7]),
    ],
)
def test_a_formula_gives_exactly_the_decimal_numbers_a_person_would_write(
    formula: dict[str, list[float]], values: list[float]
) -> None:
    assert axis_values(formula, NOISE, "here") == values


def test_whole_numbers_of_a_formula_are_whole(tmp_path: Path) -> None:
    sizes = "model_params.num_neurons"
    spaced = read_sweep(write_sweep(tmp_path, grid={sizes: {"linspace": [16, 64, 4]}}))
    listed = read_sweep(write_sweep(tmp_path, grid={sizes: [16, 32, 48, 64]}))

    assert [run.run_id for run in spaced.runs] == [run.run_id for run in listed.runs]
    assert [run.settings[sizes] for run in spaced.runs] == [16, 32, 48, 64]


def test_several_zips_are_factors_of_the_product(tmp_path: Path) -> None:
    sweep = read_sweep(
        write_sweep(
            tmp_path,
            grid={
                "zip": [
                    {DELAY: [500, 1000], DECODE: [240, 500]},
                    {"model_params.tau_min": [20, 40], "model_params.tau_max": [200, 400]},
                ],
                LOSS: ["rad", "exp"],
            },
        )
    )
    expected = itertools.product([(500, 240), (1000, 500)], [(20, 200), (40, 400)], ["rad", "exp"])
    assert points(sweep) == [(*durations, *taus, loss, 0) for durations, taus, loss in expected]


def test_lists_are_values_and_a_grid_may_be_left_out(tmp_path: Path) -> None:
    sizes = "model_params.item_num"
    assert points(read_sweep(write_sweep(tmp_path, grid={sizes: [[1], [1, 2]]}))) == [((1,), 0), ((1, 2), 0)]
    assert points(read_sweep(write_sweep(tmp_path, seeds=[4, 2]))) == [(4,), (2,)]


def test_a_name_that_only_include_has_is_an_axis(tmp_path: Path) -> None:
    sweep = read_sweep(write_sweep(tmp_path, grid={NOISE: [0.1]}, include=[{"model_params.ILC_noise": 0.3}]))

    assert sweep.axes == (NOISE, "model_params.ILC_noise")
    base = validate(tiny(), str).model_params
    assert points(sweep) == [(0.1, base.ILC_noise, 0), (base.spike_noise_factor, 0.3, 0)]


def test_seeds_default_to_the_seed_of_the_base(tmp_path: Path) -> None:
    sweep = read_sweep(write_sweep(tmp_path, base=tiny(training_params__seed=3), grid={NOISE: [0.1]}))
    assert [run.seed for run in sweep.runs] == [3]


def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, grid={NOISE: [], "model_params.nothing": [1]}, seeds=0, table={"rows": "x"})
    with pytest.raises(InvalidInput) as refused:
        read_sweep(path)
    assert len(refused.value.problems) == 4


def test_a_bad_value_is_told_once_however_many_points_it_spoils(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, grid={NOISE: [-1, 0.1], LOSS: ["rad", "l2", "exp"]}, seeds=4)
    with pytest.raises(InvalidInput) as refused:
        read_sweep(path)
    (problem,) = refused.value.problems
    assert (problem.name, problem.given, problem.expected) == (NOISE, "-1", "a number ≥ 0")


@pytest.mark.parametrize(
    "parts",
    [
        {"grid": [1, 2]},
        {"grid": {"zip": []}},
        {"grid": {"zip": {}}},
        {"grid": {"zip": [3]}},
        {"grid": {3: [1]}},
        {"grid": {NOISE: {"linspace": [0, 1, 2.5]}}},
        {"grid": {NOISE: {"linspace": [0, 1]}}},
        {"grid": {NOISE: {"linspace": [0, float("inf"), 3]}}},
        {"grid": {NOISE: {"geomspace": [0, 1, 3]}}},
        {"grid": {NOISE: {"range": [0, 1, 0]}}},
        {"grid": {NOISE: {"range": [0, 1, 1e-300]}}},
        {"grid": {NOISE: {"range": [0, 10**400, 1]}}},
        {"grid": {NOISE: [[]]}},
        {"grid": {NOISE: [{"a": 1}, {"a": 1}]}},
        {"set": [1]},
        {"set": {"training_params.seed": 3}},
        {"include": {NOISE: 1}},
        {"include": [{}]},
        {"include": [{"training_params.seed": 3}]},
        {"exclude": [{"model_params.ILC_noise": 0.01}], "grid": {NOISE: [0.1]}},
        {"exclude": [{NOISE: 0.1}], "grid": {NOISE: [0.1]}},
        {"exclude": [{"model_params.dales_law": 1}], "grid": {"model_params.dales_law": [True, False]}},
        {"seeds": []},
        {"seeds": True},
        {"seeds": [0, 0]},
        {"seeds": [-1]},
        {"seeds": ["a"]},
        {"launch": 3},
        {"table": "rows"},
        {"table": {"columns": NOISE}},
        {"name": 7},
        {"name": ".."},
        {"name": "a" * 65},
        {"name": "a\n"},
        {"base": None},
        {"base": [1]},
        {"base": "."},
    ],
    ids=str,
)
def test_everything_else_is_refused_as_a_mistake_of_the_user(tmp_path: Path, parts: dict[str, Any]) -> None:
    path = write_sweep(tmp_path)
    path.write_text(yaml.safe_dump({"name": "tiny", "base": tiny(), **parts}, sort_keys=False))
    with pytest.raises(InvalidInput) as refused:
        read_sweep(path)
    for problem in refused.value.problems:
        assert problem.place.startswith(str(path))
        assert problem.given
        assert problem.expected


def test_a_wrong_axis_is_told_once_however_often_it_is_named(tmp_path: Path) -> None:
    wrong = "model_params.spike_noise"
    path = write_sweep(tmp_path, grid={wrong: [1, 2], NOISE: []}, exclude=[{NOISE: 0.1}], table={"rows": [wrong]})
    with pytest.raises(InvalidInput) as refused:
        read_sweep(path)
    assert [problem.name for problem in refused.value.problems] == [wrong, NOISE]


@pytest.mark.parametrize("file", sorted((Path(__file__).parent.parent / "sweeps").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_sweep_file_of_the_project_expands(file: Path) -> None:
    sweep = read_sweep(file)
    assert sweep.name == file.stem
    assert len(sweep.runs) > 1
    # One that is for a single machine says so; the others go to SLURM where there is one.
    assert (sweep.profile is not None) == (file.stem == "quick")
    assert sweep.profile is None or sweep.profile.is_file()
