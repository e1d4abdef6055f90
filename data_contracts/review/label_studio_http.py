"""A Label Studio server over its HTTP API. The token comes from $TIDEMILL_LABEL_STUDIO_TOKEN and goes nowhere else.

Both kinds of token work: a personal access token (a JWT, exchanged for short-lived ones) and a legacy token.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from configs.errors import ConfigError, InputError, UnavailableError
from data_contracts.review.label_studio import KEY

TOKEN_VARIABLE = "TIDEMILL_LABEL_STUDIO_TOKEN"  # noqa: S105 - the name of the variable
TIMEOUT_S = 60.0
PAGE = 100


class HttpLabelStudio:
    """The seam over HTTP.

    Args:
        url: for example `http://127.0.0.1:8080`.
        token: default from the environment.

    Raises:
        ConfigError: no token.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._token = token or os.environ.get(TOKEN_VARIABLE, "")
        self._url = url.rstrip("/")
        if not self._token:
            raise ConfigError(
                "no token for Label Studio",
                where=f"${TOKEN_VARIABLE}",
                expected="an access token from its page Account & Settings",
                found="nothing",
            )
        # A redirect could carry the token to another host.
        self._client = httpx.Client(base_url=self._url, timeout=TIMEOUT_S, follow_redirects=False)
        self._authorised = False

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def find(self, title: str) -> int | None:
        """See LabelStudio."""
        page = 1
        while True:
            found = self._call("GET", "/api/projects/", params={"page": page, "page_size": PAGE})
            for known in found.get("results", []):
                if known.get("title") == title:
                    return int(known["id"])
            if not found.get("next"):
                return None
            page += 1

    def create(self, title: str, config: str, overlap: int) -> int:
        """See LabelStudio."""
        facts = {"title": title, "label_config": config, "maximum_annotations": overlap}
        return int(self._call("POST", "/api/projects/", json=facts)["id"])

    def import_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> int:
        """See LabelStudio."""
        answer = self._call("POST", f"/api/projects/{project}/import", json=list(tasks))
        return int(answer.get("task_count", len(tasks)))

    def export(self, project: int) -> list[dict[str, Any]]:
        """See LabelStudio."""
        found = self._call("GET", f"/api/projects/{project}/export", params={"exportType": "JSON"})
        return list(found)

    def items(self, project: int) -> dict[int, str]:
        """See LabelStudio."""
        found: dict[int, str] = {}
        page = 1
        while True:
            seen = self._call("GET", "/api/tasks/", params={"project": project, "page": page, "page_size": PAGE})
            tasks = seen.get("tasks", [])
            found.update({int(task["id"]): task["data"][KEY] for task in tasks if KEY in task["data"]})
            if not tasks or page * PAGE >= int(seen.get("total", 0)):
                return found
            page += 1

    def remove(self, tasks: Sequence[int]) -> int:
        """See LabelStudio."""
        for task in tasks:
            self._call("DELETE", f"/api/tasks/{task}/")
        return len(tasks)

    def _authorise(self) -> None:
        """A personal access token is a refresh token: it buys an access token that lives some minutes."""
        if self._token.count(".") != 2:
            self._client.headers["Authorization"] = f"Token {self._token}"
        else:
            self._client.headers.pop("Authorization", None)
            answer = self._send("POST", "/api/token/refresh", json={"refresh": self._token})
            self._client.headers["Authorization"] = f"Bearer {self._read(answer)['access']}"
        self._authorised = True

    def _call(self, method: str, path: str, **more: Any) -> Any:
        if not self._authorised:
            self._authorise()
        answer = self._send(method, path, **more)
        if answer.status_code == 401 and self._token.count(".") == 2:
            self._authorise()
            answer = self._send(method, path, **more)
        return self._read(answer)

    def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **more)
        except httpx.HTTPError as error:
            raise UnavailableError(
                "Label Studio does not answer",
                where=f"{self._url}{path}",
                found=type(error).__name__,
                fix="check the address, or use files: `tidemill review push --to FILE`",
            ) from error

    def _read(self, answer: httpx.Response) -> Any:
        where = f"{self._url}{answer.request.url.path}"
        if answer.status_code >= 500:
            raise UnavailableError("Label Studio failed", where=where, found=f"status {answer.status_code}")
        if not answer.is_success:
            raise InputError(
                "Label Studio refused",
                where=where,
                expected="a token that may do this, and a project that exists",
                found=f"status {answer.status_code}",
                fix=f"check ${TOKEN_VARIABLE} and --project",
            )
        if answer.status_code == 204:
            return None
        try:
            return answer.json()
        except (ValueError, RecursionError) as error:
            raise InputError("this is no Label Studio", where=where, expected="JSON", found="something else") from error
