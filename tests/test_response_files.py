"""Responses from CSV: units, names of columns, the convention of non-targets, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from tests.simulated import swapping
from vwm.behaviour.circular import FloatArray, wrap
from vwm.behaviour.response_files import CONVENTIONS, read_csv
from vwm.behaviour.responses import UnreadableResponses
from vwm.errors import UserError

SMALL = "subject,set_size,target,response,non_target_1,non_target_2\na,1,0.5,0.6,,\nb,3,3.1,-3.1,1.0,-2.0\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def experiment(path: Path, convention: str, p_n: float = 0.2, factor: float = 1.0) -> tuple[FloatArray, FloatArray]:
    """A file of 400 responses at set sizes 1 and 4 in angles times ``factor``; the targets and non-targets in it."""
    rng = np.random.default_rng(0)
    errors, nontarget_errors = swapping(0.7, p_n, 10.0, 4, 300, rng)
    target = rng.uniform(-np.pi, np.pi, 400)
    response = wrap(target + np.concatenate([errors, rng.vonmises(0, 10, 100)]))
    others = wrap(response[:300, None] - nontarget_errors)
    given = {
        "absolute": others,
        "relative to the target": wrap(others - target[:300, None]),
        "response - non-target": nontarget_errors,
    }[convention]
    lines = ["who,n,shown,said,o1,o2,o3"]
    for row in range(400):
        cells = [f"{angle * factor:.9g}" for angle in (target[row], response[row])]
        cells += [f"{angle * factor:.9g}" for angle in given[row]] if row < 300 else ["", "NA", ""]
        lines.append(",".join([f"p{row % 2}", "4" if row < 300 else "1", *cells]))
    write(path, "\n".join(lines) + "\n")
    return target, others


NAMES = {"responder": "who", "set_size": "n", "target": "shown", "response": "said", "non_target": "o"}


def test_a_small_file(tmp_path: Path) -> None:
    file = read_csv(write(tmp_path / "a 'b'\n.csv", SMALL))
    first, second = file.responders
    assert (first.responder, second.responder) == ("a", "b")
    assert (first.set_sizes(), second.set_sizes()) == ([1], [3])
    assert first.errors.item() == pytest.approx(0.1)
    assert second.errors.item() == pytest.approx(2 * np.pi - 6.2)
    assert np.isnan(first.non_targets).all()
    np.testing.assert_allclose(second.non_targets, [[1.0, -2.0]])


def test_a_file_as_a_spreadsheet_writes_it(tmp_path: Path) -> None:
    """A byte order mark, Windows line ends, quotes, spaces, blank lines, whole numbers as decimals."""
    text = '\ufeff"subject", "set_size",target,response\r\n\r\n"Doe, J.",1.0, 0.5,"0.6"\r\n'
    (responses,) = read_csv(write(tmp_path / "a.csv", text)).responders
    assert (responses.responder, responses.set_size.tolist()) == ("Doe, J.", [1])
    assert responses.non_targets.shape == (1, 0)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_convention_of_non_targets_is_found(tmp_path: Path, convention: str) -> None:
    path = tmp_path / "a.csv"
    target, others = experiment(path, convention)
    file = read_csv(path, NAMES)
    assert file.convention == convention
    assert f"read as {convention!r} (log-likelihood" in file.note
    first, second = file.responders
    np.testing.assert_allclose(first.target, target[0::2], atol=1e-8)
    np.testing.assert_allclose(np.exp(1j * second.non_targets[:150]), np.exp(1j * others[1::2]), atol=1e-7)
    np.testing.assert_array_equal(first.trial, np.arange(0, 400, 2))


@pytest.mark.parametrize(("units", "factor"), [("rad", 1.0), ("deg", 180 / np.pi), ("deg180", 90 / np.pi)])
def test_units(tmp_path: Path, units: str, factor: float) -> None:
    target, others = experiment(tmp_path / "a.csv", "absolute", factor=factor)
    file = read_csv(tmp_path / "a.csv", NAMES, units)
    assert file.convention == "absolute"
    np.testing.assert_allclose(file.responders[0].target, target[0::2], atol=1e-7)
    np.testing.assert_allclose(file.responders[0].non_targets[:150], others[0::2], atol=1e-7)


def test_what_the_responses_do_not_tell_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    experiment(path, "relative to the target", p_n=0.0)
    file = read_csv(path, NAMES)
    assert file.convention == "absolute"
    assert "do not tell from 'relative to the target'" in file.note


def test_a_convention_asked_for_is_used_and_doubted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    experiment(path, "relative to the target")
    right, wrong = (read_csv(path, NAMES, convention=name) for name in ("relative to the target", "absolute"))
    assert (right.convention, wrong.convention) == ("relative to the target", "absolute")
    assert "as was asked for" in right.note
    assert "check the file" not in right.note
    assert "The responses say 'relative to the target': check the file." in wrong.note


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a row of names of columns and rows of responses were expected"),
        ("subject,set_size,target,response\n", "rows of responses were expected"),
        (
            SMALL.replace("response", "answer"),
            "the column 'response' is missing; found: 'subject', 'set_size', 'target',",
        ),
        (SMALL.replace("0.6", "x"), "line 2: response is 'x'; an angle between −6.283 and 6.283 in rad was expected"),
        (SMALL.replace("3.1,-3.1", "178,-178"), "line 3: target is '178'; an angle between −6.283 and 6.283 in rad"),
        (SMALL.replace("0.6", ""), "line 2: response is ''; an angle"),
        (SMALL.replace("0.6", "nan"), "line 2: response is 'nan'; an angle"),
        (SMALL.replace("b,3", "b,2.5"), "line 3: set_size is '2.5'; a whole number of items from 1 on was expected"),
        (SMALL.replace("b,3", "b,0"), "line 3: set_size is '0'; a whole number"),
        (SMALL.replace("b,3", "b,inf"), "line 3: set_size is 'inf'; a whole number"),
        (SMALL.replace("b,3", "b,nan"), "line 3: set_size is 'nan'; a whole number"),
        (SMALL.replace("b,3", "b,many"), "line 3: set_size is 'many'; a whole number"),
        (
            SMALL.replace("b,3", "b,4"),
            "line 3: 2 non-targets in non_target_1 … non_target_2; 3 were expected at set size 4",
        ),
        (SMALL.replace(",,\n", "\n"), "line 2: 4 cells; 6 were expected, as in the first line"),
        (SMALL.replace("non_target_2", "non_target_1"), "the column 'non_target_1' is there twice"),
        (SMALL.replace("a,1", '"a"x,1'), "line 2: no CSV"),
    ],
)
def test_a_wrong_file_says_where_and_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(UnreadableResponses) as caught:
        read_csv(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_lines_are_counted_through_blank_lines_and_cells_of_several_lines(tmp_path: Path) -> None:
    text = 'subject,set_size,target,response\n\n"a\nb",1,0.1,0.2\nc,1,0.1,oops\n'
    with pytest.raises(UnreadableResponses, match="line 5: response is 'oops'"):
        read_csv(write(tmp_path / "a.csv", text))


def test_what_is_no_file_of_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableResponses, match="there is no such file"):
        read_csv(tmp_path / "a.csv")
    with pytest.raises(UnreadableResponses, match="cannot be read"):
        read_csv(tmp_path)
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00subject")
    with pytest.raises(UnreadableResponses, match="no text in UTF-8"):
        read_csv(tmp_path / "a.csv")


def test_unknown_units_and_conventions_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", SMALL)
    with pytest.raises(UserError, match="units 'grad': expected one of rad, deg, deg180"):
        read_csv(path, units="grad")
    with pytest.raises(UserError, match="convention 'x': expected one of absolute, relative"):
        read_csv(path, convention="x")
