"""`gridclip serve`: what it refuses before it loads anything. That it serves is tested in a browser."""

from __future__ import annotations

import pathlib
import socket
import sys

import pytest
from click.testing import CliRunner, Result
from gridclip.cli import main
from gridclip.engine.serve import server
from gridclip.engine.serve.server import folders_of


def serve(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["serve", "--model", "no-model", *map(str, arguments)])


def test_another_host_without_a_token_is_wrong_usage() -> None:
    result = serve("--host", "0.0.0.0")
    assert result.exit_code == 2
    assert "--host 0.0.0.0 can be reached from other machines" in result.output and "--token" in result.output


def test_a_short_token_is_wrong_usage() -> None:
    result = serve("--host", "0.0.0.0", "--token", "secret")
    assert result.exit_code == 2 and "--token has 6 characters" in result.output
    assert "secret" not in result.output.replace("secrets", "")


def test_no_store(tmp_path: pathlib.Path) -> None:
    result = serve("--store", tmp_path / "nothing")
    assert result.exit_code == 1 and "there is no store at" in result.output


def test_a_port_that_is_taken() -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    with taken, pytest.raises(server.GridClipError, match=r"`port=\d+`.*0: any free one"):
        server._listening("127.0.0.1", taken.getsockname()[1])


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(server.GridClipError, match=r"extra `serve`.*\[serve\]"):
        server.serve(None, None, None)  # type: ignore[arg-type]


def test_the_address_that_is_printed() -> None:
    assert server._address("127.0.0.1", 8000, None) == "http://127.0.0.1:8000/"
    assert server._address("::", 80, "t") == "http://[::]:80/?token=t"


def test_folders_of_ids() -> None:
    assert folders_of(["a/b/c", "a/d", "e"]) == ["a", "a/b"]
    many = [f"{number:03}/{copy}" for number in range(300) for copy in range(1 + number % 3)]
    assert len(folders_of(many)) == server.MOST_FOLDERS


def test_answers_do_not_wait_to_be_acknowledged() -> None:
    with (
        server._listening("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
