"""Presidio's full analyzer, in an environment of its own: times batches of texts given as JSON lines on stdin.

Run by `curation_redaction.py`. A spaCy model that is installed there is used; else a blank pipeline, which spares
Presidio its slowest part (tagging and entities).
"""

import json
import sys
import time


def analyzer():
    """Presidio's AnalyzerEngine with all its predefined recognisers, and the name of its language pipeline."""
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    model = next((name for name in ("en_core_web_lg", "en_core_web_sm") if spacy.util.is_package(name)), "")

    class Engine(SpacyNlpEngine):
        """The installed model, or a blank pipeline: nothing is downloaded."""

        def load(self):
            self.nlp = {"en": spacy.load(model) if model else spacy.blank("en")}

    engine = Engine(models=[{"lang_code": "en", "model_name": model or "blank"}])
    engine.load()
    registry = RecognizerRegistry(supported_languages=["en"])
    registry.load_predefined_recognizers(languages=["en"], nlp_engine=engine)
    whole = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])
    return whole, model or "blank", len(registry.recognizers)


def main() -> None:
    """Answer each line `["text", ...]` with `{"seconds": ..., "found": ...}`; the first line says what was set up."""
    whole, model, recognizers = analyzer()
    whole.analyze("warm up: ann@example.com", language="en")
    print(json.dumps({"pipeline": model, "recognizers": recognizers}), flush=True)
    for line in sys.stdin:
        texts = json.loads(line)
        start = time.perf_counter()
        found = sum(len(whole.analyze(text, language="en")) for text in texts)
        print(json.dumps({"seconds": time.perf_counter() - start, "found": found}), flush=True)


if __name__ == "__main__":
    main()
