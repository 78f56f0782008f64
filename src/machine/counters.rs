//! What the kernels count while they compute: rows, logits, nanoseconds.

use serde::{Deserialize, Serialize};

/// What the kernels did for one sequence, counted where they ran: rows through ternary and dense projections, through
/// the attention of a layer and the output head; logits that the head computed exactly, since the choice could fall on
/// them; and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct WorkCounters {
    pub ternary: u64,
    pub dense: u64,
    pub attention: u64,
    pub head: u64,
    pub logits: u64,
    pub ternary_ns: u64,
    pub dense_ns: u64,
    pub attention_ns: u64,
    pub head_ns: u64,
}

impl WorkCounters {
    fn figures(&mut self) -> [&mut u64; 9] {
        let WorkCounters { ternary, dense, attention, head, logits, ternary_ns, dense_ns, attention_ns, head_ns } =
            self;
        [ternary, dense, attention, head, logits, ternary_ns, dense_ns, attention_ns, head_ns]
    }
}

impl WorkCounters {
    /// One row's equal share of the work of `rows` rows.
    pub fn share(mut self, rows: usize) -> WorkCounters {
        self.figures().into_iter().for_each(|figure| *figure /= rows as u64);
        self
    }
}

impl std::ops::AddAssign for WorkCounters {
    fn add_assign(&mut self, mut more: WorkCounters) {
        self.figures().into_iter().zip(more.figures()).for_each(|(own, more)| *own += *more);
    }
}
