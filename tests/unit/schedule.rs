use super::*;

fn decode(client: u64) -> Waiting {
    Waiting { client, decodes: true, rows: 1 }
}

fn prompt(client: u64, rows: usize) -> Waiting {
    Waiting { client, decodes: false, rows }
}

const LIMITS: Limits = Limits { rows: 100, decode_rows: 8, is_awaited: false, prompts_first: false };

/// Costs of a machine on which a pass of one row takes 10 ms and each further row 2 ms.
fn measured() -> Costs {
    let mut costs = Costs::default();
    costs.note(1, 0, Duration::from_millis(10));
    costs.note(0, 100, Duration::from_millis(200));
    costs
}

#[test]
fn a_prompt_alone_fills_the_pass() {
    assert_eq!(plan(&[prompt(1, 250)], LIMITS, &measured()), [100]);
    assert_eq!(plan(&[prompt(1, 30)], LIMITS, &Costs::default()), [30]);
}

#[test]
fn prompts_share_a_pass_equally_and_short_ones_leave_the_rest() {
    assert_eq!(plan(&[prompt(1, 250), prompt(2, 10), prompt(3, 250)], LIMITS, &measured()), [45, 10, 45]);
    let limits = Limits { rows: 2, ..LIMITS };
    assert_eq!(plan(&[prompt(1, 9), prompt(2, 9), prompt(3, 9)], limits, &measured()), [1, 1, 0]);
}

#[test]
fn a_prompt_beside_another_callers_answers_is_short() {
    let waiting = [decode(1), prompt(2, 250)];
    // 1.7 times 10 ms leave 7 ms, which are three rows.
    assert_eq!(plan(&waiting, LIMITS, &measured()), [1, 3]);
    // Two prompts may take twice as much.
    assert_eq!(plan(&[decode(1), prompt(2, 250), prompt(3, 250)], LIMITS, &measured()), [1, 3, 3]);
    // Beside the caller's own answers it need not be.
    assert_eq!(plan(&[decode(1), prompt(1, 250)], LIMITS, &measured()), [1, 99]);
    // Nor may it be long while an answer is away for a moment.
    assert_eq!(plan(&[prompt(2, 250)], Limits { is_awaited: true, ..LIMITS }, &measured()), [4]);
}

#[test]
fn unknown_times_are_measured_first() {
    let waiting = [decode(1), prompt(2, 250)];
    assert_eq!(plan(&waiting, LIMITS, &Costs::default()), [1, 0]);
    let mut costs = Costs::default();
    costs.note(1, 0, Duration::from_millis(10));
    assert_eq!(plan(&waiting, LIMITS, &costs), [1, FIRST_ROWS]);
}

#[test]
fn nobody_starves() {
    // More answers than fit: the first ones.
    let waiting: Vec<Waiting> = (0..10).map(decode).collect();
    assert_eq!(plan(&waiting, LIMITS, &measured()), [1, 1, 1, 1, 1, 1, 1, 1, 0, 0]);
    // Prompts get a row every other pass even where answers alone would fill it.
    let waiting = [decode(1), decode(2), prompt(3, 5)];
    let full = Limits { rows: 2, decode_rows: 2, ..LIMITS };
    assert_eq!(plan(&waiting, full, &measured()), [1, 1, 0]);
    assert_eq!(plan(&waiting, Limits { prompts_first: true, ..full }, &measured()), [1, 0, 1]);
    let one = Limits { rows: 1, decode_rows: 1, prompts_first: true, ..LIMITS };
    assert_eq!(plan(&waiting, one, &measured()), [0, 0, 1]);
}

#[test]
fn a_step_of_several_rows_is_never_split() {
    let guessing = Waiting { rows: 4, ..decode(1) };
    let waiting = [decode(2), guessing, decode(3)];
    assert_eq!(plan(&waiting, Limits { decode_rows: 4, ..LIMITS }, &measured()), [1, 0, 1]);
    assert_eq!(plan(&waiting, LIMITS, &measured()), [1, 4, 1]);
}
