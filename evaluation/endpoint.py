"""A model behind an OpenAI-compatible chat API: asked greedily, its tokens and seconds counted.

    Endpoint("http://127.0.0.1:8400/v1", "support-bot").reply([{"role": "user", "content": "Hello"}], 32)

The key comes from the environment only; it is never written anywhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from configs.errors import ConfigError, EvaluationError

KEY_VARIABLE = "TIDEMILL_ENDPOINT_KEY"


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
        timeout_s: for one answer.
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
                    response = client.post(f"{self.url.rstrip('/')}/chat/completions", json=body, headers=headers)
                except (httpx.HTTPError, httpx.InvalidURL) as error:
                    failure = f"{type(error).__name__}: {error}"
                    continue
                if response.status_code == 200:
                    return self._read(response, time.perf_counter() - began)
                failure = f"HTTP {response.status_code}: {response.text[:200]!r}"
                if response.status_code not in (408, 409, 425, 429) and response.status_code < 500:
                    break
        raise EvaluationError(
            "the endpoint does not answer",
            where=self.name,
            expected="an OpenAI-compatible chat completion",
            found=failure,
            fix=f"check the address and the model's name; a key is read from ${self.key_variable}",
        )

    def _read(self, response: Any, seconds: float) -> Reply:
        try:
            data = response.json()
            text = data["choices"][0]["message"]["content"]
            usage = data.get("usage") or {}
            if not isinstance(text, str):
                raise TypeError("content is not a text")
            tokens = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise EvaluationError(
                "the endpoint's answer is no chat completion",
                where=self.name,
                expected="choices[0].message.content",
                found=f"{response.text[:200]!r} ({error!r})",
            ) from error
        return Reply(text.strip(), tokens[0], tokens[1], seconds)
