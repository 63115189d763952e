"""Configurations as files and options give them: read, checked field by field, and refused in words.

Every problem says where it is, what was given, what was expected, and what to do.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vwm.config import Configuration
from vwm.errors import UserError
from vwm.files import KeyPath, nearest, parse_value, read_document

# ---------------------------------------------------------------------------------------------------------------
# Errors a person can act on
# ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a file: where, what was given, what was expected, what to do."""

    place: str
    name: str
    given: str
    expected: str
    hint: str = ""

    def __str__(self) -> str:
        lines = [f"{self.place}: {self.name}", f"    given     {self.given}", f"    expected  {self.expected}"]
        return "\n".join([*lines, f"    {self.hint}"] if self.hint else lines)


class InvalidInput(UserError):
    """A file or option that was refused; the message shows its first problems on one screen."""

    MOST_SHOWN = 5

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        shown = "\n".join(str(problem) for problem in problems[: self.MOST_SHOWN])
        more = len(problems) - self.MOST_SHOWN
        super().__init__(shown if more <= 0 else f"{shown}\n… and {more} more problems.")


def show_value(value: object) -> str:
    """``value`` as it would stand in a YAML file, cut to one line."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 70 else f"{text[:67]}…"


@cache
def field_names() -> tuple[str, ...]:
    """The dotted names of all fields, such as ``model_params.dt``."""

    def names(model: type[BaseModel], prefix: str) -> Iterable[str]:
        for name, info in model.model_fields.items():
            if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
                yield from names(info.annotation, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}"

    return tuple(names(Configuration, ""))


def _field_type(path: KeyPath) -> Any:
    """The annotation of the field at ``path``, or None."""
    model: Any = Configuration
    for part in path:
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or part not in model.model_fields:
            return None
        model = model.model_fields[str(part)].annotation
    return model


_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list, such as [1, 2, 4]",
    "model_type": "a section: field names with values",
    "finite_number": "a finite number",
    "string_too_short": "a text that is not empty",
    "greater_than": "a number > {gt:g}",
    "greater_than_equal": "a number ≥ {ge:g}",
    "less_than": "a number < {lt:g}",
    "literal_error": "{expected}",
    "rule": "{expected}",
}


def _problem(error: ErrorDetails, content: Any, place: Callable[[KeyPath], str]) -> Problem:
    path: KeyPath = error["loc"]
    context = error.get("ctx", {})
    given = error["input"]
    if "field" in context:
        path, given = (*path, context["field"]), context["given"]
    name = ".".join(str(part) for part in path)
    if error["type"] == "extra_forbidden":
        hint = nearest(name, field_names())
        if not hint:
            hint = nearest(str(path[-1]), [known.rsplit(".", 1)[-1] for known in field_names()])
        sections = tuple(Configuration.model_fields)
        expected = f"one of the sections {', '.join(sections)}" if len(path) == 1 else "a known field name"
        hint = (nearest(name, sections) or hint) if len(path) == 1 else hint
        return Problem(place(path), name, f"unknown name {str(path[-1])!r}", expected, hint)
    template = _EXPECTED.get(error["type"])
    expected = error["msg"] if template is None else template.format(**context)
    hint = ""
    choices = get_args(_field_type(path)) if error["type"] == "literal_error" else ()
    if choices and isinstance(given, str):
        hint = nearest(given, choices)
    elif error["type"] in ("bool_type", "float_type", "int_type") and isinstance(given, str):
        hint = "without quotes, if that is what was meant" if _is_plain_number_or_switch(given) else ""
    by_default = "" if _is_given(path, content) else " (not in the file: the default)"
    return Problem(place(path), name, show_value(given) + by_default, expected, hint)


def _is_given(path: KeyPath, content: Any) -> bool:
    """Whether the nested mappings hold a value at this path; a part that is no mapping is itself what was given."""
    for part in path:
        if not isinstance(content, dict):
            return True
        if part not in content:
            return False
        content = content[part]
    return True


def _is_plain_number_or_switch(text: str) -> bool:
    return text.lower() in ("true", "false") or text.replace(".", "", 1).lstrip("-+").isdigit()


# ---------------------------------------------------------------------------------------------------------------
# Loading
# ---------------------------------------------------------------------------------------------------------------


def validate(content: Any, place: Callable[[KeyPath], str]) -> Configuration:
    """The configuration that a parsed file holds; what it leaves out takes its default.

    Args:
        content: nested mappings as read from YAML or JSON.
        place: says where the value at a path stands, as ``file:line``.

    Raises:
        InvalidInput: with every problem found.
    """
    try:
        return Configuration.model_validate(content)
    except ValidationError as error:
        raise InvalidInput([_problem(detail, content, place) for detail in error.errors(include_url=False)]) from None


def without_ignored(content: Any, place: Callable[[KeyPath], str]) -> tuple[Any, list[str]]:
    """``content`` without the keys that old files carry and that have no meaning here, and a note on each.

    Empty sections (``fpf_params:`` with nothing below) become the defaults.
    """
    notes: list[str] = []
    if not isinstance(content, dict):
        return {} if content is None else content, notes
    result: dict[Any, Any] = {}
    for section, fields in content.items():
        if section == "cuda_device":
            notes.append(f"{place((section,))}: cuda_device is ignored: the launcher chooses the device.")
        elif isinstance(fields, dict):
            if "cuda_device" in fields:
                at = place((section, "cuda_device"))
                notes.append(f"{at}: cuda_device is ignored: the launcher chooses the device.")
            result[section] = {key: value for key, value in fields.items() if key != "cuda_device"}
            for switch in ("load_history", "use_scripted_model"):
                if section == "training_params" and fields.get(switch) is True:
                    notes.append(f"{place((section, switch))}: {switch} has no effect: {_SUPERSEDED[switch]}.")
        elif fields is not None:
            result[section] = fields
    return result, notes


_SUPERSEDED = {
    "load_history": "an unfinished run always goes on from its checkpoint",
    "use_scripted_model": "TorchScript is superseded",
}


def set_value(content: dict[str, Any], name: str, value: Any) -> None:
    """Put ``value`` under the dotted ``name`` into nested mappings, in place."""
    *sections, last = name.split(".")
    for section in sections:
        content = content.setdefault(section, {})
    content[last] = value


def check_name(name: str, place: str) -> None:
    """Refuse a dotted name that is no field of the configuration.

    Raises:
        InvalidInput: with the nearest valid name.
    """
    if name not in field_names():
        expected = "a field with its section, such as model_params.num_neurons"
        raise InvalidInput([Problem(place, name, f"unknown name {name!r}", expected, nearest(name, field_names()))])


def load_configuration(path: Path, settings: Iterable[str] = ()) -> tuple[Configuration, list[str]]:
    """Read a configuration file and apply ``--set`` settings such as ``training_params.eta=1e-3``.

    Returns:
        The configuration, and notes about keys that were accepted and ignored.

    Raises:
        UserError: the file cannot be read, or something in it or in the settings is refused.
    """
    document = read_document(path)
    content, notes = without_ignored(document.content, document.place)
    if not isinstance(content, dict):
        given = show_value(content)
        raise InvalidInput([Problem(document.name, "the whole file", given, "sections such as model_params: …")])
    places: dict[KeyPath, str] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        place = f"--set {setting}"
        if not equals:
            raise InvalidInput([Problem(place, name, "no value", "NAME=VALUE, such as training_params.eta=1e-3")])
        check_name(name, place)
        try:
            value = parse_value(text)
        except yaml.YAMLError:
            raise InvalidInput([Problem(place, name, text, "a value as it stands in YAML")]) from None
        section = content.get(name.split(".")[0])
        if section is not None and not isinstance(section, dict):
            continue  # The section itself is wrong, which validate reports.
        set_value(content, name, value)
        places[tuple(name.split("."))] = place
    return validate(content, lambda at: places.get(at) or document.place(at)), notes
