"""Everything a Prefect server keeps in words: flow runs, task runs, logs, artifacts. For the scan after an erasure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx

from configs.errors import RegistryError

PAGE = 200
ROUTES = ("flow_runs", "task_runs", "logs", "artifacts", "deployments")


def contents(api_url: str) -> Iterator[tuple[str, bytes]]:
    """`(where, JSON as the server gives it)`, page by page.

    Raises:
        RegistryError: the server does not answer.
    """
    with httpx.Client(base_url=api_url.rstrip("/"), timeout=30.0) as client:
        for route in ROUTES:
            offset = 0
            while True:
                page = _page(client, route, offset)
                for item in page.json():
                    yield f"{route} {item.get('id', offset)}", httpx.Response(200, json=item).content
                offset += PAGE
                if len(page.json()) < PAGE:
                    break


def _page(client: httpx.Client, route: str, offset: int) -> Any:
    try:
        answer = client.post(f"/{route}/filter", json={"limit": PAGE, "offset": offset})
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise RegistryError(
            "Prefect does not answer",
            where=str(client.base_url),
            found=type(error).__name__,
            fix="start it and scan again",
        ) from error
    return answer
