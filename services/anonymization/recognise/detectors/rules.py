"""The rules as one detector: every recogniser that needs no model."""

from collections.abc import Iterable

from services.anonymization.domain import Policy
from services.anonymization.recognise.detectors.engines import Find, RuleRecogniser
from services.anonymization.recognise.languages.definition import load_language
from services.anonymization.recognise.languages.recogniser import LanguageRecogniser
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.recognisers.addresses import AddressRecogniser
from services.anonymization.recognise.recognisers.labelled import LabelRecogniser
from services.anonymization.recognise.recognisers.organisations import OrganisationRecogniser
from services.anonymization.recognise.recognisers.parties import PartyRecogniser
from services.anonymization.recognise.recognisers.patterns import PatternRecogniser
from services.anonymization.recognise.recognisers.people import PersonRecogniser
from services.anonymization.recognise.recognisers.phones import PhoneRecogniser
from services.anonymization.recognise.recognisers.references import ReferenceRecogniser
from services.anonymization.recognise.recognisers.secrets import SecretRecogniser
from services.anonymization.recognise.recognisers.short_names import ShortNameRecogniser
from services.anonymization.recognise.recognisers.world_addresses import WorldAddressRecogniser
from services.anonymization.recognise.special_categories import SpecialCategoryRecogniser

# The name of the only recogniser that depends on the policy.
PATTERNS = "patterns"


def rule_recognisers(lexicon: Lexicon, policy: Policy, phone_regions: Iterable[str]) -> list[RuleRecogniser]:
    """The recognisers of a language."""
    language = load_language(lexicon.language)
    finders: dict[str, Find] = {
        PATTERNS: PatternRecogniser(policy.codes, policy.deny).find,
        "labelled": LabelRecogniser().find,
        "phones": PhoneRecogniser((*phone_regions, *(language.phone_regions if language else ()))).find,
        "secrets": SecretRecogniser().find,
        "addresses": AddressRecogniser(lexicon).find,
        "short names": ShortNameRecogniser(lexicon).find,
        "references": ReferenceRecogniser().find,
        "world addresses": WorldAddressRecogniser(lexicon).find,
        "people": PersonRecogniser(lexicon).find,
        "organisations": OrganisationRecogniser(lexicon).find,
        "parties": PartyRecogniser(lexicon).find,
        "special categories": SpecialCategoryRecogniser(lexicon.language, lexicon.is_common_given).find,
    }
    if language is not None and language.greetings:
        finders["language"] = LanguageRecogniser(language, lexicon).find
    return [RuleRecogniser(name, lexicon.language, find) for name, find in finders.items()]


def with_patterns(recognisers: Iterable[RuleRecogniser], lexicon: Lexicon, policy: Policy) -> list[RuleRecogniser]:
    """The same recognisers with another policy's codes and names."""
    patterns = RuleRecogniser(PATTERNS, lexicon.language, PatternRecogniser(policy.codes, policy.deny).find)
    return [patterns if recogniser.name == PATTERNS else recogniser for recogniser in recognisers]
