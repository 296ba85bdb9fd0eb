"""What of this machine would spoil a measurement, where the server runs on it too."""

from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

AUTOGROUP: Final = Path("/proc/sys/kernel/sched_autogroup_enabled")


def scheduler_warning(url: str, setting: Path = AUTOGROUP) -> str | None:
    """What to say where Linux shares processor time by session (autogroup) and the server is on this machine; or None.

    A client in a session of its own then has one half of the cores against a whole server, in turns that are long: the
    chunks of a stream were seen to be read all at once, at its end.
    """
    if not _is_here(url) or not setting.exists() or setting.read_text().strip() != "1":
        return None
    return (
        f"{url} is on this machine, and Linux shares processor time by session: beside a busy server this client may "
        f"be woken late, and first tokens seem to come with the last. Turn it off with: echo 0 > {setting}"
    )


def _is_here(url: str) -> bool:
    host = urlsplit(url if "://" in url else f"http://{url}").hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
