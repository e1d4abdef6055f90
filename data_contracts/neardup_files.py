"""A near-duplicate index on disk: one file a part, memory-mapped, and `index.json` that lists them, written last.

A part's file: 8 bytes little-endian length of a JSON header {array: [dtype, start, elements]}, the header, and the
arrays, each at a multiple of 64 bytes. No pickle. A part never changes; one that is listed no more is deleted.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import StoreError
from data_contracts.neardup_segment import Names, Segment
from data_contracts.neardup_sketch import BITS, Sets
from data_contracts.snapshot_files import fsync

INDEX = "index.json"
FORMAT = 1
_ALIGN = 64
_SETTINGS = {"similarity", "seed", "permutations", "cap", "crowded"}
_DTYPES = {"<i8", "<u8", "<u4", "|u1"}


def _arrays(segment: Segment) -> dict[str, np.ndarray]:
    return {
        "set_offsets": segment.sets.offsets,
        "set_values": segment.sets.values,
        "set_bits": segment.sets.bits.reshape(-1),
        "crowded": segment.crowded,
        "name_offsets": segment.names.offsets,
        "names": segment.names.data,
        **{f"band{n}": band for n, band in enumerate(segment.bands)},
    }


def _write_part(path: Path, segment: Segment) -> None:
    arrays = _arrays(segment)
    layout: dict[str, list[Any]] = {}
    at = 0
    for name, array in arrays.items():
        layout[name] = [array.dtype.str, at, len(array)]
        at += -(-array.nbytes // _ALIGN) * _ALIGN
    head = json.dumps({"format": FORMAT, "bytes": at, "arrays": layout}).encode()
    head += b" " * (-(len(head) + 8) % _ALIGN)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).data)
            file.write(b"\0" * (-array.nbytes % _ALIGN))
        file.flush()
        os.fsync(file.fileno())


def _damaged(path: Path, found: object) -> StoreError:
    return StoreError(
        "a near-duplicate index cannot be read",
        where=path,
        found=str(found)[:300],
        fix="delete the folder; the index is made again from the rows",
    )


def _open_part(path: Path) -> Segment:
    try:
        raw = np.memmap(path, np.uint8, "r")
        size = int.from_bytes(raw[:8].tobytes(), "little")
        head = json.loads(raw[8 : 8 + size].tobytes())
        if head["format"] != FORMAT or len(raw) != 8 + size + head["bytes"]:
            raise ValueError(f"{len(raw)} bytes, expected {8 + size + head['bytes']} of format {FORMAT}")
        found = {}
        for name, (dtype, start, count) in head["arrays"].items():
            if dtype not in _DTYPES:
                raise ValueError(f"array of type {dtype}")
            found[name] = np.frombuffer(raw, dtype, count, 8 + size + start) if count else np.empty(0, dtype)
        bands = [found[f"band{n}"] for n in range(sum(name.startswith("band") for name in found))]
        return Segment(
            Sets(found["set_offsets"], found["set_values"], found["set_bits"].reshape(-1, BITS // 64)),
            tuple(bands),
            found["crowded"],
            Names(found["name_offsets"], found["names"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _read_list(folder: Path) -> dict[str, Any] | None:
    """The list of parts, or None where there is no index."""
    try:
        data: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if data["format"] != FORMAT or not all(Path(name).name == name for name in data["parts"]):
            raise ValueError(f"format {data['format']}, expected {FORMAT}")
        if set(data["settings"]) != _SETTINGS or not all(isinstance(v, int | float) for v in data["settings"].values()):
            raise ValueError(f"settings {data['settings']}")
        return {key: data[key] for key in ("format", "settings", "generation", "parts", "rows")}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder / INDEX, error) from error


def open_index(folder: Path) -> tuple[dict[str, Any], list[Segment], list[str], int]:
    """(settings, parts, their files, generation) of a saved index.

    Raises:
        StoreError: no index there, or one that is damaged or of another version.
    """
    while True:
        data = _read_list(folder)
        if data is None:
            raise StoreError(
                "no near-duplicate index here", where=folder, expected=f"a folder with {INDEX}", fix="save one first"
            )
        try:
            segments = [_open_part(folder / name) for name in data["parts"]]
        except StoreError:
            if _read_list(folder) == data:
                raise
            continue  # saved anew between our two reads
        if [len(segment) for segment in segments] != data["rows"]:
            raise _damaged(folder, "parts of other sizes than listed")
        return data["settings"], segments, data["parts"], data["generation"]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_index(
    folder: Path,
    settings: dict[str, Any],
    segments: Sequence[Segment],
    files: Sequence[str | None],
    generation: int,
) -> tuple[list[str | None], int]:
    """Write parts that are not in the folder yet, then the list; (the parts' files, the new generation).

    Raises:
        StoreError: the folder holds another index than the one that was loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        current = _read_list(folder)
        if current is not None and (current["generation"], current["settings"]) != (generation, settings):
            raise StoreError(
                "another near-duplicate index is saved here",
                where=folder,
                expected=f"generation {generation} with {settings}",
                found=f"generation {current['generation']} with {current['settings']}",
                fix="load it, add the texts again, and save",
            )
        here = set(current["parts"]) if current else set()
        names: list[str | None] = []
        for segment, known in zip(segments, files, strict=True):
            name = known if known in here else f"part-{uuid.uuid4().hex}.bin"
            if name != known:
                _write_part(folder / str(name), segment)
            names.append(name)
        facts = {"format": FORMAT, "settings": settings, "generation": generation + 1, "parts": names}
        temporary = folder / f".{INDEX}"
        temporary.write_text(json.dumps({**facts, "rows": [len(s) for s in segments]}) + "\n", encoding="utf-8")
        fsync(temporary)
        temporary.replace(folder / INDEX)
        fsync(folder)
        for path in folder.glob("part-*.bin"):
            if path.name not in names:
                path.unlink(missing_ok=True)
    return names, generation + 1
