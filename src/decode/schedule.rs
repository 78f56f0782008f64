//! Which rows of the waiting steps go into the next pass.
//!
//! Steps that decode come first: all of them, one row each, up to a limit. Prompts fill the rest. Beside somebody
//! else's decoding they get few rows, so that the pass takes less than twice the time of the decoding alone.

use std::time::Duration;

/// The time of a pass with rows of one prompt, in times of the pass without them, that the schedule aims at. The goal is
/// less than 2; times vary. Each further prompt that waits adds as much: they have the same right to the engine.
const STRETCH: f64 = 1.7;
/// Rows of prompts beside decoding while nothing is known about their time.
const FIRST_ROWS: usize = 4;
/// The weight of a new measurement in an average.
const NEW: f64 = 0.25;
/// A pass of prompts alone tells the time of a row from this many rows on.
const MEASURED_ROWS: usize = 16;

/// A step that waits for a pass.
pub(super) struct Waiting {
    /// Who asked for it.
    pub client: u64,
    /// Whether it decodes; else it computes a prompt.
    pub decodes: bool,
    /// The rows that it still needs.
    pub rows: usize,
}

/// The limits of a pass.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Rows of all steps.
    pub rows: usize,
    /// Rows of steps that decode.
    pub decode_rows: usize,
    /// Whether answers are under way that do not wait at this moment; rows of prompts would delay them.
    pub is_awaited: bool,
    /// Whether the last pass had no rows of prompts.
    pub prompts_first: bool,
}

/// Measured times of passes.
#[derive(Default)]
pub(super) struct Costs {
    /// Seconds of a pass of this many decoding rows alone; 0 where unknown.
    decode: Vec<f64>,
    /// Seconds that another row of a prompt adds; 0 while unknown.
    row: f64,
}

fn average(known: &mut f64, new: f64) {
    *known = if *known == 0.0 { new } else { *known + NEW * (new - *known) };
}

impl Costs {
    /// Notes the time of a pass.
    pub fn note(&mut self, decode_rows: usize, prompt_rows: usize, time: Duration) {
        let time = time.as_secs_f64();
        if prompt_rows == 0 {
            if self.decode.len() <= decode_rows {
                self.decode.resize(decode_rows + 1, 0.0);
            }
            average(&mut self.decode[decode_rows], time);
        } else if decode_rows == 0 {
            if prompt_rows >= MEASURED_ROWS {
                average(&mut self.row, time / prompt_rows as f64);
            }
        } else if let Some(alone) = self.alone(decode_rows) {
            // A row costs no less than nothing, whatever the noise.
            let row = ((time - alone) / prompt_rows as f64).max(alone / 1e3);
            average(&mut self.row, row);
        }
    }

    /// The cost of another row that decodes beside `answers` answers, in times of what a pass takes for each of them;
    /// `None` while unknown.
    pub fn row_cost(&self, answers: usize) -> Option<f64> {
        let one = self.decode.get(1).copied().filter(|seconds| *seconds > 0.0)?;
        let measured = |(rows, seconds): (usize, &f64)| (rows > 1 && *seconds > 0.0).then_some((rows, *seconds));
        let (rows, seconds) = self.decode.iter().enumerate().rev().find_map(measured)?;
        let row = ((seconds - one) / (rows - 1) as f64).max(0.0);
        Some(row * answers.max(1) as f64 / (one + row * (answers.max(1) - 1) as f64))
    }

    /// Seconds of a pass of so many decoding rows: as measured, or as that of the next smaller number.
    fn alone(&self, decode_rows: usize) -> Option<f64> {
        let known = self.decode.iter().take(decode_rows + 1).rev();
        known.copied().find(|seconds| *seconds > 0.0)
    }

    /// How many rows of so many prompts may stand beside so many decoding rows: each prompt may stretch the pass. None at all if that time is unknown: the pass
    /// measures it.
    fn prompt_rows(&self, decode_rows: usize, prompts: usize) -> usize {
        match self.alone(decode_rows) {
            None => 0,
            Some(_) if self.row == 0.0 => FIRST_ROWS,
            Some(alone) => ((alone * (STRETCH - 1.0) * prompts as f64 / self.row) as usize).max(1),
        }
    }
}

/// How many rows each of the waiting steps gets in the next pass; they are in the order in which they came.
pub(super) fn plan(waiting: &[Waiting], limits: Limits, costs: &Costs) -> Vec<usize> {
    let mut rows = vec![0; waiting.len()];
    let prompts: Vec<usize> = (0..waiting.len()).filter(|i| !waiting[*i].decodes).collect();
    let reserved = usize::from(limits.prompts_first && !prompts.is_empty());
    let mut left = limits.rows - reserved;
    let mut decode_left = limits.decode_rows;
    for (rows, step) in rows.iter_mut().zip(waiting).filter(|(_, step)| step.decodes) {
        // A step needs all its rows in one pass. The first one gets them: none that decodes needs more than the limits.
        if step.rows <= left.min(decode_left) {
            *rows = step.rows;
            (left, decode_left) = (left - step.rows, decode_left - step.rows);
        }
    }
    let decode_rows = limits.decode_rows - decode_left;
    left += reserved;
    let others = |prompt: usize| {
        waiting.iter().zip(&rows).any(|(step, rows)| step.decodes && *rows > 0 && step.client != waiting[prompt].client)
    };
    if limits.is_awaited || prompts.iter().any(|prompt| others(*prompt)) {
        let least = if decode_rows == 0 { FIRST_ROWS } else { reserved };
        left = left.min(costs.prompt_rows(decode_rows.max(1), prompts.len()).max(least));
    }
    share(&mut rows, waiting, &prompts, left);
    rows
}

/// Shares rows among prompts equally; what one does not need goes to the others.
fn share(rows: &mut [usize], waiting: &[Waiting], prompts: &[usize], mut left: usize) {
    let mut open: Vec<usize> = prompts.to_vec();
    while left > 0 && !open.is_empty() {
        let each = (left / open.len()).max(1);
        for prompt in &open {
            let more = each.min(waiting[*prompt].rows - rows[*prompt]).min(left);
            rows[*prompt] += more;
            left -= more;
        }
        open.retain(|prompt| rows[*prompt] < waiting[*prompt].rows);
    }
}

#[cfg(test)]
#[path = "../../tests/unit/schedule.rs"]
mod tests;
