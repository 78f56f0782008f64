"""Which tests hold which behaviour: rows as they are numbered in the tests' documentation."""

from __future__ import annotations

import ast
import re

import pytest

from conftest import ROOT

ROWS = {
    # The REPL
    1: [
        "test_repl.py::test_it_answers_lines_and_ends_with_its_input",
        "test_repl.py::test_a_closed_pipe_ends_it_quietly",
        "test_repl.py::test_pipes_load_no_line_editor",
        "test_terminal.py::test_each_answer_has_a_status_line",
    ],
    2: ["test_repl.py::test_commands_never_reach_the_model", "test_repl.py::test_the_history_is_shown"],
    3: ["test_repl.py::test_commands_never_reach_the_model"],
    4: ["test_chat.py::test_clearing_gives_a_fresh_session", "test_repl.py::test_clear_gives_a_fresh_conversation"],
    5: [
        "test_chat.py::test_metrics_are_the_sums_of_the_receipts",
        "test_sessions.py::test_going_back_forgets_exchanges_and_their_receipts",
        "test_repl.py::test_metrics_are_shown",
    ],
    6: [
        "test_repl.py::test_commands_never_reach_the_model",
        "test_repl.py::test_a_file_that_cannot_be_loaded_or_saved_is_an_error",
    ],
    7: [
        "test_repl.py::test_ctrl_c_stops_the_answer_and_at_the_prompt_leaves",
        "test_terminal.py::test_ctrl_c_stops_the_answer_and_at_the_prompt_leaves",
        "test_chat.py::test_ctrl_c_in_a_long_prefill_leaves_the_conversation_usable",
    ],
    8: ["test_repl.py::test_it_says_what_it_opened", "test_chat.py::test_a_template_is_chosen_or_found"],
    # History and templates
    9: [
        "test_chat.py::test_the_history_alternates_and_the_system_prompt_is_not_in_it",
        "test_sessions.py::test_a_thousand_turns_keep_memory_flat_and_roles_alternating",
        "test_template.py::test_what_cannot_be_is_refused_with_its_place",
        "test_repl.py::test_the_history_is_shown",
    ],
    10: ["test_chat.py::test_the_history_alternates_and_the_system_prompt_is_not_in_it"],
    11: [
        "test_sessions.py::test_json_brings_back_the_same_prompts",
        "test_sessions.py::test_json_holds_every_parameter",
        "test_sessions.py::test_a_file_brings_back_what_was_computed",
        "test_repl.py::test_a_conversation_is_saved_and_goes_on",
    ],
    12: [
        "test_chat.py::test_the_prompt_is_the_templates_text_with_one_bos",
        "test_template.py::test_a_single_question_is_a_conversation_of_one_turn",
        "test_spans.py::test_spans_are_the_prompt",
        "test_repl.py::test_run_answers_a_prompt_through_the_template",
    ],
    13: ["test_template.py::test_a_single_question_is_a_conversation_of_one_turn"],
    14: [
        "template.rs::built_in_templates_render_as_documented",
        "template.rs::the_goldens_of_made_up_templates",
        "template_python.rs::jinja2_gave_the_same",
        "test_template.py::test_templates_render_to_the_byte",
        "test_template.py::test_the_command_prints_prompts",
    ],
    15: [
        "test_template.py::test_a_template_is_detected_with_its_source",
        "test_template.py::test_a_model_file_brings_its_template",
        "test_repl.py::test_it_says_what_it_opened",
    ],
    16: [
        "test_chat.py::test_the_prompt_is_the_templates_text_with_one_bos",
        "test_chat.py::test_a_stop_sequence_of_the_template_ends_the_answer",
        "test_template.py::test_a_template_says_what_it_is",
        "test_spans.py::test_tokens_are_those_of_the_conversation",
    ],
    17: [
        "prompt.rs::only_the_templates_own_control_tokens_are_recognised",
        "test_chat.py::test_control_tokens_that_users_write_stay_text",
        "test_text.py::test_control_tokens_in_a_users_text_stay_text",
        "test_spans.py::test_the_command_shows_them",
    ],
    # Tokenize, prefill, decode
    18: [
        "test_text.py::test_a_prompt_is_computed_once_and_its_logits_are_not",
        "test_text.py::test_the_command_line_tokenizes_and_runs",
    ],
    19: [
        "test_bad_input.py::test_too_long",
        "test_bad_input.py::test_outside_the_vocabulary",
        "test_bad_input.py::test_after_an_error_the_cache_is_as_it_was",
        "test_text.py::test_the_command_line_says_what_is_wrong_with_a_prompt",
    ],
    20: [
        "test_text.py::test_a_prompt_is_computed_once_and_its_logits_are_not",
        "test_contract.py::test_turns_reuse_the_longest_common_prefix",
        "test_contract.py::test_decoding_reads_the_cache",
        "test_contract.py::test_prefill_tells_its_rate",
    ],
    21: [
        "test_text.py::test_a_prompt_is_computed_once_and_its_logits_are_not",
        "test_contract.py::test_cached_is_recomputed",
    ],
    22: [
        "contract.rs::the_kernels_count_what_they_computed",
        "test_contract.py::test_cached_is_recomputed",
        "test_contract.py::test_generated_ids_are_those_of_one_forward",
        "test_contract.py::test_decoding_reads_the_cache",
    ],
    23: [
        "test_chat.py::test_a_second_turn_computes_only_what_is_new",
        "test_sessions.py::test_a_fork_shares_what_is_computed_and_nothing_else",
        "test_sessions.py::test_a_file_brings_back_what_was_computed",
        "test_terminal.py::test_each_answer_has_a_status_line",
    ],
    24: [
        "test_contract.py::test_stop_ids_and_lengths",
        "test_text.py::test_it_stops_at_a_stop_id_which_is_no_part_of_the_answer",
        "test_text.py::test_a_stop_text_is_never_shown_even_split_over_tokens",
        "test_text.py::test_the_context_ends_the_answer",
        "test_text.py::test_the_command_line_ends_where_it_is_told",
        "test_chat.py::test_a_cancelled_answer_enters_the_history_marked",
    ],
    25: [
        "test_text.py::test_pieces_join_to_the_answer_and_break_no_character",
        "test_text.py::test_the_first_piece_comes_before_the_last_is_computed",
        "test_text.py::test_a_dropped_or_cancelled_stream_loses_nothing",
        "test_terminal.py::test_ctrl_c_stops_the_answer_and_at_the_prompt_leaves",
    ],
    26: [
        "test_chat.py::test_a_cancelled_answer_enters_the_history_marked",
        "test_chat.py::test_an_error_leaves_the_conversation_as_it_was",
        "test_repl.py::test_an_answer_that_fails_leaves_the_conversation_going",
        "test_terminal.py::test_ctrl_c_stops_the_answer_and_at_the_prompt_leaves",
    ],
    27: [
        "test_chat.py::test_a_full_context_lets_the_oldest_exchanges_go",
        "test_sessions.py::test_going_back_over_a_full_context",
        "test_repl.py::test_a_full_context_is_told",
    ],
    # Receipts
    28: [
        "test_receipt.py::test_a_receipt_says_what_was_computed_and_how",
        "test_receipt.py::test_the_times_of_an_answer_are_apart_from_its_consumers",
        "test_chat.py::test_each_receipt_claims_the_one_before",
        "test_repl.py::test_run_answers_a_prompt_through_the_template",
        "test_receipt_command.py::test_show_is_for_people",
    ],
    29: [
        "test_receipt.py::test_the_fields_of_schema_1_0_0_are_there",
        "test_receipt_command.py::test_receipts_follow_their_json_schema",
        "test_receipt_command.py::test_the_json_schema_leaves_nothing_open",
    ],
    30: [
        "test_receipt.py::test_kernels_and_compute_path_follow_the_counters",
        "test_receipt.py::test_an_altered_receipt_is_caught_and_the_gate_named",
        "test_receipt.py::test_any_figure_of_claim_and_run_that_is_altered_is_caught",
        "test_receipt.py::test_ctrl_c_in_a_long_prefill_keeps_the_counts_true",
        "test_receipt_command.py::test_verify_names_the_gate",
        "contract.rs::the_kernels_count_what_they_computed",
    ],
    31: [
        "test_receipt.py::test_saving_and_loading_gives_the_same_receipt",
        "test_receipt.py::test_a_receipt_that_cannot_be_written_says_why",
        "test_receipt_command.py::test_verify_checks_each_receipt_and_the_chain",
    ],
    32: [
        "test_repl.py::test_receipts_are_written_where_they_are_asked_for",
        "test_repl.py::test_a_folder_that_cannot_be_written_is_an_error",
    ],
    33: [
        "test_receipt.py::test_a_receipt_is_replayed_on_any_instruction_set",
        "test_receipt.py::test_a_forged_receipt_fails_its_replay",
        "test_receipt.py::test_a_redacted_receipt_is_the_same_claim",
        "test_repl.py::test_receipts_are_written_where_they_are_asked_for",
        "test_receipt_command.py::test_replay_computes_again_on_other_instructions_and_threads",
        "test_receipt_command.py::test_replay_finds_forgery_and_says_where",
        "test_receipt_command.py::test_replay_refuses_by_name",
        "test_receipt_command.py::test_replay_of_a_redacted_receipt_asks_for_the_prompt",
    ],
}


def names_in(name: str) -> set[str]:
    """The tests of a file."""
    source = (ROOT / "tests" / name).read_text("utf-8")
    if name.endswith(".rs"):
        tests = set(re.findall(r"#\[test\]\s*fn (\w+)\(", source))
        assert tests, name
        return tests
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    return {node.name for node in functions if node.name.startswith("test_")}


def test_no_row_is_missing() -> None:
    assert list(ROWS) == list(range(1, 34))
    assert all(ROWS.values())


@pytest.mark.parametrize("row", ROWS)
def test_the_names_in_a_row_are_there(row: int) -> None:
    for test in ROWS[row]:
        file, name = test.split("::")
        assert name in names_in(file), f"{test} is not there"
