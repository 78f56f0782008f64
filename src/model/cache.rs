//! The keys and values of one sequence.

use crate::kernel::float::PAGE;
use crate::ops::attention::{KvType, Page, PageShape};

/// Grows by pages of 64 positions; positions past `len` hold nothing that counts.
pub struct KvCache {
    shape: PageShape,
    kv_type: KvType,
    pages: Vec<Page>,
    len: usize,
}

impl KvCache {
    /// An empty cache.
    pub fn new(shape: PageShape, kv_type: KvType) -> KvCache {
        KvCache { shape, kv_type, pages: Vec::new(), len: 0 }
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Keeps the first `len` positions and the pages that they need.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.pages.truncate(self.len.div_ceil(PAGE));
    }

    /// Declares that positions up to `len` have been written.
    pub(super) fn advance(&mut self, len: usize) {
        self.len = len;
    }

    /// Makes room for `len` positions.
    pub(super) fn reserve(&mut self, len: usize) {
        while self.pages.len() < len.div_ceil(PAGE) {
            self.pages.push(Page::new(&self.shape, self.kv_type));
        }
    }

    pub(super) fn write(&mut self, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        self.pages[position / PAGE].write(&self.shape, layer, position % PAGE, keys, values);
    }

    pub(super) fn pages(&self) -> &[Page] {
        &self.pages
    }

    pub(super) fn shape(&self) -> &PageShape {
        &self.shape
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.pages.iter().map(Page::bytes).sum()
    }
}
