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
    /// Neurons of the feed-forward networks, in models that skip zeros; 0 in others. Each counts once a layer and row.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ffn_neurons: u64,
    /// Neurons whose row of `up` was read; all in passes of several rows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ffn_up_rows: u64,
    /// Neurons whose column of `down` was read; all in passes of several rows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ffn_down_columns: u64,
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
    fn fields(&mut self) -> [&mut u64; 12] {
        let WorkCounters { ternary, dense, attention, head, logits, .. } = self;
        let WorkCounters { ffn_neurons, ffn_up_rows, ffn_down_columns, .. } = self;
        let WorkCounters { ternary_ns, dense_ns, attention_ns, head_ns, .. } = self;
        [
            ternary,
            dense,
            attention,
            head,
            logits,
            ffn_neurons,
            ffn_up_rows,
            ffn_down_columns,
            ternary_ns,
            dense_ns,
            attention_ns,
            head_ns,
        ]
    }

    /// One row's equal share of the work of `rows` rows.
    pub fn share(mut self, rows: usize) -> WorkCounters {
        self.fields().into_iter().for_each(|field| *field /= rows as u64);
        self
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl std::ops::AddAssign for WorkCounters {
    fn add_assign(&mut self, mut other: WorkCounters) {
        self.fields().into_iter().zip(other.fields()).for_each(|(own, other)| *own += *other);
    }
}
