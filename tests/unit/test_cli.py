"""The command line: what it prints, where, and the exit codes."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from rebound.cli.main import main
from rebound.settings import SETTINGS

STORE = ("--store-url", "sqlite:///tasks.db")
TASK = {"id": "a", "source": "s", "destination": {"url": "http://127.0.0.1:1/x"}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in SETTINGS:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(f"REBOUND_{name.upper()}", raising=False)
    monkeypatch.delenv("REBOUND_API_KEY", raising=False)
    return tmp_path


def run(*argv: str) -> int:
    try:
        return main(argv)
    except SystemExit as end:
        return int(end.code or 0)


def tasks_file(folder: Path, *tasks: object, name: str = "tasks.jsonl") -> str:
    path = folder / name
    path.write_bytes(b"\n".join(msgspec.json.encode(task) for task in tasks))
    return str(path)


def submitted(folder: Path, *ids: str) -> None:
    assert run("submit", tasks_file(folder, *({**TASK, "id": id_} for id_ in ids)), *STORE) == 0


# -- in general ------------------------------------------------------------------------------


def test_the_command_line_loads_no_server_no_client_and_no_store() -> None:
    source = "import sys, rebound.cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, check=True)
    assert not {b"aiohttp", b"uvicorn", b"apsw", b"redis"} & set(done.stdout.split())


def test_every_setting_is_a_flag_of_serve(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("serve", "--help") == 0
    shown = capsys.readouterr().out
    for setting in SETTINGS.values():
        assert setting.flag in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("rebound ")


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("fly",),
        ("show",),
        ("show", "a", "--store-url", "x", "--url", "y"),
        ("show", "a", "--store-url", "mysql://x"),
        ("show", "a", "--url", "nowhere"),
        ("list", "--limit", "many"),
        ("serve", "--lease", "9h"),
        ("serve", "--leas", "9s"),
        ("work", "--redis-mode", "cluster"),
        ("serve", "--store-url", "sqlite:///a.db", "--redis-db", "1"),
        ("plan", "--base-delay", "0"),
        ("plan", "--jitter", "2"),
        ("plan", "--jitter", "nan"),
        ("plan", "--factor", "inf"),
        ("plan", "--strategy", "magic"),
        ("submit", "no-such-file", *STORE),
        ("serve", "--environment", "prod", "--http-host", "0.0.0.0"),
        ("demo", "--environment", "prod", "--http-host", "0.0.0.0"),
        ("serve", "--api-keys", "short"),
        ("list", "--url", "http://127.0.0.1:1", "--api-key", "a b"),
    ],
)
def test_bad_arguments_and_settings_are_one_line_and_exit_code_2(
    argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*argv) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert output.err.startswith("rebound: ")


def test_a_bad_variable_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REBOUND_LEASE", "0s")
    assert run("serve") == 2
    assert capsys.readouterr().err.startswith("rebound: LEASE: is '0s', must be a duration")


def test_what_a_command_does_not_take_is_named_without_its_value(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("show", "a", "b") == 2
    assert capsys.readouterr().err == "rebound: show does not take b; see rebound show --help\n"
    assert run("serve", "--redis-pasword=hush") == 2
    assert "hush" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("plan >&-", 0, ""),
        ("plan >/dev/full", 1, "rebound: no space left on device\n"),
        ("submit - <&-", 2, "rebound: -: stdin is closed\n"),
    ],
)
def test_closed_and_full_streams_are_no_traceback(line: str, code: int, said: str) -> None:
    shell = f'exec "{sys.executable}" -m rebound {line}'
    done = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, said)


def test_a_service_whose_first_line_nobody_takes_goes_on() -> None:
    source = "from rebound.service import print_line; print_line('x')"
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", source], stdout=full, check=False)
    assert done.returncode == 0


def test_an_error_does_not_go_to_stdout_where_stderr_is_closed() -> None:
    shell = f'exec "{sys.executable}" -m rebound plan --max-retries 101 2>&-'
    done = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize("argv", [("show", "\udcff"), ("list", "--source", "\udcff")])
def test_an_argument_that_is_no_utf_8_is_one_line(
    argv: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted(folder, "a")
    capsys.readouterr()
    assert run(*argv, *STORE) in (1, 2)
    assert capsys.readouterr().err.count("\n") == 1


# -- submit ----------------------------------------------------------------------------------


def test_submit_prints_id_and_status_of_each_task(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tasks_file(folder, TASK, {**TASK, "id": "b"})
    assert run("submit", path, *STORE) == 0
    assert capsys.readouterr().out == "a 201\nb 201\n"
    assert run("submit", path, *STORE) == 0
    assert capsys.readouterr().out == "a 200\nb 200\n"


@pytest.mark.parametrize(
    "text",
    [
        msgspec.json.encode(TASK),
        msgspec.json.format(msgspec.json.encode(TASK), indent=2),
        msgspec.json.encode([TASK]),
        msgspec.json.encode({"tasks": [TASK]}),
        b"\xef\xbb\xbf" + msgspec.json.encode(TASK),
        b"\n\n" + msgspec.json.encode(TASK) + b"\r\n\n",
    ],
)
def test_submit_reads_json_in_any_of_its_forms_from_stdin(
    text: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert run("submit", "-", *STORE) == 0
    assert capsys.readouterr().out == "a 201\n"


@pytest.mark.parametrize("text", ["", "  \n", "[]"])
def test_submit_of_nothing_stores_nothing(text: str, folder: Path) -> None:
    (folder / "empty").write_text(text)
    assert run("submit", "empty", *STORE) == 0


@pytest.mark.parametrize("text", ["{", "5", '"a"', "[5]", '{"a": 1}\n{', '{"a":1}\n[1]', "\udcff"])
def test_a_malformed_input_file_stores_nothing_and_is_exit_code_2(
    text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad").write_bytes(text.encode(errors="surrogateescape"))
    assert run("submit", "bad", *STORE) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1


def test_an_invalid_task_is_named_does_not_stop_the_others_and_is_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tasks_file(folder, {"id": "bad"}, TASK)
    assert run("submit", path, *STORE) == 2
    output = capsys.readouterr()
    assert output.out == "bad 400\na 201\n"
    assert output.err.startswith("rebound: task 1: ")


def test_a_task_that_was_not_stored_is_exit_code_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted(folder, "a")
    capsys.readouterr()
    assert run("submit", tasks_file(folder, {**TASK, "source": "other"}), *STORE) == 1
    assert capsys.readouterr().out == "a 409\n"


# -- show, list, replay, cancel, delete ------------------------------------------------------


def test_show_prints_the_task_as_the_api_answers_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted(folder, "a/b?c")
    capsys.readouterr()
    assert run("show", "a/b?c", *STORE) == 0
    task = msgspec.json.decode(capsys.readouterr().out)
    assert (task["id"], task["state"], task["attempts"]) == ("a/b?c", "scheduled", [])


def test_show_of_an_unknown_task_is_one_line_and_exit_code_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted(folder, "a")
    capsys.readouterr()
    assert run("show", "zzz", *STORE) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "rebound: no task zzz is known\n"


def test_looking_into_a_store_that_does_not_exist_makes_none(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("list", *STORE) == 1
    assert "there is no store tasks.db" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_list_prints_a_table_or_json_lines_newest_first(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted(folder, "a")
    submitted(folder, "b")
    capsys.readouterr()
    assert run("list", *STORE) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["ID", "STATE"]
    assert [row.split()[0] for row in rows] == ["b", "a"]
    assert run("list", "--json", "--state", "scheduled", *STORE) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [msgspec.json.decode(line)["id"] for line in lines] == ["b", "a"]
    assert run("list", "--state", "dead", *STORE) == 0
    assert capsys.readouterr().out == ""


def test_list_names_the_next_page_on_stderr(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted(folder, "a", "b")
    capsys.readouterr()
    assert run("list", "--limit", "1", "--json", *STORE) == 0
    first = capsys.readouterr()
    cursor = first.err.removeprefix("more: --cursor ").strip()
    assert run("list", "--limit", "1", "--json", "--cursor", cursor, *STORE) == 0
    second = capsys.readouterr()
    ids = {msgspec.json.decode(text)["id"] for text in (first.out, second.out)}
    assert ids == {"a", "b"}


@pytest.mark.parametrize("argv", [("--limit", "0"), ("--limit", "1001"), ("--state", "lost")])
def test_a_wrong_filter_is_exit_code_2(argv: tuple[str, ...], folder: Path) -> None:
    submitted(folder, "a")
    assert run("list", *argv, *STORE) == 2


def test_cancel_replay_and_delete_print_what_became_of_each(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted(folder, "a", "b")
    capsys.readouterr()
    assert run("cancel", "a", "b", *STORE) == 0
    assert capsys.readouterr().out == "a cancelled\nb cancelled\n"
    assert run("replay", "a", *STORE) == 0
    assert capsys.readouterr().out == "a scheduled\n"
    assert run("delete", "a", "b", *STORE) == 1
    output = capsys.readouterr()
    assert output.out == "b deleted\n"
    assert "a is scheduled" in output.err


def test_no_service_behind_the_url_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("list", "--url", "http://127.0.0.1:1") == 1
    assert capsys.readouterr().err.startswith("rebound: no answer from http://127.0.0.1:1: ")


@pytest.mark.parametrize("url", ["one.test", "http://127.0.0.1:99999", "http://..", "http://[::1"])
def test_what_is_no_url_of_a_service_is_one_line_and_exit_code_2(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("list", "--url", url) == 2
    assert capsys.readouterr().err == "rebound: --url: must be http://host:port or https://host\n"


def test_an_unreachable_redis_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("list", "--store-url", "redis://127.0.0.1:1") == 1
    error = capsys.readouterr().err
    assert error.startswith("rebound: ")
    assert len(error.splitlines()) == 1


# -- receiver --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--script", "500,abc"), "script: 'abc' is no answer; write an HTTP status from 200 to"),
        (("--script", ""), "script: '' is no answer"),
        (("--script", "429:soon"), "script: '429:soon' is no answer"),
        (("--script", "199"), "script: '199' is no answer"),
        (("--script", "600"), "or 429:30 for one with Retry-After: 30"),
        (("--port", "70000"), "'70000' must be a whole number from 0 to 65535"),
        (("--port", "x"), "'x' must be a whole number"),
    ],
)
def test_a_wrong_script_or_port_of_the_receiver_is_one_line(
    given: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("receiver", *given) == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1
