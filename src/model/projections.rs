//! The projections of a layer: the names and sizes of their tensors.

use super::arch::DELTA_NET;
use super::config::Config;

/// A projection: its tensor's name, and how many channels go in and out.
pub(super) struct Projection {
    pub name: &'static str,
    pub cols: usize,
    pub rows: usize,
    /// Whether it must have a bias.
    pub biased: bool,
    /// The RMSNorm of its input alone, if the architecture has one.
    pub norm: Option<&'static str>,
}

/// The projections of a layer that take part in deciding what a model's inputs are rounded to, in the order of
/// computation: those of the attention or the gated delta net, then gate, up and down.
pub(super) fn projections(config: &Config, layer: usize) -> Vec<Projection> {
    let (hidden, ffn, q, kv) = (config.hidden_size, config.intermediate_size, config.q_dim(), config.kv_dim());
    let names = &config.arch.tensors;
    let plain = |name, cols, rows| Projection { name, cols, rows, biased: false, norm: None };
    let biased = |projection| Projection { biased: config.arch.qkv_bias, ..projection };
    let mut projections = match config.delta_net_of(layer) {
        Some(nets) => vec![
            plain(DELTA_NET.qkv, hidden, nets.channels()),
            plain(DELTA_NET.gate, hidden, nets.value_dim()),
            plain(DELTA_NET.out, nets.value_dim(), hidden),
        ],
        None => vec![
            // In a hybrid model, each head's query is followed by the gate of its output.
            biased(plain(names.q, hidden, if config.arch.hybrid { 2 * q } else { q })),
            biased(plain(names.k, hidden, kv)),
            biased(plain(names.v, hidden, kv)),
            Projection { norm: names.attn_sub_norm, ..plain(names.o, q, hidden) },
        ],
    };
    projections.extend([
        plain(names.gate, hidden, ffn),
        plain(names.up, hidden, ffn),
        Projection { norm: names.ffn_sub_norm, ..plain(names.down, ffn, hidden) },
    ]);
    projections
}
