"""Presidio's full analyzer, in an environment of its own: times batches of texts given
as JSON lines on stdin.

Run by `curation_redaction.py`. A spaCy model that is installed there is used; else a blank pipeline, which spares
Presidio its slowest part (tagging and entities).
"""

import json
import sys
import time

COUNTRIES = (
    "AuTfnRecognizer", "DeTaxIdRecognizer", "EsNieRecognizer", "EsNifRecognizer", "FiPersonalIdentityCodeRecognizer",
    "InAadhaarRecognizer", "InPanRecognizer", "ItFiscalCodeRecognizer", "KrRrnRecognizer", "PlPeselRecognizer",
    "SePersonnummerRecognizer", "SgFinRecognizer", "ThTninRecognizer", "TrNationalIdRecognizer", "UkNinoRecognizer",
    "ZaIdNumberRecognizer",
)  # fmt: skip
"""Recognisers Presidio ships but does not load for English, of countries whose numbers Tidemill looks for."""


def analyzers():
    """Presidio's AnalyzerEngine as it comes, and with its recognisers of more countries; and its language pipeline."""
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, predefined_recognizers
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    model = next((name for name in ("en_core_web_lg", "en_core_web_sm") if spacy.util.is_package(name)), "")

    class Engine(SpacyNlpEngine):
        """The installed model, or a blank pipeline: nothing is downloaded."""

        def load(self):
            self.nlp = {"en": spacy.load(model) if model else spacy.blank("en")}

    engine = Engine(models=[{"lang_code": "en", "model_name": model or "blank"}])
    engine.load()
    engines = {}
    for name in ("default", "countries"):
        registry = RecognizerRegistry(supported_languages=["en"])
        registry.load_predefined_recognizers(languages=["en"], nlp_engine=engine)
        loaded = {type(recognizer).__name__ for recognizer in registry.recognizers}
        for extra in COUNTRIES if name == "countries" else ():
            made = getattr(predefined_recognizers, extra, None)
            if made is not None and extra not in loaded:
                registry.add_recognizer(made(supported_language="en"))
        engines[name] = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])
    return engines, model or "blank"


def main() -> None:
    """Answer each line `["default", ["text", ...]]` with seconds and finds; the first line says what was set up."""
    engines, model = analyzers()
    for engine in engines.values():
        engine.analyze("warm up: ann@example.com", language="en")
    counts = {name: len(engine.registry.recognizers) for name, engine in engines.items()}
    print(json.dumps({"pipeline": model, "recognizers": counts}), flush=True)
    for line in sys.stdin:
        name, texts = json.loads(line)
        start = time.process_time()
        found = sum(len(engines[name].analyze(text, language="en")) for text in texts)
        print(json.dumps({"seconds": time.process_time() - start, "found": found}), flush=True)


if __name__ == "__main__":
    main()
