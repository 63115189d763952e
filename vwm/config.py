"""What one run is: four sections of parameters, validated; loading, saving, identity and name.

The layout is that of the published reference implementation, so its YAML and JSON files load as they are. Times are
milliseconds, rates Hz, angles radians.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from vwm.errors import UserError
from vwm.files import KeyPath, dump_yaml, nearest, parse_value, read_document

SpikeNoiseType = Literal["gamma", "gauss", "puregauss", "csnr"]
GammaSampler = Literal["auto", "quantile", "torch"]
MatmulPrecision = Literal["float32", "tf32", "bf16"]
ErrorDef = Literal["rad", "l2", "sqrtl2", "exp", "norml2"]
FixedPointPhase = Literal["fpf_NoFps", "fpf_decode", "fpf_stimuli", "fpf_delay", "fpf_init"]


def _whole(value: object) -> object:
    """Read 2e4 as the whole number it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[Whole, Field(ge=1)]


def _refuse(expected: str) -> PydanticCustomError:
    """The error of a rule that spans several fields; ``expected`` says what the value should have been."""
    return PydanticCustomError("rule", "{expected}", {"expected": expected})


class _Section(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=(), validate_default=True
    )


# Updates of one unit by one step: about the work of ten seconds uncompiled.
_UPDATES_WORTH_COMPILING = 10**8


