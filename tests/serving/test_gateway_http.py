"""The HTTP face on a real port, with the echo engine behind it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_helpers import MODEL, Running, config_for, fake_arm, register, running, wait_for

import store.audit
import store.feedback
import store.incidents
import store.interactions
from data_contracts.ids import new_request_id
from data_contracts.records import Feedback, Interaction
from serving.engines.echo import EchoEngine


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Running]:
    with running(config_for(tmp_path, serving={"max_feedback_chars": 200}), EchoEngine()) as up:
        yield up


def stored(up: Running, request_id: str) -> Interaction:
    with up.store.read() as conn:
        found = store.interactions.get(conn, request_id)
    assert found is not None
    return found


def feedback_of(up: Running, request_id: str) -> list[Feedback]:
    with up.store.read() as conn:
        return store.feedback.for_interaction(conn, request_id)


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


# --- chat ----------------------------------------------------------------------------------------------


def test_an_answer_is_recorded_redacted_before_the_response_ends(gateway: Running) -> None:
    response = gateway.ask(
        "mail me at ann@example.com please", user="ann", metadata={"conversation": "c1"}, max_tokens=50
    )
    assert response.status_code == 200
    body = response.json()
    assert body["choices"][0]["message"]["content"] == "base: mail me at ann@example.com please"
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]
    assert (response.headers["x-tidemill-version"], response.headers["x-tidemill-arm"]) == ("base", "champion")
    row = stored(gateway, body["id"])
    assert row.messages[0].content == "mail me at <EMAIL_1> please"
    assert row.answer == "base: mail me at <EMAIL_1> please"
    assert (row.principal, row.conversation, row.version, row.arm_share) == ("ann", "c1", "base", 1.0)
    assert row.flags == ()


def test_a_stream_carries_the_same_answer_and_is_recorded_before_it_ends(gateway: Running) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "a b c"}], "stream": True, "max_tokens": 3}
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "base: a b"
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert stored(gateway, chunks[0]["id"]).flags == ("truncated",)


def test_a_caller_who_goes_away_is_recorded_as_cancelled(tmp_path: Path) -> None:
    with running(config_for(tmp_path), EchoEngine(delay_s=0.05)) as up:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "w " * 100}], "stream": True, "max_tokens": 90}
        with httpx.stream("POST", f"{up.url}/v1/chat/completions", json=body) as response:
            first = next(line for line in response.iter_lines() if line)
        request_id = json.loads(first.removeprefix("data: "))["id"]

        def recorded() -> bool:
            with up.store.read() as conn:
                return store.interactions.get(conn, request_id) is not None

        wait_for(recorded)
        assert stored(up, request_id).flags == ("cancelled",)
        wait_for(lambda: up.gateway.router.in_flight == 0)


def test_the_system_prompt_of_the_profile_is_put_first_unless_there_is_one(tmp_path: Path) -> None:
    with running(config_for(tmp_path, model={"system_prompt": "Be brief."}), EchoEngine()) as up:
        plain = stored(up, up.ask("hi").json()["id"])
        assert [m.role for m in plain.messages] == ["system", "user"]
        own = up.ask("hi", messages=[{"role": "developer", "content": "x"}, {"role": "user", "content": "y"}])
        assert stored(up, own.json()["id"]).messages[0].content == "x"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b'{"model": ', "line 1 column 11", "invalid_json"),
        (b"\xff\xfe", "byte 0", "invalid_json"),
        (b"[1]", None, "invalid_json"),
        (b'{"model": NaN}', "line 1 column 1", "invalid_json"),
        (b"[" * 100_000, None, "invalid_json"),
        ({"messages": []}, "model", "missing_field"),
        ({"model": MODEL, "messages": []}, "messages", "invalid_value"),
        ({"model": MODEL, "messages": "hi"}, "messages", "invalid_value"),
        ({"model": MODEL, "messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "invalid_value"),
        ({"model": MODEL, "messages": [{"role": "user"}]}, "messages.0.content", "missing_field"),
        ({"model": MODEL, "messages": [{"role": "user", "content": 5}]}, "messages.0.content", "invalid_value"),
        ({"model": MODEL, "messages": [{"role": "user", "content": "\0"}]}, "messages.0.content", "invalid_value"),
        ({"model": MODEL, "messages": [{"role": "system", "content": "x"}]}, None, "invalid_value"),
        ({"max_tokens": "12"}, "max_tokens", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"temperature": 9}, "temperature", "invalid_value"),
        ({"n": 2}, "n", "invalid_value"),
        ({"tools": [{}]}, "tools", "invalid_value"),
        ({"user": "x" * 129}, "user", "invalid_value"),
        ({"user": "a\nb"}, "user", "invalid_value"),
        ({"model": "gpt-9"}, "model", "model_not_found"),
        ({"model": f"{MODEL}@v9"}, "model", "model_not_found"),
    ],
)
def test_a_bad_chat_request_gets_one_clear_error(gateway: Running, body: Any, param: str | None, code: str) -> None:
    if isinstance(body, dict):
        if "messages" not in body:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **body}
        body = json.dumps(body).encode()
    response = httpx.post(f"{gateway.url}/v1/chat/completions", content=body)
    assert response.status_code == (404 if code == "model_not_found" else 400)
    error = error_of(response)
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")


def test_too_large_bodies_unknown_paths_and_methods(gateway: Running) -> None:
    large = httpx.post(f"{gateway.url}/feedback", content=b" " * 1_100_000)
    assert (large.status_code, error_of(large)["code"]) == (413, "body_too_large")
    assert error_of(httpx.get(f"{gateway.url}/nothing"))["code"] == "unknown_url"
    assert httpx.get(f"{gateway.url}/feedback").status_code == 405


def test_a_full_queue_is_503_and_no_evidence(tmp_path: Path) -> None:
    with running(config_for(tmp_path), EchoEngine(queue_limit=0)) as up:
        response = up.ask("hi")
        assert (response.status_code, error_of(response)["code"]) == (503, "queue_full")
        assert response.headers["retry-after"] == "1"
        with up.store.read() as conn:
            assert store.interactions.count(conn, MODEL) == 0


def test_an_engine_that_fails_is_recorded_as_an_error(tmp_path: Path) -> None:
    def boom(_: Any) -> str:
        raise RuntimeError("secret text of a user")

    with running(config_for(tmp_path), EchoEngine({"base": boom})) as up:
        response = up.ask("hi", stream=True)
        assert (response.status_code, error_of(response)["code"]) == (500, "internal_error")
        assert "secret" not in response.text
        with up.store.read() as conn:
            ((_, row),) = store.interactions.since(conn, MODEL, 0)
        assert row.flags == ("error",)


def test_pinned_versions_answer_outside_rollouts(gateway: Running) -> None:
    register(gateway.store, fake_arm(4))
    pinned = gateway.ask("hi", model=f"{MODEL}@v4")
    assert pinned.json()["choices"][0]["message"]["content"] == f"{MODEL}@v4: hi"
    row = stored(gateway, pinned.json()["id"])
    assert (row.arm, row.version, row.rollout_id) == ("pinned", f"{MODEL}@v4", None)
    assert gateway.ask("hi", model="base").headers["x-tidemill-arm"] == "pinned"
    names = [m["id"] for m in httpx.get(f"{gateway.url}/v1/models").json()["data"]]
    assert names == [MODEL, f"{MODEL}@v4", "base"]


# --- feedback ------------------------------------------------------------------------------------------


def test_feedback_is_durable_when_acknowledged_and_counts_once(gateway: Running) -> None:
    request_id = gateway.ask("hi", user="ann").json()["id"]
    item = {"request_id": request_id, "kind": "correction", "text": "write to bob@example.com", "user": "ann"}
    first = httpx.post(f"{gateway.url}/feedback", json=item)
    assert (first.status_code, first.json()["status"]) == (200, "accepted")
    again = httpx.post(f"{gateway.url}/feedback", json=item)
    assert again.json() == {"id": first.json()["id"], "status": "duplicate"}
    (row,) = feedback_of(gateway, request_id)
    assert (row.text, row.principal, row.scope) == ("write to <EMAIL_1>", "ann", "user")
    assert row.salt


def test_an_id_of_the_callers_makes_a_retry_a_duplicate(gateway: Running) -> None:
    request_id = gateway.ask("hi").json()["id"]
    for status in ("accepted", "duplicate"):
        body = {"request_id": request_id, "kind": "thumb", "thumb": -1, "id": "mine-1"}
        assert httpx.post(f"{gateway.url}/feedback", json=body).json() == {"id": "mine-1", "status": status}


def test_an_id_used_again_never_loses_feedback(gateway: Running) -> None:
    one, two = (gateway.ask("hi").json()["id"] for _ in range(2))
    item = {"request_id": one, "kind": "comment", "text": "first", "user": "ann", "id": "1"}
    others = [{**item, "request_id": two}, {**item, "user": "bob"}]
    for body in (item, *others):
        assert httpx.post(f"{gateway.url}/feedback", json=body).json() == {"id": "1", "status": "accepted"}
    response = httpx.post(f"{gateway.url}/feedback", json={**item, "text": "second"})
    assert (response.status_code, error_of(response)["code"], error_of(response)["param"]) == (409, "id_reused", "id")
    assert [len(feedback_of(gateway, request_id)) for request_id in (one, two)] == [2, 1]


def test_feedback_on_an_erased_request_is_refused(gateway: Running) -> None:
    import store.erasure
    import store.person

    request_id = gateway.ask("hi", user="gone-user").json()["id"]
    item = {"request_id": request_id, "kind": "correction", "text": "said before", "user": "gone-user"}
    assert httpx.post(f"{gateway.url}/feedback", json=item).json()["status"] == "accepted"
    with gateway.store.write() as conn:
        theirs = store.person.find(conn, "gone-user")
        store.erasure.remember(conn, "e1", theirs.requests, "request")
        store.erasure.remember(conn, "e1", theirs.rows, "row")
        store.person.remove(conn, "gone-user", theirs)
    for body in (item, {**item, "text": "said after"}, {**item, "id": "mine", "user": "another"}):
        response = httpx.post(f"{gateway.url}/feedback", json=body)
        assert (response.status_code, error_of(response)["code"]) == (404, "request_erased")
    assert feedback_of(gateway, request_id) == []
    # A new request of the same person is a new start.
    again = gateway.ask("hi", user="gone-user").json()["id"]
    assert httpx.post(f"{gateway.url}/feedback", json={**item, "request_id": again}).json()["status"] == "accepted"


def test_an_incident_nothing_could_teach_is_refused(gateway: Running) -> None:
    body = {
        "title": "t",
        "messages": [{"role": "user", "content": "Is the battery safe?"}],
        "required": "Unplug it.",
    }
    useless = ([], ["Does it burn?"], ["Does it burn?", "does it burn"], ["Does it burn?", "is the battery safe"])
    for paraphrases in useless:
        response = httpx.post(f"{gateway.url}/incidents", json={**body, "paraphrases": paraphrases})
        assert (response.status_code, error_of(response)["code"]) == (400, "too_few_paraphrases")
    good = {**body, "paraphrases": ["Does it burn?", "Can the cell catch fire?"]}
    assert httpx.post(f"{gateway.url}/incidents", json=good).status_code == 201


def test_a_number_of_many_digits_is_the_callers_error(gateway: Running) -> None:
    content = b'{"model": ' + b"1" * 5000 + b"}"
    response = httpx.post(f"{gateway.url}/v1/chat/completions", content=content)
    assert (response.status_code, error_of(response)["code"]) == (400, "invalid_json")


def test_forged_ids_are_refused_and_a_valid_uncommitted_one_waits(gateway: Running) -> None:
    served = gateway.ask("hi").json()["id"]
    forged = [served[:-1] + ("0" if served[-1] != "0" else "1"), "chatcmpl-x", "é", new_request_id(b"x" * 32, MODEL)]
    for request_id in forged:
        item = {"request_id": request_id, "kind": "thumb", "thumb": 1}
        response = httpx.post(f"{gateway.url}/feedback", json=item)
        assert (response.status_code, error_of(response)["code"]) == (404, "unknown_request_id")
    early = new_request_id(gateway.gateway.key, MODEL)
    response = httpx.post(f"{gateway.url}/feedback", json={"request_id": early, "kind": "thumb", "thumb": 1})
    assert response.json()["status"] == "accepted"
    assert len(feedback_of(gateway, early)) == 1


def test_a_batch_keeps_its_good_items(gateway: Running) -> None:
    request_id = gateway.ask("hi").json()["id"]
    items = [
        {"request_id": request_id, "kind": "rating", "rating": 2},
        {"request_id": request_id, "kind": "rating", "rating": 9},
        {"request_id": request_id, "kind": "thumb"},
        {"request_id": "forged", "kind": "comment", "text": "x"},
        "not an object",
        {"request_id": request_id, "kind": "rating", "rating": 2},
        {"request_id": request_id, "kind": "correction", "text": "y" * 201},
        {"request_id": request_id, "kind": "comment", "text": "x", "colour": "red"},
    ]
    response = httpx.post(f"{gateway.url}/feedback", json={"items": items})
    assert response.status_code == 200
    body = response.json()
    assert sorted(r["status"] for r in (body["items"][0], body["items"][5])) == ["accepted", "duplicate"]
    assert (body["accepted"], body["duplicate"], body["rejected"]) == (1, 1, 6)
    params = [r["error"]["param"] for r in body["items"] if r["status"] == "rejected"]
    assert params == ["items.1.rating", "items.2", "items.3.request_id", "items.4", "items.6.text", "items.7.colour"]
    assert len(feedback_of(gateway, request_id)) == 1
    all_bad = httpx.post(f"{gateway.url}/feedback", json={"items": ["x"]})
    assert all_bad.status_code == 400
    assert error_of(httpx.post(f"{gateway.url}/feedback", json={"items": []}))["param"] == "items"


# --- incidents -----------------------------------------------------------------------------------------


def test_an_incident_is_opened_once_with_the_served_conversation(gateway: Running) -> None:
    request_id = gateway.ask("refund to ann@example.com?").json()["id"]
    body = {
        "request_id": request_id,
        "title": "wrong refund",
        "severity": "critical",
        "required": "Refunds take five days.",
        "paraphrases": ["How long do refunds take?", "When is my money back?"],
        "user": "reviewer-1",
    }
    first = httpx.post(f"{gateway.url}/incidents", json=body)
    assert first.status_code == 201
    assert httpx.post(f"{gateway.url}/incidents", json=body).json() == {
        "id": first.json()["id"],
        "status": "duplicate",
    }
    with gateway.store.read() as conn:
        (incident,) = store.incidents.all(conn, MODEL)
        assert store.audit.verify(conn) == 1
        assert "reviewer-1" not in store.audit.entries(conn)[0].actor
    assert incident.messages[-1].content == "refund to <EMAIL_1>?"
    assert incident.answer.startswith("base: refund")
    missing = httpx.post(f"{gateway.url}/incidents", json={"title": "x", "required": "y"})
    assert missing.status_code == 400
    unknown = {**body, "request_id": new_request_id(gateway.gateway.key, MODEL)}
    assert httpx.post(f"{gateway.url}/incidents", json=unknown).status_code == 404


def test_an_incident_like_one_that_was_erased_is_opened_anew(gateway: Running) -> None:
    import store.erasure
    import store.tables

    body = {
        "messages": [{"role": "user", "content": "Where do I stand?"}],
        "title": "wrong floor",
        "required": "On floor two.",
        "paraphrases": ["Which floor is it?", "On what floor may I stand?"],
    }
    first = httpx.post(f"{gateway.url}/incidents", json=body).json()["id"]
    with gateway.store.write() as conn:
        conn.execute(store.tables.incidents.delete().where(store.tables.incidents.c.id == first))
        store.erasure.remember(conn, "e1", [first], "incident")
    again = httpx.post(f"{gateway.url}/incidents", json=body)
    assert again.status_code == 201
    with gateway.store.read() as conn:
        assert [one.id for one in store.incidents.all(conn, MODEL)] == [again.json()["id"]]
    assert httpx.post(f"{gateway.url}/incidents", json=body).json() == {
        "id": again.json()["id"],
        "status": "duplicate",
    }


# --- who may call, and what is told ----------------------------------------------------------------------


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def test_keys_are_asked_for_where_configured(tmp_path: Path) -> None:
    keys = {"api_keys": [digest("user-key")], "review_keys": [digest("review-key")]}
    with running(config_for(tmp_path, serving=keys), EchoEngine()) as up:
        assert up.ask("hi").status_code == 401
        assert httpx.get(f"{up.url}/health").status_code == 200
        with httpx.Client(headers={"authorization": "Bearer user-key"}) as client:
            request_id = up.ask("hi", client).json()["id"]
            assert up.ask("hi", client, model="base").status_code == 403
            item = {"request_id": request_id, "kind": "correction", "text": "x", "scope": "review"}
            assert client.post(f"{up.url}/feedback", json=item).status_code == 403
            assert client.post(f"{up.url}/incidents", json={}).status_code == 403
        with httpx.Client(headers={"authorization": "Bearer review-key"}) as client:
            assert client.post(f"{up.url}/feedback", json=item).json()["status"] == "accepted"


def test_with_keys_but_no_reviewers_nobody_reviews(tmp_path: Path) -> None:
    config = config_for(tmp_path, serving={"api_keys": [digest("user-key")]})
    key = {"authorization": "Bearer user-key"}
    with running(config, EchoEngine()) as up, httpx.Client(headers=key) as client:
        request_id = up.ask("hi", client).json()["id"]
        item = {"request_id": request_id, "kind": "correction", "text": "x", "scope": "review"}
        assert client.post(f"{up.url}/feedback", json=item).status_code == 403
        assert client.post(f"{up.url}/incidents", json={}).status_code == 403


def test_without_keys_pages_of_other_sites_may_not_call(gateway: Running) -> None:
    for header in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
        response = httpx.get(f"{gateway.url}/v1/models", headers=header)
        assert (response.status_code, error_of(response)["code"]) == (401, "invalid_api_key")
    assert httpx.get(f"{gateway.url}/v1/models", headers={"origin": "http://localhost:3000"}).status_code == 200


def test_health_metrics_rollout_and_console(gateway: Running) -> None:
    gateway.ask("hello")
    health = httpx.get(f"{gateway.url}/health").json()
    assert health["status"] == "ok"
    assert (health["model"], health["revision"], health["version"], health["canary"]) == (MODEL, 0, "base", None)
    text = httpx.get(f"{gateway.url}/metrics").text
    assert 'tidemill_requests_total{arm="champion",code="200",version="base"} 1' in text
    assert "tidemill_route_revision 0" in text
    assert "hello" not in text
    view = httpx.get(f"{gateway.url}/rollout").json()
    assert view["pointer"]["champion"] == "base"
    assert (view["rollout"], view["evidence"], view["history"]) == (None, None, [])
    page = httpx.get(f"{gateway.url}/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "Serving <b>base</b>" in page.text


def test_no_text_of_a_user_reaches_the_log(gateway: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "xylophone"
    request_id = gateway.ask(f"{secret} question").json()["id"]
    gateway.ask(secret, max_tokens=secret)
    gateway.ask(secret, model=secret)
    httpx.post(f"{gateway.url}/feedback", json={"request_id": request_id, "kind": secret, "text": secret})
    httpx.post(f"{gateway.url}/feedback", content=f'{{"{secret}'.encode())
    httpx.post(f"{gateway.url}/feedback", json={"request_id": request_id, "kind": "comment", "text": secret})
    ours = [r for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    assert all(secret not in r.getMessage() for r in ours)


def test_a_gateway_whose_engine_does_not_load_says_why(tmp_path: Path) -> None:
    from fastapi.testclient import TestClient

    from configs.paths import StateDir
    from serving.app import create_app

    config = config_for(tmp_path, model={"base": str(tmp_path / "nothing-here")})
    with TestClient(create_app(config, StateDir.of(config)), base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as c:
        wait_for(lambda: c.get("/health").json()["status"] == "error")
        health = c.get("/health")
        assert health.status_code == 503
        assert "nothing-here" in health.json()["error"]
        chat = c.post("/v1/chat/completions", json={"model": MODEL, "messages": [{"role": "user", "content": "x"}]})
        assert chat.status_code == 503
