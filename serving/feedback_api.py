"""POST /feedback and POST /incidents: checked, redacted, acknowledged after the commit.

The same feedback sent twice counts once: without an id of its own, an item's id is a keyed digest of what it says. An
id of the caller's is theirs alone, for that user and request: with other content it is refused (409), never dropped.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import uuid
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

import store.audit
import store.erasure
import store.feedback
import store.incidents
import store.interactions
from configs.errors import ConflictError, InputError, NotFoundError, TidemillError
from data_contracts.curation import incident_rows
from data_contracts.digests import canonical_json
from data_contracts.ids import UNNAMED, request_id_is_ours
from data_contracts.records import Feedback, Incident, Interaction, Message, utc_now
from serving.api_types import FeedbackBody, IncidentBody, parse
from serving.auth import check_reviewer
from serving.gateway import Gateway
from serving.http_errors import error_body, input_error, read_json, unexpected

MAX_ITEMS = 500
MIN_PARAPHRASES = 2
"""An incident with fewer usable paraphrases could not be learnt."""


async def post_feedback(gateway: Gateway, request: Request) -> Response:
    """One item, or {"items": [...]}: then each item has its own result, and the good ones are kept."""
    data = await read_json(request, gateway.config.serving.max_body_bytes)
    if "items" not in data:
        return JSONResponse(await _accept(gateway, request, data, ""))
    items = data["items"]
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_ITEMS:
        raise input_error(
            "a batch is a list of items",
            "invalid_value",
            where="items",
            expected=f"1 to {MAX_ITEMS} objects",
            found=f"{len(items)} items" if isinstance(items, list) else type(items).__name__,
        )
    results = await asyncio.gather(
        *(_settle(gateway, request, item, f"items.{place}") for place, item in enumerate(items))
    )
    counts = {name: sum(r.get("status") == name for r in results) for name in ("accepted", "duplicate", "rejected")}
    return JSONResponse({"items": results, **counts}, 400 if counts["rejected"] == len(results) else 200)


async def _settle(gateway: Gateway, request: Request, item: Any, where: str) -> dict[str, Any]:
    try:
        return await _accept(gateway, request, item, where)
    except TidemillError as error:
        return {"status": "rejected", **error_body(error)}
    except Exception as error:
        return {"status": "rejected", **error_body(unexpected(error))}


async def _accept(gateway: Gateway, request: Request, data: Any, where: str) -> dict[str, Any]:
    """Check one item and wait for its commit.

    Raises:
        InputError, NotFoundError, AuthError: the item is not acceptable.
        ConflictError: the caller's id was used for other content on this request by this user.
        StoreError: it could not be committed; nothing was kept, send it again.
    """
    body = parse(FeedbackBody, data, where)
    _check_request_id(gateway, body.request_id, where)
    for name in ("text", "rejected"):
        check_length(gateway, getattr(body, name), f"{where}.{name}".strip("."))
    if body.scope == "review":
        check_reviewer(request, gateway.config.serving)
    row = _feedback(gateway, body)
    new = await asyncio.wrap_future(gateway.writer.submit_feedback(gateway.model, row))
    if not new:
        await asyncio.to_thread(_check_not_erased, gateway, row, where)
        if body.id is not None:
            await asyncio.to_thread(_check_same, gateway, row, where)
    status = "accepted" if new else "duplicate"
    gateway.metrics.count("tidemill_feedback_total", kind=row.kind.value, result=status)
    return {"id": body.id or row.id, "status": status}


def _check_not_erased(gateway: Gateway, row: Feedback, where: str) -> None:
    """Refuse feedback on a request that was erased; nothing of it was kept.

    Raises:
        NotFoundError: the request, or this very feedback, was erased.
    """
    with gateway.store.read() as conn:
        gone = store.erasure.erased_among(conn, (row.interaction_id, row.id))
    if gone:
        error = NotFoundError("this request was erased", where=f"{where}.request_id".strip("."))
        error.code = "request_erased"
        raise error


def _check_same(gateway: Gateway, row: Feedback, where: str) -> None:
    """Refuse an id that stands for something else already.

    Raises:
        ConflictError: the stored feedback says something else.
    """
    with gateway.store.read() as conn:
        stored = store.feedback.get(conn, row.id)
    own = {"created_at", "salt"}
    if stored is not None and stored.model_dump(exclude=own) != row.model_dump(exclude=own):
        error = ConflictError(
            "this id was used for other feedback on the same request",
            where=f"{where}.id".strip("."),
            fix="send it with another id, or without one",
        )
        error.code = "id_reused"
        raise error


def _feedback(gateway: Gateway, body: FeedbackBody) -> Feedback:
    principal = body.user or UNNAMED
    session = gateway.redactor.session()

    def clean(value: str | None) -> str | None:
        return None if value is None else session.redact(value)[0]

    said = {"model": gateway.model, **body.model_dump(mode="json", exclude={"id"}), "user": principal}
    if body.id is not None:
        said = {"model": gateway.model, "request_id": body.request_id, "user": principal, "id": body.id}
    # Keyed: a plain digest would let anybody with the id check a guess of the text.
    derived = "fb-" + hmac.new(gateway.key, canonical_json(said), hashlib.sha256).hexdigest()[:40]
    return Feedback(
        id=derived,
        interaction_id=body.request_id,
        kind=body.kind,
        created_at=utc_now(),
        principal=principal,
        scope=body.scope,
        thumb=body.thumb,
        rating=body.rating,
        text=clean(body.text),
        rejected=clean(body.rejected),
        label=clean(body.label),
    )


async def post_incident(gateway: Gateway, request: Request) -> Response:
    """Open an incident: a prompt, the reviewed answer and other ways of asking. For reviewers.

    The exact prompt is the incident's test and never trained, so at least MIN_PARAPHRASES texts must be fit to teach.
    """
    check_reviewer(request, gateway.config.serving)
    body = parse(IncidentBody, await read_json(request, gateway.config.serving.max_body_bytes))
    for place, text in enumerate((body.required, *body.paraphrases)):
        check_length(gateway, text, "required" if place == 0 else f"paraphrases.{place - 1}")
    served: Interaction | None = None
    if body.request_id is not None:
        _check_request_id(gateway, body.request_id, "")
        served = await asyncio.to_thread(_served, gateway, body.request_id)
    incident = _incident(gateway, body, served)
    _check_teachable(gateway, incident)
    ident, new = await asyncio.to_thread(_open_incident, gateway, incident)
    result = {"id": ident, "status": "accepted" if new else "duplicate"}
    return JSONResponse(result, 201 if new else 200)


def _check_teachable(gateway: Gateway, incident: Incident) -> None:
    """Refuse an incident no model could learn, for every later candidate would have to pass it all the same.

    Raises:
        InputError: too few distinct paraphrases that differ from the prompt and are fit to teach.
    """
    usable = len(incident_rows([incident], (), gateway.config.curation, gateway.redactor))
    if usable < MIN_PARAPHRASES:
        raise input_error(
            "an incident is learnt from other ways of asking; the exact prompt is its test and never trained",
            "too_few_paraphrases",
            where="paraphrases",
            expected=f"at least {MIN_PARAPHRASES} distinct ones that differ from the prompt; like `required`, without "
            "personal data and chat control tokens",
            found=f"{usable} usable",
        )


def _incident(gateway: Gateway, body: IncidentBody, served: Interaction | None) -> Incident:
    session = gateway.redactor.session()
    messages: tuple[Message, ...]
    if body.messages is not None:
        plain = [message.record() for message in body.messages]
        messages = tuple(gateway.redactor.redact_messages(plain, session)[0])
    else:
        assert served is not None  # noqa: S101 - the body has a request id where it has no messages
        messages = served.messages
    title, required = session.redact(body.title)[0][:256], session.redact(body.required)[0]
    paraphrases = tuple(session.redact(p)[0] for p in body.paraphrases)
    facts = [gateway.model, title, required, paraphrases, [m.model_dump() for m in messages]]
    mac = hmac.new(gateway.key, canonical_json(facts), hashlib.sha256).digest()
    return Incident(
        id=str(uuid.UUID(bytes=mac[:16], version=5)),
        model=gateway.model,
        interaction_id=body.request_id,
        severity=body.severity,
        answer=served.answer if served else "",
        opened_at=utc_now(),
        opened_by=body.user or "reviewer",
        title=title,
        required=required,
        paraphrases=paraphrases,
        messages=messages,
    )


def _served(gateway: Gateway, request_id: str) -> Interaction:
    with gateway.store.read() as conn:
        served = store.interactions.get(conn, request_id)
    if served is None:
        raise NotFoundError("this request is not recorded (yet)", where="request_id", found=request_id)
    return served


_SAME_INCIDENT = 100
"""How often the same incident may be opened and erased."""


def _open_incident(gateway: Gateway, incident: Incident) -> tuple[str, bool]:
    """The id it has, and whether it is new. One like it that was erased with its opener gives way to a second id.

    Raises:
        NotFoundError: the request it is about was erased meanwhile.
    """
    with gateway.store.write() as conn:
        for attempt in range(_SAME_INCIDENT):
            again = uuid.uuid5(uuid.UUID(incident.id), str(attempt)) if attempt else incident.id
            one = incident.model_copy(update={"id": str(again)})
            if store.incidents.get(conn, one.id) is not None:
                return one.id, False
            if store.incidents.insert(conn, one):
                actor = gateway.redactor.pseudonym(one.opened_by)
                store.audit.append(conn, actor, "incident.opened", one.id, {"severity": one.severity})
                return one.id, True
    raise NotFoundError("this request was erased", where="request_id", found=incident.interaction_id)


def _check_request_id(gateway: Gateway, request_id: str, where: str) -> None:
    """Refuse feedback on a request this installation never served.

    Raises:
        NotFoundError: the id's MAC is not ours for this model.
    """
    if request_id.isascii() and request_id_is_ours(gateway.key, gateway.model, request_id):
        return
    error = NotFoundError(
        "no such request was served here",
        where=f"{where}.request_id".strip("."),
        expected="the `id` of a response of this gateway",
    )
    error.code = "unknown_request_id"
    raise error


def check_length(gateway: Gateway, text: str | None, where: str) -> None:
    """Refuse a text beyond `serving.max_feedback_chars`.

    Raises:
        InputError: it is longer.
    """
    limit = gateway.config.serving.max_feedback_chars
    if text is not None and len(text) > limit:
        raise InputError(
            "the text is too long", where=where, expected=f"at most {limit} characters", found=f"{len(text)} characters"
        )
