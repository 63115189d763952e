"""What one run is: four sections of parameters, validated; its identity, its name, and it as YAML.

The layout is that of the published reference implementation, so its YAML and JSON files load as they are. Times are
milliseconds, rates Hz, angles radians.
"""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from vwm.files import dump_yaml

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
