"""A model behind an OpenAI-compatible chat API: asked greedily, its tokens and seconds counted.

    Endpoint("http://127.0.0.1:8400/v1", "support-bot").reply([{"role": "user", "content": "Hello"}], 32)

The key comes from the environment only; it is never written anywhere.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from configs.errors import ConfigError, EvaluationError

KEY_VARIABLE = "TIDEMILL_ENDPOINT_KEY"
MAX_REPLY_BYTES = 4_000_000
MAX_TOKENS_TOLD = 10_000_000


class RequestRefusedError(EvaluationError):
    """The endpoint works and refuses this one request: the next may be answered."""


@dataclass(frozen=True)
class Reply:
    """One answer. Tokens are what the endpoint counted, 0 if it counts none; seconds are the caller's clock."""

    text: str
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0


class Chat(Protocol):
    """What asks a model. The real one is `Endpoint`; a test has one of its own."""

    @property
    def name(self) -> str:
        """What tells this model from others: cached answers belong to it."""
        ...

    def reply(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> Reply:
        """Answer a conversation; safe to call from several threads.

        Raises:
            EvaluationError: it does not answer, or with something that is no answer.
        """
        ...


def key_from(variable: str) -> str:
    """The API key in an environment variable, or "".

    Raises:
        ConfigError: it holds white space or control characters, which no key does.
    """
    key = os.environ.get(variable, "").strip()
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError("not an API key", where=f"${variable}", expected="printable ASCII without spaces")
    return key


@dataclass(frozen=True)
class Endpoint:
    """One model at one address.

    Args:
        url: the API's root, with its `/v1`.
        model: what to ask for.
        key_variable: environment variable with the API key; unset or empty sends none.
        timeout_s: for one answer, all of it.
        attempts: how often an endpoint that is down, busy (429) or failing (5xx) is tried.
        pause_s: wait between attempts, doubled each time.
    """

    url: str
    model: str
    key_variable: str = KEY_VARIABLE
    timeout_s: float = 60.0
    attempts: int = 2
    pause_s: float = 0.5

    @property
    def name(self) -> str:
        return f"{self.url.rstrip('/')}#{self.model}"

    def reply(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> Reply:
        """Answer a conversation at temperature 0."""
        import httpx

        body = {"model": self.model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0}
        key = key_from(self.key_variable)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        failure = ""
        with httpx.Client(timeout=self.timeout_s) as client:
            for attempt in range(self.attempts):
                if attempt:
                    time.sleep(self.pause_s * 2 ** (attempt - 1))
                began = time.perf_counter()
                try:
                    status, content = self._post(client, body, headers)
                except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
                    failure = f"{type(error).__name__}: {error}"
                    continue
                if status == 200:
                    return self._read(content, time.perf_counter() - began)
                failure = f"HTTP {status}: {content[:200].decode('utf-8', 'replace')!r}"
                if status in (400, 413, 422):
                    raise RequestRefusedError("the endpoint refuses a request", where=self.name, found=failure)
                if status not in (408, 409, 425, 429) and status < 500:
                    break
        raise EvaluationError(
            "the endpoint does not answer",
            where=self.name,
            expected="an OpenAI-compatible chat completion",
            found=failure,
            fix=f"check the address and the model's name; a key is read from ${self.key_variable}",
        )

    def _post(self, client: Any, body: Mapping[str, Any], headers: Mapping[str, str]) -> tuple[int, bytes]:
        """(status, body), read within the time and size allowed: httpx's own limit is for each read."""
        import httpx

        ends = time.monotonic() + self.timeout_s
        content = bytearray()
        url = f"{self.url.rstrip('/')}/chat/completions"
        with client.stream("POST", url, json=body, headers=headers) as response:
            for piece in response.iter_bytes():
                content += piece
                if time.monotonic() > ends:
                    raise httpx.ReadTimeout(f"no whole answer within {self.timeout_s:g} s")
                if len(content) > MAX_REPLY_BYTES:
                    raise httpx.DecodingError(f"an answer of more than {MAX_REPLY_BYTES:,} bytes")
        return response.status_code, bytes(content)

    def _read(self, content: bytes, seconds: float) -> Reply:
        try:
            data = json.loads(content)
            text = data["choices"][0]["message"]["content"]
            usage = data.get("usage") or {}
            if not isinstance(text, str):
                raise TypeError("content is not a text")
            tokens = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
            if not all(0 <= count <= MAX_TOKENS_TOLD for count in tokens):
                raise ValueError(f"impossible numbers of tokens: {tokens}")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise EvaluationError(
                "the endpoint's answer is no chat completion",
                where=self.name,
                expected="choices[0].message.content",
                found=f"{content[:200].decode('utf-8', 'replace')!r} ({error!r})",
            ) from error
        # JSON can hold half a surrogate pair, which nothing can write to a file.
        text = text.encode("utf-8", "replace").decode("utf-8")
        return Reply(text.strip(), tokens[0], tokens[1], seconds)
