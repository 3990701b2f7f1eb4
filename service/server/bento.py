"""Vitrine inside BentoML: where our front enters its server, and calls without HTTP."""

import asyncio
import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

import bentoml
from _bentoml_sdk import Service  # private: the only hook outside all of BentoML's middleware
from bentoml.exceptions import BentoMLException
from PIL import Image
from starlette.types import ASGIApp

from service.call import Call
from service.errors import DeadlinePassed, SettingsError, VitrineError
from service.server.app import IN_PROCESS, App
from service.server.front import Front, traced
from service.settings import Settings
from service.tasks.task import Answer, Task
from service.telemetry.log import configure_logging, stop_on_error
from service.telemetry.stderr import logged_stderr

_METRICS_DIR = "VITRINE_METRICS_DIR"


class FrontedService(Service[Any]):
    """A BentoML service whose instance has an `app`: on a main port only its front answers."""

    instance: Any = None

    def inject_config(self) -> None:
        """In the parent of the workers, make the folder in which they share their metrics."""
        super().inject_config()
        if not is_worker() and _METRICS_DIR not in os.environ:
            folder = tempfile.mkdtemp(prefix="vitrine-metrics-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            os.environ[_METRICS_DIR] = folder

    def __call__(self) -> Any:
        """Start one worker, or an instance in this process."""
        self.instance = super().__call__()
        return self.instance

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Wrap BentoML's app in the front; a dependency is called by BentoML's own app."""
        inner: ASGIApp = super().to_asgi(is_main)
        return traced(Front(self._app, inner)) if is_main else inner

    def _app(self) -> App | None:
        return None if self.instance is None else self.instance.app


def is_worker() -> bool:
    """Whether this process is a worker of `bentoml serve`."""
    return bentoml.server_context.worker_index is not None


@contextlib.contextmanager
def starting(log_format: str) -> Iterator[None]:
    """Log what libraries print in the block; end the process with one line on a StartError.

    Enter it after BentoML has configured its logging.
    """
    configure_logging(log_format)
    with stop_on_error(log_format), logged_stderr():
        yield


def refuse_tls(settings: Settings) -> None:
    """Raise SettingsError for TLS settings: BentoML opens the connections, by its own options."""
    if settings.tls_cert_file is not None:
        raise SettingsError(
            "VITRINE_TLS_CERT_FILE: expected it only under python -m service; bentoml serve takes "
            "--ssl-certfile, --ssl-keyfile and --ssl-ca-certs"
        )


async def infer(
    app: App,
    task: type[Task[Any, Any]],
    image: Image.Image,
    model: str | None,
    **options: object,
) -> tuple[Answer, Call]:
    """Answer an image in this process, with the task's default model if none is named.

    Raises BentoMLException, with the status that HTTP would have, for every VitrineError.
    """
    call = Call(IN_PROCESS, timeout_s=app.settings.request_timeout_s)
    status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    try:
        found = app.registry.select_for(task, model, call)
        parsed = found.task.parse_options(_as_text(options))
        async with asyncio.timeout(app.settings.request_timeout_s):
            answer = await app.registry.infer(call.model, call.version, image, call, parsed)
        status = HTTPStatus.OK
        return answer, call
    except TimeoutError as error:
        status = DeadlinePassed.status
        message = f"no answer within {app.settings.request_timeout_s:g} s"
        raise BentoMLException(message, error_code=HTTPStatus(status)) from error
    except VitrineError as error:
        status = error.status
        raise BentoMLException(str(error), error_code=HTTPStatus(status)) from error
    finally:
        app.dispatcher.conclude(call, status)


def _as_text(options: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in options.items()}
