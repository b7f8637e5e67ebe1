"""API keys: listed, made and revoked, with no more rights than the visitor's own.

The registry admits the console itself to these calls, so what it would refuse to the visitor's own key is refused here."""

from services.console.domain import Action, KeyTerms, Services, Visitor
from services.console.handlers import Answer, ask, scan
from services.console.views import Key, NewKey, Page
from tailor.errors import InvalidArgument, NotFound, Reason


def keys(services: Services, visitor: Visitor, token: str) -> Answer[Page[Key]]:
    """A page of the keys that the visitor may hold, newest first."""
    visitor.need(Action.KEYS)
    answer = ask("registry", lambda: services.registry.keys(token), Page[Key]())
    held = tuple(key for key in answer.value.items if visitor.may_hold(key))
    return Answer(Page(held, answer.value.next_token), answer.failure)


def create_key(services: Services, visitor: Visitor, terms: KeyTerms) -> NewKey:
    """Make a key. InvalidArgument for one of all specialists from a visitor who has some, NotFound for a specialist that they were not
    given."""
    visitor.need(Action.MANAGE_KEYS)
    if visitor.specialists and not terms.specialists:
        wrong = {"specialists": "at least one of your own"}
        raise InvalidArgument(
            Reason.INVALID_KEY, "Your key has its specialists, and gives no more.", field_violations=wrong
        )
    for specialist in terms.specialists:
        visitor.need_specialist(specialist)
    return services.registry.create_key(terms)


def revoke_key(services: Services, visitor: Visitor, key_id: str) -> None:
    """End a key. NotFound for one that is unknown or that the visitor may not hold."""
    visitor.need(Action.MANAGE_KEYS)
    if visitor.specialists and not _holds(services, visitor, key_id):
        raise NotFound(Reason.UNKNOWN_KEY, "There is no such key, or it was not given to you.")
    services.registry.revoke_key(key_id)


def _holds(services: Services, visitor: Visitor, key_id: str) -> bool:
    return any(key.key_id == key_id and visitor.may_hold(key) for key in scan(services.registry.keys))
