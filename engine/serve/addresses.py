"""An address to listen at in, whether others reach it out; where they do, a token keeps out who does not belong."""

from __future__ import annotations

import ipaddress
import re

from ...dali_pipes.errors import ArgumentError

TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")


def check_host(host: str, token: str | None) -> None:
    """Raises ArgumentError where a server at `host` would let in who does not belong.

    Args:
        host: the address to listen at.
        token: what a stranger would have to know; None: nothing.
    """
    if token is not None and not TOKEN.fullmatch(token):
        raise ArgumentError(
            f"`token` has {len(token)} characters, expected 16 to 200 letters, digits, `-` and `_`, such as "
            "python -c 'import secrets; print(secrets.token_urlsafe())' prints"
        )
    if token is None and not is_loopback(host):
        raise ArgumentError(
            f"`host={host}` can be reached from other machines, and whoever reaches it would see all videos: add a "
            "`token`, or leave the host away and reach it through ssh -L"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
