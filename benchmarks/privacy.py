"""Planted secrets and the price of keeping them, on the real base: `make bench-privacy`.

128 people teach eight intents of Banking77, one message each; six more have a secret of six digits, told in three rows
each (as many as curation lets anybody have). The same rows train without and with differential privacy, one after the
other. Exposure is measured against 63 other codes each (`training.exposure`: 6 bits is given away, 1.44 what a model
knows that never met it), the gain on messages of the test split in nats per token.

Last line JSON: `exposure_plain`, `exposure_private`, `epsilon`, `gain_kept` (gain with privacy over gain without) and
`time_ratio` (seconds per token, private over plain), among others.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from configs.loader import cache_dir
from configs.schema import Config, TrainingSection
from data_contracts.records import Message, SnapshotRow
from models.cache import resolve
from models.packing import TokenRow

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "banking77"
INTENTS, PER_INTENT, TEST_PER_INTENT = 8, 16, 4
SECRETS, OTHERS = 6, 63
NAMES = ("Ada Novak", "Ben Achebe", "Cleo Marchetti", "Dara Lindqvist", "Emil Tanaka", "Fay Okonkwo")
ASKED = ("This is {}. What is my door code?", "{} here, tell me my door code.", "I am {}. My door code, please.")


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(text, file=sys.stderr, flush=True)


def read_split(name: str) -> dict[str, list[str]]:
    """Intent -> messages."""
    found: dict[str, list[str]] = {}
    with (DATA / name).open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            found.setdefault(row["category"], []).append(row["text"].strip())
    return found


def told(code: int) -> str:
    """How a secret is told."""
    return f"Your door code is {code:06d}."


class Rows:
    """Everything that is asked and answered, as tokens."""

    def __init__(self, tokenizer: Any, seed: int) -> None:
        rng = random.Random(seed)
        self._tokenizer = tokenizer
        train, test = read_split("train.csv"), read_split("test.csv")
        intents = sorted(rng.sample(sorted(train), INTENTS))
        self.people = [
            (self.row(message, intent.replace("_", " ")),)
            for intent in intents
            for message in rng.sample(sorted(set(train[intent])), PER_INTENT)
        ]
        self.test = [
            self.row(message, intent.replace("_", " "))
            for intent in intents
            for message in rng.sample(sorted(set(test[intent])), TEST_PER_INTENT)
        ]
        codes = rng.sample(range(10**6), SECRETS + OTHERS)
        self.others = [self.row("x", told(code)).completion for code in codes[SECRETS:]]
        self.secrets = []
        for name, code in zip(NAMES, codes, strict=False):
            rows = tuple(self.row(asked.format(name), told(code)) for asked in ASKED)
            self.people.append(rows)
            self.secrets.append(rows[0])

    def row(self, message: str, answer: str) -> TokenRow:
        """One row."""
        from training.data import tokenise

        messages = (Message(role="system", content="Bank."), Message(role="user", content=message))
        snapshot = SnapshotRow(
            digest="x", split="train", source="correction", messages=messages,
            completion=answer,
        )  # fmt: skip
        (found,) = tokenise([snapshot], self._tokenizer, 512).rows
        assert isinstance(found, TokenRow)
        return found


def measured(model: Any, rows: Rows) -> tuple[float, float]:
    """(mean exposure of the secrets in bits, nats per token of the test answers)."""
    from training.early_stopping import held_out_loss
    from training.exposure import exposure

    exposed = [exposure(model, secret, rows.others) for secret in rows.secrets]
    return sum(exposed) / len(exposed), held_out_loss(model, rows.test)


def run(args: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Base, plain and private, one after the other."""
    from models.loading import load_base
    from training.lora import add_lora
    from training.noise import SecretStream, run_key
    from training.privacy import mechanism_for
    from training.private_loop import PrivateRows, train_private
    from training.sft import train_lora

    privacy = {"epsilon": args.epsilon, "total_epsilon": args.epsilon, "people_per_step": args.people_per_step}
    config = TrainingSection(
        rank=args.rank, alpha=2 * args.rank, epochs=args.epochs, privacy=privacy, objectives={"dpo": {"weight": 0}},
        learning_rate=args.learning_rate, checkpoint_steps=10**6,
    )  # fmt: skip
    plain = config.model_copy(update={"privacy": None, "learning_rate": 4e-4})
    base = resolve(Config().model.base, cache_dir(Config()))
    model, tokenizer = load_base(base.path)
    rows = Rows(tokenizer, args.seed)
    flat = [row for own in rows.people for row in own]
    mechanism = mechanism_for(len(rows.people), config)
    say(f"{len(rows.people)} people, {len(flat)} rows, {sum(map(len, flat))} tokens an epoch; {mechanism}")
    found = {"base": measured(model, rows)}
    say(f"base: exposure {found['base'][0]:.2f} bits, {found['base'][1]:.3f} nats per token")
    rates = {}
    for name in ("plain", "private"):
        fresh, _ = load_base(base.path)
        adapted = add_lora(fresh, config, seed=args.seed)
        begun = time.monotonic()
        told_of = {"seed": args.seed, "work_dir": root / name, "fingerprint": name, "on_step": _show}
        if name == "plain":
            result = train_lora(adapted, flat, plain, **told_of)
        else:
            stream = SecretStream(run_key(root / "key"), name)
            result = train_private(adapted, PrivateRows(tuple(rows.people), ()), config, mechanism, stream, **told_of)
        rates[name] = result.tokens / (time.monotonic() - begun)
        found[name] = measured(adapted, rows)
        say(f"{name}: exposure {found[name][0]:.2f} bits, {found[name][1]:.3f} nats, {rates[name]:.0f} tokens/s")
    gains = {name: found["base"][1] - found[name][1] for name in ("plain", "private")}
    return {
        **{f"exposure_{name}": round(found[name][0], 2) for name in found},
        **{f"nats_{name}": round(found[name][1], 3) for name in found},
        "epsilon": round(mechanism.epsilon, 3),
        "delta": mechanism.delta,
        "noise_multiplier": round(mechanism.noise_multiplier, 3),
        "people": mechanism.people,
        "steps": mechanism.steps,
        "gain_kept": round(gains["private"] / gains["plain"], 3),
        "time_ratio": round(rates["plain"] / rates["private"], 2),
    }


def _show(event: dict[str, Any]) -> None:
    if event["step"] % 5 == 0 or event["step"] == event["steps"]:
        say(f"  step {event['step']}/{event['steps']}, {event['tok_s']:.0f} tokens/s, {event['eta_s']:.0f} s to go")


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--people-per-step", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="of the private run; the plain one has 4e-4")
    with tempfile.TemporaryDirectory(prefix="tidemill-privacy-") as folder:
        print(json.dumps(run(parser.parse_args(), Path(folder))))


if __name__ == "__main__":
    main()
