"""The commands that stay, `serve` and `work`: one process, or a supervisor and several."""

from __future__ import annotations

from rebound import service, supervisor
from rebound.domain.errors import ValidationError
from rebound.settings import Config


def serve(config: Config, *, worker: bool) -> int:
    """Answers the exit code. Raises what `service.serve` does."""
    if _is_one(config):
        service.serve(config, worker=worker)
        return 0
    service.require_server(config)
    with service.listening(*config.address) as listener:
        url = service.url_of(listener)
        service.print_line(f"{config.store_shown} · {config.processes} processes · {url}")
        grace = config.shutdown_grace
        return supervisor.supervise(config.processes, grace=grace, listener=listener)


def work(config: Config) -> int:
    """Answers the exit code. Raises what `service.work` does."""
    if _is_one(config):
        service.work(config)
        return 0
    service.print_line(f"{config.store_shown} · {config.processes} workers without API")
    return supervisor.supervise(config.processes, grace=config.shutdown_grace)


def _is_one(config: Config) -> bool:
    """Raises ValidationError for a store that several could not share."""
    if config.processes == 1 or supervisor.supervised():
        return True
    if config.store_kind == "sqlite" and config.sqlite_path == ":memory:":
        raise ValidationError(
            f"PROCESSES: is {config.processes}, but each would have a store of its own in"
            " :memory:; name a file in STORE_URL",
            field="processes",
        )
    return False
