"""The command line. Whatever a command needs is imported when it runs: `--help` stays fast."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from rebound import __version__
from rebound.cli import read
from rebound.domain.errors import ReboundError, ValidationError
from rebound.settings import SETTINGS
from rebound.settings.readers import Setting
from rebound.settings.table import default_in_words

if TYPE_CHECKING:
    from rebound.settings import Config

DESCRIPTION: Final = "Durable retries for webhooks, API calls and messages."
ENVIRONMENT: Final = "each also as the variable REBOUND_<NAME> or <NAME>; a flag wins"
STORE_SETTINGS: Final = frozenset(
    name for name in SETTINGS if name.startswith("redis_") or name in ("store_url", "namespace")
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; answers the exit code: 0, 2 for bad input, 1 for everything else."""
    _open_streams()
    args, unknown = _parser().parse_known_args(argv)
    if unknown:
        first = unknown[0].partition("=")[0]  # what follows may be a secret
        said = f"{args.command} does not take {first}"
        return _complain(f"{said}; see rebound {args.command} --help", 2)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except ValidationError as error:
        return _complain(error, 2)
    except ReboundError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return 1
    except OSError as error:
        # Stdout takes no more, and the interpreter must not flush it once again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, BrokenPipeError):  # whoever reads it has seen enough
            return 1
        return _complain((error.strerror or str(error)).lower(), 1)


# -- commands --------------------------------------------------------------------------------


def _serve(args: argparse.Namespace) -> int:
    _leave_on_signal()
    from rebound.cli import staying

    return staying.serve(_configured(args), worker=not args.no_worker)


def _work(args: argparse.Namespace) -> int:
    _leave_on_signal()
    from rebound.cli import staying

    return staying.work(_configured(args))


def _demo(args: argparse.Namespace) -> int:
    _leave_on_signal()
    from rebound.cli import demo

    return demo.run({name: value for name, value in _flags(args).items() if value is not None})


def _receiver(args: argparse.Namespace) -> int:
    _leave_on_signal()
    from rebound.cli import receiver

    return receiver.run(args.script, args.port)


def _plan(args: argparse.Namespace) -> int:
    from rebound.cli.plan import lines

    policy = {name: getattr(args, name) for name in ("base_delay", "max_retries", "failures")}
    if args.delay is not None:
        policy["delay"] = args.delay
    backoff = {
        name: value
        for name in ("strategy", "factor", "max_delay", "jitter", "schedule")
        if (value := getattr(args, name)) is not None
    }
    for line in lines(policy, backoff):
        print(line)
    return 0


def _asynchronous(
    name: str, module: str = "rebound.cli.commands"
) -> Callable[[argparse.Namespace], int]:
    """A command, run in an event loop of its own."""

    def run(args: argparse.Namespace) -> int:
        import asyncio
        from importlib import import_module

        code: int = asyncio.run(getattr(import_module(module), name)(args))
        return code

    return run


def _configured(args: argparse.Namespace) -> Config:
    """The settings of a service; from here on it logs by them."""
    from rebound.adapters.listeners.log import configure
    from rebound.settings import Config

    config = Config.for_service(**_flags(args))
    configure(config.log_level, config.log_format or "text")
    return config


def _flags(args: argparse.Namespace) -> dict[str, str | None]:
    return {name: getattr(args, name, None) for name in SETTINGS}


def _leave_on_signal() -> None:
    """Until the event loop handles signals, there is nothing yet that would have to be finished."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))


def _open_streams() -> None:
    """Let what is closed lead nowhere; and print what stdout has no letter for as `?`."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _complain(error: object, code: int) -> int:
    print(f"rebound: {' '.join(str(error).split())}", file=sys.stderr)
    return code


# -- arguments -------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = _new(argparse.ArgumentParser, prog="rebound", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"rebound {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(
        name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        command = _new(commands.add_parser, name, help=text, description=text[0].upper() + text[1:])
        command.set_defaults(run=run)
        return command

    serve = add("serve", _serve, "run the API and a worker")
    serve.add_argument("--no-worker", action="store_true", help="run the API only")
    _add_settings(serve)
    _add_settings(add("work", _work, "run a worker without API"))
    _add_desk_commands(add)
    _add_store_commands(add)
    _add_policy(add("plan", _plan, "print when the attempts of a policy happen, in seconds"))
    demo = add(
        "demo", _demo, "show retries, a success and a dead letter live, in a store of its own"
    )
    _add_settings(demo, leave_out=STORE_SETTINGS)
    receiver = add("receiver", _receiver, "answer by a script, and print every request")
    receiver.add_argument(
        "--script", metavar="STATUSES", default="200",
        help="what each message gets in turn, such as 500,429:30,200 (:30 is Retry-After in"
        " seconds); the last one repeats (default 200)",
    )  # fmt: skip
    receiver.add_argument(
        "--port", type=read.port, default=9000, help="0 = any free one (default 9000)"
    )
    return parser


