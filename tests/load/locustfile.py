"""Load tests for Locust: `locust -f tests/load/locustfile.py --headless --host http://…`.

Ends with 0 if every objective was kept, else with 1. Locust's own options hold: --users (the
peak), --run-time, --processes, --master and --worker, --html, --csv. It takes locust and Pillow,
`tests/load/` and the models' manifests and samples, and nothing of the service.
"""

import json
import time
import urllib.request

from locust import events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from locust.stats import CSV_STATS_INTERVAL_SEC

from tests.load.clients import Client
from tests.load.loadshape import Shape
from tests.load.measure import measured
from tests.load.models import default_mix
from tests.load.objectives import judge, judge_correctness, judge_throughput, table
from tests.load.options import add_options, check, models_of, objectives_of, options_of, plan_of
from tests.load.shapes import STEP

__all__ = ["Client", "Shape"]


def prepare(environment: Environment, **_: object) -> None:
    """Read what is to be sent; on the master, also settle the mix, which workers get from it."""
    if isinstance(environment.runner, WorkerRunner):
        return  # its options come from the master, when the test starts
    options = options_of(environment)
    try:
        check(options, is_master=isinstance(environment.runner, MasterRunner))
        environment.host = options.host.rstrip("/")
        if not options.mix:
            mix = default_mix(_served(environment.host, options.token), models_of(options))
            options.mix = ",".join(f"{name}={weight}" for name, weight in mix.items())
        Client.plan = plan_of(options)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


def prepare_worker(environment: Environment, **_: object) -> None:
    """Read what is to be sent, as the master's options say."""
    if isinstance(environment.runner, WorkerRunner):
        Client.plan = plan_of(options_of(environment))


def show_clients(environment: Environment, **_: object) -> None:
    """Let the report show the shares of the tasks, although no client is left at the end."""
    assert environment.runner is not None
    environment.runner.final_user_classes_count = {Client.__name__: 1}


def conclude(environment: Environment, **_: object) -> None:
    """Judge the run, where all statistics are, and set the exit code; a worker judges nothing."""
    if isinstance(environment.runner, WorkerRunner):
        environment.process_exit_code = 0
        return
    options = options_of(environment)
    if options.csv_prefix:
        time.sleep(CSV_STATS_INTERVAL_SEC + 0.1)  # the files are written once more
    objectives, came = objectives_of(options), measured(environment, Client.plan.models)
    verdicts = judge(came, objectives)
    lines = []
    if options.shape == STEP:  # its end is beyond the other objectives on purpose
        shape = environment.shape_class
        assert isinstance(shape, Shape)
        throughput = judge_throughput(shape.capacity(), objectives.min_requests_per_s)
        verdicts = [*judge_correctness(came), throughput]
        lines.append(shape.report())
    if came.overloaded:
        lines.append(f"{came.overloaded} of {came.failures} failures: 503 with Retry-After")
    text = "\n".join([*lines, table(verdicts)])
    # After Locust's own tables, as the last thing to be seen.
    events.quit.add_listener(lambda **_: print(text, flush=True))
    environment.process_exit_code = 0 if all(each.passed for each in verdicts) else 1


def _served(host: str, token: str | None) -> list[str]:
    """The names of the models that a service serves; raises OSError or ValueError."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{host}/v1/models", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        names: list[str] = json.load(answer)["models"]
        return names


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(prepare)
events.test_start.add_listener(prepare_worker)
events.test_stop.add_listener(show_clients)
events.quitting.add_listener(conclude)
