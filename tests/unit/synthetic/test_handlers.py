import json
from dataclasses import replace

import pytest

from services.synthetic import handlers
from services.synthetic.domain import DatasetKind, Judgement, Labels, Lesson, Policy, RowLimits, Selection
from services.synthetic.lessons import Lessons, TeacherLimits
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, Reason, Unavailable
from tests.unit.synthetic.fakes import SPECIALIST, MemoryRepository, make_app, put_document


def filled(count: int = 60, **changes: object) -> handlers.Synthetic:
    app = make_app(**changes)
    for number in range(count):
        handlers.on_document(app, put_document(app.store, number))
    return app


def manifest(app: handlers.Synthetic, digest: str) -> dict:
    return json.loads(app.store.read("datasets", f"{digest}/manifest.json"))


def test_builds_a_dataset_whose_manifest_names_rows_and_sources() -> None:
    app = filled()
    built = handlers.build_dataset(app, "reports", "r1")
    found = manifest(app, built.dataset.digest)
    assert built.created and found["kind"] == "sft" and found["specialist"] == "reports"
    assert found["splits"]["train"]["rows"] == built.dataset.train_rows > 80
    assert found["splits"]["held_out"]["rows"] == built.dataset.held_out_rows > 0
    assert [source["document_id"] for source in found["sources"]] == list(built.dataset.document_ids)
    assert "teacher" not in found


def test_an_unchanged_corpus_states_nothing_again() -> None:
    app = filled()
    first = handlers.build_dataset(app, "reports", "r1")
    second = handlers.build_dataset(app, "reports", "r2")
    assert (second.created, second.dataset.digest) == (False, first.dataset.digest)
    assert app.repository.stated == [first.dataset.digest]
    assert handlers.build_dataset(app, "reports", "r1").created
    with pytest.raises(InvalidArgument):
        app.specialists["other"] = replace(SPECIALIST, name="other")
        handlers.build_dataset(app, "other", "r1")


def test_a_near_duplicate_changes_no_dataset() -> None:
    app = filled()
    first = handlers.build_dataset(app, "reports", "")
    copy = json.loads(app.store.get(app.repository.documents[f"doc_{3:032d}"][2].text))["text"] + " Revised."
    handlers.on_document(app, put_document(app.store, 900, text=copy))
    second = handlers.build_dataset(app, "reports", "")
    assert (second.created, second.dataset.digest) == (False, first.dataset.digest)
    assert second.dataset.near_duplicates == 1


def test_what_is_held_out_stays_held_out_when_documents_come() -> None:
    app = filled()
    handlers.build_dataset(app, "reports", "")
    before = {row.document_ids for row in app.writer.written[-1]}
    for number in range(100, 140):
        handlers.on_document(app, put_document(app.store, number))
    assert handlers.build_dataset(app, "reports", "").created
    train = {row.document_ids for row in app.writer.written[-2]}
    assert before <= {row.document_ids for row in app.writer.written[-1]} and not before & train


def test_an_older_version_is_ignored() -> None:
    app = make_app()
    new, old = replace(put_document(app.store, 1), sequence=5), put_document(app.store, 1, text="Old.")
    handlers.on_document(app, new)
    handlers.on_document(app, old)
    assert app.repository.document(new.document_id) == new


def test_too_few_rows_are_refused_and_not_tried_every_second() -> None:
    app = filled(2, specialists={"reports": replace(SPECIALIST, policy=Policy(1))})
    with pytest.raises(FailedPrecondition, match="TOO_FEW_ROWS"):
        handlers.build_dataset(app, "reports", "")
    assert handlers.tick(app) == []
    assert app.repository.builds["reports", DatasetKind.SFT]["tried_position"] == 2
    assert app.repository.stated == []


def test_the_scheduler_builds_once_what_is_due_and_only_then() -> None:
    app = filled(specialists={"reports": replace(SPECIALIST, policy=Policy(50, quiet_seconds=5))})
    assert handlers.tick(app) == []
    app.repository.seconds = 5
    assert [built.created for built in handlers.tick(app)] == [True]
    assert handlers.tick(app) == []


def test_a_lost_store_delays_the_build_only() -> None:
    app = filled(specialists={"reports": replace(SPECIALIST, policy=Policy(1))})
    whole, app.store.get = app.store.get, lambda ref: (_ for _ in ()).throw(Unavailable(Reason("DOWN"), "Down."))
    assert handlers.tick(app) == []
    app.store.get = whole
    assert len(handlers.tick(app)) == 1


def test_a_build_elsewhere_is_waited_for_then_aborted() -> None:
    app = filled()
    app.repository.locked.add("reports")
    with pytest.raises(Aborted, match="BUILD_RUNNING"):
        handlers.build_dataset(app, "reports", "")