class ModelParams(_Section):
    """The task and the network (science of one trial)."""

    max_item_num: Count = 10
    item_num: tuple[Whole, ...] = tuple(range(1, 11))
    num_neurons: Annotated[Whole, Field(ge=2)] = 256
    dt: Positive = 10.0
    tau_min: Positive = 50.0
    tau_max: Positive = 300.0
    spike_noise_factor: NotNegative = 0.05
    spike_noise_type: SpikeNoiseType = "gamma"
    gamma_sampler: GammaSampler = "auto"
    positive_input: bool = True
    input_strength: NotNegative = 120.0
    saturation_firing_rate: float = 60.0
    dales_law: bool = True
    ILC_noise: NotNegative = 0.01
    T_init: NotNegative = 20.0
    T_stimi: Positive = 500.0
    T_delay: NotNegative = 1000.0
    T_decode: Positive = 500.0

    @field_validator("item_num", mode="before")
    @classmethod
    def _list_is_fine(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("item_num")
    @classmethod
    def _set_sizes_exist(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        most = info.data.get("max_item_num")
        if not value:
            raise _refuse("at least one set size, such as [1, 2, 4]")
        if len(set(value)) < len(value):
            raise _refuse("every set size once")
        if most is not None and not all(1 <= n <= most for n in value):
            raise _refuse(f"set sizes from 1 to max_item_num = {most}")
        return value

    @field_validator("tau_min")
    @classmethod
    def _euler_is_stable(cls, value: float, info: ValidationInfo) -> float:
        dt = info.data.get("dt")
        if dt is not None and value < dt:
            raise _refuse(f"at least dt = {dt:g} ms, or the Euler step overshoots")
        return value

    @field_validator("tau_max")
    @classmethod
    def _taus_in_order(cls, value: float, info: ValidationInfo) -> float:
        least = info.data.get("tau_min")
        if least is not None and value < least:
            raise _refuse(f"at least tau_min = {least:g} ms")
        return value

    @field_validator("T_init", "T_stimi", "T_delay", "T_decode")
    @classmethod
    def _whole_steps(cls, value: float, info: ValidationInfo) -> float:
        dt = info.data.get("dt")
        if dt is not None and abs(value / dt - round(value / dt)) > 1e-9:
            raise _refuse(f"a multiple of dt = {dt:g} ms, such as {round(value / dt) * dt:g}")
        return value

    def _steps(self, duration: float) -> int:
        return round(duration / self.dt)

    @property
    def steps(self) -> int:
        """Euler steps of a trial."""
        return self._steps(self.T_init) + self._steps(self.T_stimi) + self._steps(self.T_delay) + self.decode_steps

    @property
    def decode_steps(self) -> int:
        """Steps of the read-out phase, the last of a trial."""
        return self._steps(self.T_decode)

    @property
    def stimulus_steps(self) -> range:
        """Indices of the steps that receive the stimulus: T_init ≤ t·dt < T_init + T_stimi."""
        first = self._steps(self.T_init)
        return range(first, first + self._steps(self.T_stimi))

    @property
    def input_channels(self) -> int:
        """Input channels of one location: 3 in the positive code, otherwise 2."""
        return 3 if self.positive_input else 2

    @property
    def fano_factor(self) -> float:
        """Variance over mean of a unit's spike count, k² (k = 1 is Poisson, k = 0.1 about 100 pooled cells)."""
        return self.spike_noise_factor**2


class TrainingParams(_Section):
    """How the network is trained."""

    seed: Annotated[Whole, Field(ge=0, lt=2**63)] = 0
    train_rnn: bool = True
    load_history: bool = False
    use_scripted_model: bool = False
    num_iterations: Count = 50000
    error_def: ErrorDef = "rad"
    eta: Positive = 1e-4
    lambda_reg: NotNegative = 1e-5
    lambda_err: NotNegative = 1.0
    num_trials: Count = 512
    logging_period: Count = 50
    early_stop_patience: Count = 600
    adaptive_lr_patience: Annotated[Whole, Field(ge=0)] = 400
    gradient_clipping: NotNegative = 0.0
    matmul_precision: MatmulPrecision = "float32"
    keep_every: Annotated[Whole, Field(ge=0)] = 0


class ModelAndLoggingParams(_Section):
    """The run's name and the analyses to draw after training."""

    rnn_name: Annotated[str, Field(min_length=1)] = "EasyTask1"
    plot_weights_bool: bool = False
    error_dist_bool: bool = False
    fit_mixture_bool: bool = False
    snr_analy_bool: bool = False
    mixed_selec_bool: bool = False


class FixedPointHps(_Section):
    """Settings of the search for fixed points; its step size and words are accepted from old files, without effect."""

    max_iters: Count = 50
    lr_init: Positive = 0.01
    outlier_distance_scale: Positive = 10.0
    verbose: bool = False
    super_verbose: bool = False


class FpfParams(_Section):
    """The search for fixed points after training."""

    fpf_bool: bool = False
    fpf_pca_bool: bool = True
    fpf_names: tuple[FixedPointPhase, ...] = ("fpf_NoFps", "fpf_decode")
    fpf_trials: Count = 20
    fpf_N_init: Count = 20
    fpf_noise_scale: NotNegative = 0.0
    fpf_hps: FixedPointHps = FixedPointHps()

    @field_validator("fpf_names", mode="before")
    @classmethod
    def _list_is_fine(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value


class Configuration(_Section):
    """One run, completely: one network, its task, its training and its seed."""

    model_params: ModelParams = ModelParams()
    training_params: TrainingParams = TrainingParams()
    model_and_logging_params: ModelAndLoggingParams = ModelAndLoggingParams()
    fpf_params: FpfParams = FpfParams()

    @field_validator("training_params")
    @classmethod
    def _every_set_size_gets_a_trial(cls, value: TrainingParams, info: ValidationInfo) -> TrainingParams:
        model = info.data.get("model_params")
        if model is not None and value.num_trials < len(model.item_num):
            raise PydanticCustomError(
                "rule",
                "{expected}",
                {
                    "expected": f"at least one trial for each of the {len(model.item_num)} set sizes of item_num",
                    "field": "num_trials",
                    "given": value.num_trials,
                },
            )
        return value

    @property
    def worth_compiling(self) -> bool:
        """Whether training is long enough for compiled code to win back the seconds that compiling takes.

        A function of the configuration alone: compiled and plain code differ in the last bit, and a run must be the
        same however often it is interrupted.
        """
        training, model = self.training_params, self.model_params
        updates = training.num_iterations * model.steps * training.num_trials * model.num_neurons
        return training.train_rnn and updates >= _UPDATES_WORTH_COMPILING

    @property
    def name(self) -> str:
        """The automatic model name, as in EasyTask1_n256item10PI1gamma0.05rad."""
        m = self.model_params
        return (
            f"{self.model_and_logging_params.rnn_name}_n{m.num_neurons}item{m.max_item_num}PI{int(m.positive_input)}"
            f"{m.spike_noise_type}{m.spike_noise_factor:g}{self.training_params.error_def}"
        )

    @property
    def run_id(self) -> str:
        """Twelve hexadecimal digits that name everything which can change the result, the seed included.

        The hash covers the complete resolved configuration, so a changed default is a new identity. Left out are
        names, the analyses to draw, the checkpoints to keep and two switches that are accepted but have no effect.
        """
        content = {
            "model_params": self.model_params.model_dump(),
            "training_params": self.training_params.model_dump(
                exclude={"keep_every", "load_history", "use_scripted_model"}
            ),
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def to_yaml(self) -> str:
        """The resolved configuration as a YAML file of the same layout."""
        return dump_yaml(self.model_dump(mode="json"))


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
