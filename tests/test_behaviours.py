"""The behaviours that the package promises, and the tests that hold each. Test files refer to them by number.

This file tests that the list is complete and that every test in it exists.
"""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

import pytest

from conftest import ROOT


class Behaviour(NamedTuple):
    """A promise in words, and the tests that fail if it is broken."""

    sentence: str
    tests: list[str]


BEHAVIOURS = {
    # The REPL
    1: Behaviour(
        "The REPL reads a line and answers it. It ignores an empty line and exits with status 0 at the end of its "
        "input. It works when standard input or output is a pipe, and a closed output pipe ends it quietly.",
        [
            "test_repl.py::test_it_answers_lines_and_ends_with_its_input",
            "test_repl.py::test_a_closed_pipe_ends_it_quietly",
            "test_repl.py::test_pipes_load_no_line_editor",
            "test_terminal.py::test_each_answer_has_a_status_line",
        ],
    ),
    2: Behaviour(
        "Commands are checked before anything else: a command never reaches the model, the history or the receipts.",
        [
            "test_repl.py::test_commands_never_reach_the_model",
            "test_repl.py::test_the_history_is_shown",
        ],
    ),
    3: Behaviour(
        "`/help` lists every command and the keys.",
        [
            "test_repl.py::test_commands_never_reach_the_model",
        ],
    ),
    4: Behaviour(
        "`/clear` empties the history, the metrics and the KV cache, and keeps the system prompt and the template. "
        "The next answer equals a fresh session's, token for token.",
        [
            "test_chat.py::test_clearing_gives_a_fresh_session",
            "test_repl.py::test_clear_gives_a_fresh_conversation",
        ],
    ),
    5: Behaviour(
        "`/metrics` shows exchanges, tokens, prefill and decode times, and rates. The figures are the sums over "
        "the receipts of the turns, and zeros before the first turn.",
        [
            "test_chat.py::test_metrics_are_the_sums_of_the_receipts",
            "test_sessions.py::test_going_back_forgets_exchanges_and_their_receipts",
            "test_repl.py::test_metrics_are_shown",
        ],
    ),
    6: Behaviour(
        "`/exit` and `/quit` exit with status 0. An unknown `/word` is an error message, not a prompt.",
        [
            "test_repl.py::test_commands_never_reach_the_model",
            "test_repl.py::test_a_file_that_cannot_be_loaded_or_saved_is_an_error",
        ],
    ),
    7: Behaviour(
        "Ctrl-C stops the answer under way, even during a long prefill, and returns to the prompt. A second one at "
        "the prompt exits.",
        [
            "test_repl.py::test_ctrl_c_stops_the_answer_and_at_the_prompt_leaves",
            "test_terminal.py::test_ctrl_c_stops_the_answer_and_at_the_prompt_leaves",
            "test_chat.py::test_ctrl_c_in_a_long_prefill_leaves_the_conversation_usable",
        ],
    ),
    8: Behaviour(
        "At start the REPL prints the model, the template, and where the template came from (argument, GGUF, "
        "tokenizer, fallback).",
        [
            "test_repl.py::test_it_says_what_it_opened",
            "test_chat.py::test_a_template_is_chosen_or_found",
        ],
    ),
    # History and templates
    9: Behaviour(
        "The history is a list of `ChatTurn(role, text)`. Roles are system, user and assistant in lower case; "
        "another role is an error (`Template.render` itself takes any message dict that the Jinja source "
        "understands). N exchanges are 2N alternating turns.",
        [
            "test_chat.py::test_the_history_alternates_and_the_system_prompt_is_not_in_it",
            "test_sessions.py::test_a_thousand_turns_keep_memory_flat_and_roles_alternating",
            "test_template.py::test_invalid_values_are_refused_with_their_place",
            "test_repl.py::test_the_history_is_shown",
        ],
    ),
    10: Behaviour(
        "The system prompt is separate: once in the rendered prompt, never in the history.",
        [
            "test_chat.py::test_the_history_alternates_and_the_system_prompt_is_not_in_it",
        ],
    ),
    11: Behaviour(
        "A session round-trips through JSON (system prompt, template, turns, sampling parameters): the loaded one "
        "renders the same bytes.",
        [
            "test_sessions.py::test_json_brings_back_the_same_prompts",
            "test_sessions.py::test_json_holds_every_parameter",
            "test_sessions.py::test_a_file_brings_back_what_was_computed",
            "test_repl.py::test_a_conversation_is_saved_and_goes_on",
        ],
    ),
    12: Behaviour(
        "`Template.render` is the only code in the project that formats a prompt. The REPL, the single-turn "
        "command, the Python API and evaluation all use it; `render_chat` and `apply` are one-line calls of it.",
        [
            "test_chat.py::test_the_prompt_is_the_templates_text_with_one_bos",
            "test_template.py::test_a_single_question_is_a_conversation_of_one_turn",
            "test_spans.py::test_spans_are_the_prompt",
            "test_repl.py::test_run_answers_a_prompt_through_the_template",
        ],
    ),
    13: Behaviour(
        "For every template, `template.apply(user, system)` equals "
        '`template.render_chat([ChatTurn("user", user)], system)`.',
        [
            "test_template.py::test_a_single_question_is_a_conversation_of_one_turn",
        ],
    ),
    14: Behaviour(
        "The built-in templates are `raw`, `instruct`, `llama3-chat` and `bitnet` (the form of 2B-4T). Any Jinja "
        "`chat_template` renders as Hugging Face's `apply_chat_template` renders it, byte for byte.",
        [
            "template.rs::built_in_templates_render_as_documented",
            "template.rs::made_up_templates_render_as_with_transformers",
            "template_python.rs::jinja2_gave_the_same",
            "test_template.py::test_templates_render_to_the_byte",
            "test_template.py::test_the_command_prints_prompts",
        ],
    ),
    15: Behaviour(
        "`Template.detect(jinja=…, tokenizer_name=…)` names the template and its source. A name such as "
        "`llama-2-13b` is not Llama 3, and the name of a directory never decides. An explicit choice wins, then "
        "the GGUF's template, then the tokenizer's name, then `raw` with a warning.",
        [
            "test_template.py::test_a_template_is_detected_with_its_source",
            "test_template.py::test_a_template_is_read_from_a_model_file",
            "test_repl.py::test_it_says_what_it_opened",
        ],
    ),
    16: Behaviour(
        "`template.stop_sequences` and `template.add_bos` come from the template and the model's metadata. The "
        "encoded prompt contains exactly one BOS or none, never two.",
        [
            "test_chat.py::test_the_prompt_is_the_templates_text_with_one_bos",
            "test_chat.py::test_a_stop_sequence_of_the_template_ends_the_answer",
            "test_template.py::test_a_template_has_attributes",
            "test_spans.py::test_tokens_are_those_of_the_conversation",
        ],
    ),
    17: Behaviour(
        "Marker text inside a user's message (`<|eot_id|>`) is encoded as plain text, never as the control token, "
        "unless the caller asks for it. The rendered bytes stay what the template wrote.",
        [
            "prompt.rs::only_the_templates_own_control_tokens_are_recognized",
            "test_chat.py::test_control_tokens_that_users_write_stay_text",
            "test_text.py::test_control_tokens_in_a_users_text_stay_text",
            "test_spans.py::test_the_command_shows_them",
        ],
    ),
    # Tokenize, prefill, decode
    18: Behaviour(
        "Tokenizing happens before the engine is called and is timed separately. The ids are visible to the caller.",
        [
            "test_text.py::test_a_prompt_is_computed_once_and_its_logits_are_not",
            "test_text.py::test_the_command_line_tokenizes_and_runs",
        ],
    ),
    19: Behaviour(
        "`engine.prefill(ids)` with more ids than the context is an error that gives both numbers. An id outside "
        "the vocabulary is an error that gives the id and its position. After an error the cache is as it was.",
        [
            "test_bad_arguments.py::test_too_long",
            "test_bad_arguments.py::test_outside_the_vocabulary",
            "test_bad_arguments.py::test_after_an_error_the_cache_is_as_it_was",
            "test_text.py::test_the_command_line_says_what_is_wrong_with_a_prompt",
        ],
    ),
    20: Behaviour(
        "Prefill runs the whole sequence once, fills the KV cache, discards the logits that it does not need, and "
        "returns its timing. Afterwards the cache holds exactly those positions. An empty prefill does nothing.",
        [
            "test_text.py::test_a_prompt_is_computed_once_and_its_logits_are_not",
            "test_contract.py::test_turns_reuse_the_longest_common_prefix",
            "test_contract.py::test_decoding_reads_the_cache",
            "test_contract.py::test_prefill_tells_its_rate",
        ],
    ),
    21: Behaviour(
        "Prefill followed by generate gives the same ids as generate alone. The positions computed in all are "
        "prompt + generated − 1.",
        [
            "test_text.py::test_a_prompt_is_computed_once_and_its_logits_are_not",
            "test_contract.py::test_cached_is_recomputed",
        ],
    ),
    22: Behaviour(
        "Each decode step computes one position. Cached decoding gives the same ids as recomputing the whole "
        "sequence at every step.",
        [
            "contract.rs::the_kernels_count_what_they_computed",
            "test_contract.py::test_cached_is_recomputed",
            "test_contract.py::test_generated_ids_are_those_of_one_forward",
            "test_contract.py::test_decoding_reads_the_cache",
        ],
    ),
    23: Behaviour(
        "A second turn computes only the tokens after the longest common prefix with the cache, and the receipt "
        "says how many were reused. An answer is encoded again as text; where its ids differ from the generated "
        "ones, reuse ends.",
        [
            "test_chat.py::test_a_second_turn_computes_only_what_is_new",
            "test_sessions.py::test_a_fork_shares_what_is_computed_and_nothing_else",
            "test_sessions.py::test_a_file_brings_back_what_was_computed",
            "test_terminal.py::test_each_answer_has_a_status_line",
        ],
    ),
    24: Behaviour(
        "Generation stops at exactly `max_tokens`, a stop id, a stop string, cancellation or a full context, and "
        "says which. A stop string is never shown, even when it is split over tokens.",
        [
            "test_contract.py::test_stop_ids_and_lengths",
            "test_text.py::test_it_stops_at_a_stop_id_which_is_no_part_of_the_answer",
            "test_text.py::test_a_stop_text_is_never_shown_even_split_over_tokens",
            "test_text.py::test_the_context_ends_the_answer",
            "test_text.py::test_the_command_line_ends_where_it_is_told",
            "test_chat.py::test_a_cancelled_answer_enters_the_history_marked",
        ],
    ),
    25: Behaviour(
        "Streaming yields text as it is produced: the first piece before the last is computed. The joined pieces "
        "equal the whole answer, no piece breaks a UTF-8 character, and dropping the stream stops the work.",
        [
            "test_text.py::test_pieces_join_to_the_answer_and_break_no_character",
            "test_text.py::test_the_first_piece_comes_before_the_last_is_computed",
            "test_text.py::test_a_dropped_or_cancelled_stream_loses_nothing",
            "test_terminal.py::test_ctrl_c_stops_the_answer_and_at_the_prompt_leaves",
        ],
    ),
    26: Behaviour(
        "The assistant's turn enters the history only if its generation ended properly or the user cancelled it "
        "(then it is marked). After an error the roles still alternate.",
        [
            "test_chat.py::test_a_cancelled_answer_enters_the_history_marked",
            "test_chat.py::test_an_error_leaves_the_conversation_as_it_was",
            "test_repl.py::test_an_answer_that_fails_leaves_the_conversation_going",
            "test_terminal.py::test_ctrl_c_stops_the_answer_and_at_the_prompt_leaves",
        ],
    ),
    27: Behaviour(
        "When the context is full, whole exchanges leave the prompt, the oldest first, down to 75 % of the context "
        "at once, so that the cached prefix stays valid. The history keeps all turns, and the user is told.",
        [
            "test_chat.py::test_a_full_context_lets_the_oldest_exchanges_go",
            "test_sessions.py::test_going_back_over_a_full_context",
            "test_repl.py::test_a_full_context_is_told",
        ],
    ),
    # Receipts
    28: Behaviour(
        "Every turn has a receipt: token counts (prompt, reused, computed, generated), times (render, tokenize, "
        "prefill, first token, decode, wall), both rates, the template and its source, the system prompt or null, "
        "the sampling parameters with the seed in effect, the finish reason, the model's fingerprint, kernels with "
        "instruction set, threads.",
        [
            "test_receipt.py::test_a_receipt_says_what_was_computed_and_how",
            "test_receipt.py::test_the_times_of_an_answer_are_apart_from_its_consumers",
            "test_chat.py::test_each_receipt_claims_the_one_before",
            "test_repl.py::test_run_answers_a_prompt_through_the_template",
            "test_receipt_command.py::test_show_is_for_people",
        ],
    ),
    29: Behaviour(
        "The fields of schema 1.0.0 are all present and valid: `schema_version`, `timestamp`, `compute_path`, "
        "`backend`, `backend_summary`, `kernels`, `deterministic`, `environment`, `model_info`, `test_results`, "
        "`performance_baseline`, `corrections`. Our additions are in blocks of their own.",
        [
            "test_receipt.py::test_the_fields_of_schema_1_0_0_are_there",
            "test_receipt_command.py::test_receipts_follow_their_json_schema",
            "test_receipt_command.py::test_the_json_schema_leaves_nothing_open",
        ],
    ),
    30: Behaviour(
        "`compute_path` and `kernels` are derived from counters in the kernels that ran, per sequence, and never "
        "written as constants. `validate()` recomputes every sum (counts; times at most wall; rate = n/t; rows "
        "through projections = layers × 7 × computed positions, plus head rows) and names the first gate that "
        "fails.",
        [
            "test_receipt.py::test_kernels_and_compute_path_follow_the_counters",
            "test_receipt.py::test_an_altered_receipt_is_caught_and_the_gate_named",
            "test_receipt.py::test_any_figure_of_claim_and_run_that_is_altered_is_caught",
            "test_receipt.py::test_ctrl_c_in_a_long_prefill_keeps_the_counts_true",
            "test_receipt_command.py::test_verify_names_the_gate",
            "contract.rs::the_kernels_count_what_they_computed",
        ],
    ),
    31: Behaviour(
        "`receipt.save(path)` writes atomically and makes parent folders. `Receipt.load(receipt.save(p)) == "
        "receipt`. `with_test_results(…)` returns a new receipt.",
        [
            "test_receipt.py::test_saving_and_loading_gives_the_same_receipt",
            "test_receipt.py::test_a_receipt_that_cannot_be_written_says_why",
            "test_receipt_command.py::test_verify_checks_each_receipt_and_the_chain",
        ],
    ),
    32: Behaviour(
        "With `--receipt-dir D`, N turns leave N files in D, and `inference.json` equal to the newest. Without it "
        "nothing is written. Two turns in the same millisecond get different files. A directory that cannot be "
        "written is an error that the user sees.",
        [
            "test_repl.py::test_receipts_are_written_where_they_are_asked_for",
            "test_repl.py::test_a_folder_that_cannot_be_written_is_an_error",
        ],
    ),
    33: Behaviour(
        "A receipt can be replayed: the engine computes it again from the model and the prompt and gets the same "
        "output ids, on any supported processor and number of threads.",
        [
            "test_receipt.py::test_a_receipt_is_replayed_on_any_instruction_set",
            "test_receipt.py::test_a_forged_receipt_fails_its_replay",
            "test_receipt.py::test_a_redacted_receipt_is_the_same_claim",
            "test_repl.py::test_receipts_are_written_where_they_are_asked_for",
            "test_receipt_command.py::test_replay_computes_again_on_other_instructions_and_threads",
            "test_receipt_command.py::test_replay_finds_forgery_and_says_where",
            "test_receipt_command.py::test_replay_refuses_by_name",
            "test_receipt_command.py::test_replay_of_a_redacted_receipt_asks_for_the_prompt",
        ],
    ),
}


def names_in(name: str) -> set[str]:
    """The names of the tests in a file."""
    source = (ROOT / "tests" / name).read_text("utf-8")
    if name.endswith(".rs"):
        tests = set(re.findall(r"#\[test\]\s*fn (\w+)\(", source))
        assert tests, name
        return tests
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    return {node.name for node in functions if node.name.startswith("test_")}


def test_no_behaviour_is_missing() -> None:
    assert list(BEHAVIOURS) == list(range(1, 34))
    assert all(behaviour.sentence.endswith(".") and behaviour.tests for behaviour in BEHAVIOURS.values())


@pytest.mark.parametrize("number", BEHAVIOURS)
def test_the_tests_of_a_behaviour_exist(number: int) -> None:
    for test in BEHAVIOURS[number].tests:
        file, name = test.split("::")
        assert name in names_in(file), f"{test} does not exist"
