"""Which port does each service listen on, and is it free?"""

import json
import socket
from contextlib import ExitStack
from pathlib import Path

import psutil

from services.state import ServicesError, write_private
from tasks.services_config import ServicesConfig

HOST = "127.0.0.1"
CONFIGURED = ("airflow", "mlflow", "postgres", "redis", "hook")


def choose_ports(config: ServicesConfig, names: list[str], memory: Path) -> dict[str, int]:
    """
    Give a port to each of ``names``: the configured one, else that of the last start, else a free one.

    Keeps them in ``memory``, so that addresses stay from start to start.

    Raises:
        ServicesError: a configured port is taken; names who holds it and the setting to change.
    """
    last = read_ports(memory)
    ports = {}
    with ExitStack() as held:
        for name in names:
            wanted = getattr(config, f"{name}_port", 0)
            ports[name] = _hold(wanted or last.get(name, 0), held)
            if ports[name] is None and wanted:
                raise ServicesError(_taken(name, wanted))
            ports[name] = ports[name] or _hold(0, held)
    write_private(memory, json.dumps(ports))
    return ports


def refuse_taken_ports(config: ServicesConfig) -> None:
    """
    Refuse configured ports that are taken, before anything is made.

    Raises:
        ServicesError: as ``choose_ports``.
    """
    for name in CONFIGURED:
        wanted = getattr(config, f"{name}_port")
        with ExitStack() as held:
            if wanted and _hold(wanted, held) is None:
                raise ServicesError(_taken(name, wanted))


def read_ports(memory: Path) -> dict[str, int]:
    """Give the ports of the last start; none before the first."""
    try:
        found = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: port for name, port in found.items() if isinstance(port, int) and 0 < port < 2**16}


def is_listening(port: int) -> bool:
    """Tell whether somebody accepts connections on the port of this machine."""
    with socket.socket() as tried:
        tried.settimeout(1)
        return tried.connect_ex((HOST, port)) == 0


def holder_of(port: int) -> str:
    """Name the process that listens on the port, as far as this user may know."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return "another program"


def _taken(name: str, port: int) -> str:
    return (
        f"port {port} for {name} is taken by {holder_of(port)}: stop that, or set"
        f" TRIBUTARY_SERVICES__{name.upper()}_PORT to another port (0: a free one)"
    )


def _hold(port: int, held: ExitStack) -> int | None:
    """Bind the port until ``held`` closes; None when it is taken."""
    bound = held.enter_context(socket.socket())
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
    except OSError:
        return None
    return bound.getsockname()[1]