def test_documents_that_came_before_a_specialist_are_filled_in_once() -> None:
    asked: list[str] = []
    app = make_app(list_documents=lambda name: asked.append(name) or [put_document(app.store, n) for n in range(60)])
    app.specialists["reports"] = replace(SPECIALIST, policy=Policy(1))
    assert handlers.tick(app)[0].dataset.train_rows > 0
    handlers.tick(app)
    assert asked == ["reports"]
    handlers.on_specialist(app, replace(SPECIALIST, revision=2))
    handlers.tick(app)
    assert asked == ["reports", "reports"]


def test_a_dataset_built_on_command_holds_what_the_registry_shows_though_its_event_has_not_come() -> None:
    shown = 20
    app = make_app(list_documents=lambda _: [put_document(app.store, n) for n in range(shown)])
    before = handlers.build_dataset(app, "reports", "").dataset
    shown = 60
    after = handlers.build_dataset(app, "reports", "")
    assert after.created
    assert len(after.dataset.document_ids) > len(before.document_ids)


def test_only_selected_documents_are_used() -> None:
    app = filled(specialists={"reports": replace(SPECIALIST, selection=Selection(departments=frozenset({"risk"})))})
    other = put_document(app.store, 500, labels=Labels("wiki", "people", "internal"))
    handlers.on_document(app, other)
    assert other.document_id not in handlers.build_dataset(app, "reports", "").dataset.document_ids
    with pytest.raises(NotFound):
        handlers.preview_rows(app, "reports", other.document_id, 20)


def test_a_judgement_is_kept_and_makes_no_dataset_of_documents_due() -> None:
    app = filled(specialists={"reports": replace(SPECIALIST, policy=Policy(1))})
    handlers.tick(app)
    handlers.on_judgement(app, Judgement("jdg_1", "reports", ("drf_1", "drf_2"), {"style": 5}, ""))
    assert "jdg_1" in app.repository.judgements and handlers.tick(app) == []


def test_previews_keep_nothing() -> None:
    app = filled(3)
    assert len(handlers.preview_rows(app, "reports", "", 4)) == 4
    assert len(handlers.preview_rows(app, "reports", f"doc_{1:032d}", 20)) == 2
    assert app.repository.clusters == {} and app.repository.stated == []
    with pytest.raises(NotFound, match="UNKNOWN_SPECIALIST"):
        handlers.preview_rows(app, "nobody", "", 4)


class FakeTeacher:
    model = "wise"

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)
        self.asked = 0

    def teach(self, passage: str) -> Lesson:
        outcome = self.outcomes[min(self.asked, len(self.outcomes) - 1)]
        self.asked += 1
        if isinstance(outcome, Exception):
            raise outcome
        return outcome(passage) if callable(outcome) else outcome


def taught(teacher: FakeTeacher) -> handlers.Synthetic:
    repository = MemoryRepository()
    lessons = Lessons(teacher, repository, TeacherLimits(max_passages=6), lambda seconds: None)
    specialists = {"reports": replace(SPECIALIST, use_teacher=True)}
    return filled(
        repository=repository, lessons=lessons, specialists=specialists, limits=RowLimits(min_answer_tokens=5)
    )


def lesson(passage: str) -> Lesson:
    topic = passage.split()[1]
    fresh = f"Of the {topic} seventeen had gone unseen until two counts of {topic} were made, as {topic} hide well."
    return Lesson(((f"What of {topic}?", fresh), ("Copy it.", passage), ("Empty?", ""), ("Again?", fresh)), 50)


def test_a_teacher_makes_rows_with_provenance_and_its_bad_ones_are_refused() -> None:
    app = taught(FakeTeacher(lesson))
    found = manifest(app, handlers.build_dataset(app, "reports", "").dataset.digest)
    rows = [row for split in app.writer.written for row in split if row.origin == "teacher"]
    assert rows and all(row.made_by == "teacher:wise" for row in rows)
    assert found["teacher"]["asked"] == 6 and found["teacher"]["failed"] == 0
    assert found["teacher"]["refused"] >= 18 and found["teacher"]["tokens"] == 300


def test_a_teacher_that_is_down_is_tried_again_then_built_without_and_said() -> None:
    teacher = FakeTeacher(Unavailable(Reason.TEACHER_UNAVAILABLE, "Down."))
    app = taught(teacher)
    built = handlers.build_dataset(app, "reports", "")
    assert manifest(app, built.dataset.digest)["teacher"] == {"asked": 6, "failed": 6, "refused": 0, "tokens": 0}
    assert teacher.asked == 4
    teacher.outcomes = [lesson]
    assert handlers.build_dataset(app, "reports", "").created


def test_a_teacher_is_never_asked_the_same_twice_nor_for_others() -> None:
    teacher = FakeTeacher(Unavailable(Reason.TEACHER_UNAVAILABLE, "Down."), lesson)
    app = taught(teacher)
    handlers.build_dataset(app, "reports", "")
    assert teacher.asked == 7
    handlers.build_dataset(app, "reports", "")
    app.specialists["plain"] = replace(SPECIALIST, name="plain")
    handlers.build_dataset(app, "plain", "")
    assert teacher.asked == 7
