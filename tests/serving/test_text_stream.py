from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.engines.text_stream import Detokenizer, StopScanner

letters = st.text(alphabet="abc", max_size=30)


@given(letters, st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3), st.data())
def test_pieces_are_the_text_before_the_first_stop_however_it_is_cut(text: str, stops: list[str], data: st.DataObject):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    scanner, out, at = StopScanner(stops), "", 0
    for cut in [*cuts, len(text)]:
        out += scanner.push(text[at:cut])
        at = cut
    out += scanner.flush()
    ends = [text.find(s) for s in stops if s in text]
    assert out == text[: min(ends)] if ends else out == text
    assert scanner.stopped == bool(ends)


@given(st.text(max_size=40))
def test_bytes_come_out_as_whole_characters(text: str) -> None:
    raw = text.encode("utf-8")
    detokenizer = Detokenizer(lambda ids: bytes(ids).decode("utf-8", errors="replace"))
    pieces = [detokenizer.push(byte) for byte in raw]
    assert "".join(pieces) + detokenizer.flush() == text
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in pieces)
