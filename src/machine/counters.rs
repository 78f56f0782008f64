//! Counters of the work done for a sequence: rows, logits, nanoseconds.

use serde::{Deserialize, Serialize};

/// The work done for one sequence, counted where it ran. A receipt holds these figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkCounters {
    /// Rows (one token in one matrix) through ternary projections.
    pub ternary: u64,
    /// Rows through dense projections.
    pub dense: u64,
    /// Rows through the attention of a layer.
    pub attention: u64,
    /// Rows through the output head.
    pub head: u64,
    /// Logits that the head computed exactly.
    pub logits: u64,
    /// Nanoseconds in ternary projections.
    pub ternary_ns: u64,
    /// Nanoseconds in dense projections.
    pub dense_ns: u64,
    /// Nanoseconds in attention.
    pub attention_ns: u64,
    /// Nanoseconds in the output head.
    pub head_ns: u64,
}

impl WorkCounters {
    fn fields(&mut self) -> [&mut u64; 9] {
        let WorkCounters { ternary, dense, attention, head, logits, ternary_ns, dense_ns, attention_ns, head_ns } =
            self;
        [ternary, dense, attention, head, logits, ternary_ns, dense_ns, attention_ns, head_ns]
    }

    /// One row's equal share of the work of `rows` rows.
    pub fn share(mut self, rows: usize) -> WorkCounters {
        self.fields().into_iter().for_each(|field| *field /= rows as u64);
        self
    }
}

impl std::ops::AddAssign for WorkCounters {
    fn add_assign(&mut self, mut other: WorkCounters) {
        self.fields().into_iter().zip(other.fields()).for_each(|(own, other)| *own += *other);
    }
}