def _add_store_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands for a store as a whole."""
    doctor = add(
        "doctor",
        _asynchronous("doctor", "rebound.cli.doctor"),
        "look settings and store over, and say what is wrong and what to do",
    )
    doctor.add_argument("--store-url", help=SETTINGS["store_url"].description)
    doctor.add_argument("--repair", action="store_true", help="mend what can be mended safely")
    doctor.add_argument("--json", action="store_true", help="one JSON object a finding")
    move = add(
        "import-go",
        _asynchronous("import_go", "rebound.cli.import_go"),
        "move what waits in the Redis of the Go original, which must be stopped, into a store",
    )
    move.add_argument(
        "--from", dest="source", metavar="URL",
        help="redis://… of the original (default: the REDIS_* settings)",
    )  # fmt: skip
    move.add_argument("--store-url", help=SETTINGS["store_url"].description)
    move.add_argument("--dry-run", action="store_true", help="only print what would be moved")


def _add_desk_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands that read and change tasks."""
    submit = add("submit", _asynchronous("submit"), "hand in tasks from a file")
    submit.add_argument("file", metavar="FILE", help="JSON or JSON lines; - reads stdin")
    show = add("show", _asynchronous("show"), "print a task as JSON")
    show.add_argument("id", metavar="ID")
    listing = add("list", _asynchronous("list_"), "print tasks, newest first")
    listing.add_argument("--state", help="scheduled, delivering, succeeded, dead or cancelled")
    listing.add_argument("--leg", help="main or dead")
    listing.add_argument("--source")
    listing.add_argument("--client-id")
    listing.add_argument("--limit", type=int, metavar="N", help="1 to 1000 (default 100)")
    listing.add_argument("--cursor", help="where the last page ended")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    named = [
        ("replay", "start dead or cancelled tasks afresh"),
        ("cancel", "give up scheduled tasks"),
        ("delete", "forget finished tasks"),
    ]
    changes = [add(name, _asynchronous("change"), text) for name, text in named]
    for command in changes:
        command.add_argument("ids", metavar="ID", nargs="+")
    for command in (submit, show, listing, *changes):
        command.add_argument(
            "--api-key", metavar="KEY", help="of that service; also the variable REBOUND_API_KEY"
        )
        where = command.add_mutually_exclusive_group()
        where.add_argument("--store-url", help=SETTINGS["store_url"].description)
        where.add_argument("--url", help="of a running service, such as http://127.0.0.1:8080")


def _add_settings(parser: argparse.ArgumentParser, leave_out: frozenset[str] = frozenset()) -> None:
    group = parser.add_argument_group("settings", ENVIRONMENT)
    for name, setting in SETTINGS.items():
        if name not in leave_out:
            group.add_argument(setting.flag, metavar=setting.variable, help=_help(setting))


def _help(setting: Setting[Any, Any]) -> str:
    shown = default_in_words(setting)
    return f"{setting.description} (default {shown})" if shown else setting.description


def _add_policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base-delay", type=read.duration, default=10.0, help="default 10s")
    parser.add_argument("--max-retries", type=int, default=5, help="attempts (default 5)")
    parser.add_argument("--strategy", help="exponential (default), linear, fixed or schedule")
    parser.add_argument("--factor", type=read.number, help="of exponential (default 2)")
    parser.add_argument("--max-delay", type=read.duration, help="longest delay (default 7d)")
    parser.add_argument("--jitter", type=read.jitter, help="none (default), full, equal, or 0 to 1")
    parser.add_argument("--schedule", type=read.durations, help="delays, such as 1,5,1m")
    parser.add_argument("--delay", type=read.duration, help="replaces the first wait")
    parser.add_argument("--failures", type=int, default=0, help="that happened before Rebound")


def _new(
    make: Callable[..., argparse.ArgumentParser], *names: str, **given: Any
) -> argparse.ArgumentParser:
    """A parser that takes no abbreviations and complains in one line."""
    parser = make(*names, allow_abbrev=False, **given)

    def error(message: str) -> NoReturn:
        raise SystemExit(_complain(f"{message}; see {parser.prog} --help", 2))

    parser.error = error  # type: ignore[method-assign]
    return parser
