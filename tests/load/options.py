"""The options that Locust does not have, and what they stand for."""

from argparse import Namespace
from pathlib import Path

from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from tests.load.answers import Answers
from tests.load.clients import NETWORK_TIMEOUT_S, Plan
from tests.load.models import Model, parse_figures, parse_mix, read_models
from tests.load.objectives import DEFAULT_MAX_ERROR_RATIO, DEFAULT_MAX_P99_MS, Objectives
from tests.load.shapes import SHAPES, STEP

# Longer than a client waits for an answer: whatever was asked is counted.
STOP_TIMEOUT_S = NETWORK_TIMEOUT_S + 5
MIN_STEP_S = 4
MIN_DISTRIBUTED_STEP_S = 15  # workers report late; a step has to settle for longer than that


def add_options(parser: LocustArgumentParser, **_: object) -> None:
    """Options of our own, and other defaults of some that Locust has."""
    parser.set_defaults(num_users=50, run_time=120, spawn_rate=100.0, stop_timeout=STOP_TIMEOUT_S)
    add = parser.add_argument_group("Vitrine").add_argument
    add("--shape", choices=[*SHAPES, STEP], default="ramp", help="of the load (%(default)s)")
    add("--steps", type=int, default=8, help="of --shape step, up to --users (%(default)s)")
    add("--images", help="folder of images to send (the models' samples and drawings)")
    add("--models-dir", default="models", help="manifests and samples (%(default)s)")
    add("--mix", help="fashion-mnist=8,denoiser=1 (all that are served, cheap ones more often)")
    add("--think-time", type=float, default=0.5, help="mean, in seconds (%(default)s)")
    add("--token", env_var="LOCUST_TOKEN", help="bearer token")
    add("--max-error-ratio", type=float, default=DEFAULT_MAX_ERROR_RATIO, help="(%(default)s)")
    add(
        "--max-p99-ms",
        default=",".join(f"{cost}={ms:g}" for cost, ms in DEFAULT_MAX_P99_MS.items()),
        help="by cost of the model (%(default)s)",
    )
    add("--min-rps", type=float, default=0.0, help="requests/s without failures (%(default)s)")


def options_of(environment: Environment) -> Namespace:
    """All options of a run."""
    options = environment.parsed_options
    assert isinstance(options, Namespace)
    return options


def check(options: Namespace, *, is_master: bool) -> None:
    """Raise ValueError for what cannot be run."""
    objectives_of(options)
    if not options.host:
        raise ValueError("expected the service's address as --host")
    if options.think_time < 0 or options.steps < 1:
        raise ValueError(
            f"expected --think-time of at least 0 s and --steps of at least 1, "
            f"got {options.think_time:g} s and {options.steps}"
        )
    step_s = options.run_time / options.steps
    least_s = MIN_DISTRIBUTED_STEP_S if is_master else MIN_STEP_S
    if options.shape == STEP and step_s < least_s:
        raise ValueError(f"expected steps of at least {least_s} s, got {step_s:g} s")


def objectives_of(options: Namespace) -> Objectives:
    """The objectives; raises ValueError."""
    max_p99_ms = parse_figures(options.max_p99_ms)
    if not max_p99_ms.keys() <= DEFAULT_MAX_P99_MS.keys():
        raise ValueError(
            f"expected --max-p99-ms for {', '.join(DEFAULT_MAX_P99_MS)}, got {options.max_p99_ms}"
        )
    return Objectives(options.max_error_ratio, max_p99_ms, options.min_rps)


def models_of(options: Namespace) -> dict[str, Model]:
    """The models that may be loaded, with what is sent to them; raises ValueError or OSError."""
    return read_models(Path(options.models_dir), Path(options.images) if options.images else None)


def plan_of(options: Namespace) -> Plan:
    """What the clients of a process share, once the mix is known; raises ValueError or OSError."""
    models = models_of(options)
    mix = parse_mix(options.mix, models)
    return Plan(models, mix, options.think_time, options.token, Answers(models))
