"""Presidio's own recognisers as a detector."""

from collections.abc import Sequence

import tldextract
from presidio_analyzer import EntityRecognizer, RecognizerRegistry

from services.anonymization.recognise.detectors.definition import Detector

# They read a language model's answers; a detector of kind `spacy` does that.
MODEL_READERS = ("SpacyRecognizer", "StanzaRecognizer", "TransformersRecognizer")


def predefined_recognisers(detector: Detector, language: str) -> Sequence[EntityRecognizer]:
    """The recognisers that Presidio has for the language, and that find one of the detector's labels."""
    # The mail recogniser would wait for a list of domains from the network.
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())
    tldextract.extract = tldextract.tldextract.TLD_EXTRACTOR  # type: ignore[assignment]  # the module has a function that calls this object
    registry = RecognizerRegistry(supported_languages=[language])
    registry.load_predefined_recognizers(languages=[language])
    return [
        recogniser
        for recogniser in registry.recognizers
        if type(recogniser).__name__ not in MODEL_READERS and set(recogniser.supported_entities) & set(detector.labels)
    ]
