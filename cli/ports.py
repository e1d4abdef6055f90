"""Ports: is one free, who has it, give me one."""

from __future__ import annotations

import socket

from configs.errors import StackError


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(host: str, port: int, what: str) -> None:
    """Raise StackError if `port` is taken, naming the process where the system tells."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StackError(
                f"the port for {what} is in use",
                where=f"{host}:{port}",
                expected="a free port",
                found=_owner(port) or str(error),
                fix=f"stop that process, or set another port ({_setting(what)}) in the profile",
            ) from error


def _setting(what: str) -> str:
    return {"gateway": "serving.port", "prefect": "stack.prefect_port", "mlflow": "stack.mlflow_port"}.get(what, what)


def _owner(port: int) -> str | None:
    import psutil

    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                name = psutil.Process(connection.pid).name() if connection.pid else "?"
                return f"process {connection.pid} ({name})"
    except (psutil.Error, OSError):
        return None
    return None
