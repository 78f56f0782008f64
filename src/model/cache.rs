//! The keys and values of one sequence.

use super::Row;
use crate::error::Result;
use crate::kernel::Team;
use crate::kernel::attention::PAGE;
use crate::machine::counters::WorkCounters;
use crate::ops::attention::{KvType, Page, PageShape};
use std::sync::Arc;

/// Grows by pages of 64 positions; positions past `len` hold nothing that counts. Clones share their pages until one of
/// them writes.
#[derive(Clone)]
pub struct KvCache {
    shape: PageShape,
    kv_type: KvType,
    pages: Vec<Arc<Page>>,
    len: usize,
    work: WorkCounters,
}

impl KvCache {
    /// An empty cache.
    pub fn new(shape: PageShape, kv_type: KvType) -> KvCache {
        KvCache { shape, kv_type, pages: Vec::new(), len: 0, work: WorkCounters::default() }
    }

    /// Positions held.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Keeps the first `len` positions and the pages that they need.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.pages.truncate(self.len.div_ceil(PAGE));
    }

    /// Declares that one position more has been written, by this work.
    pub(super) fn advance(&mut self, work: WorkCounters) {
        self.len += 1;
        self.work += work;
    }

    /// Begins to count its work from nothing.
    pub fn count_anew(&mut self) {
        self.work = WorkCounters::default();
    }

    /// What has been computed for it since, positions that were forgotten again included.
    pub fn work(&self) -> WorkCounters {
        self.work
    }

    /// Makes try_with_capacity for `len` positions, in pages that nobody shares.
    pub(super) fn reserve(&mut self, len: usize) -> Result<()> {
        if let Some(page) = self.pages.get_mut(self.len / PAGE)
            && Arc::get_mut(page).is_none()
        {
            *page = Arc::new(page.copy()?);
        }
        while self.pages.len() < len.div_ceil(PAGE) {
            self.pages.push(Arc::new(Page::new(&self.shape, self.kv_type)?));
        }
        Ok(())
    }

    pub(super) fn pages(&self) -> &[Arc<Page>] {
        &self.pages
    }

    pub(super) fn shape(&self) -> &PageShape {
        &self.shape
    }

    /// The contents of its pages.
    pub fn contents(&self) -> impl Iterator<Item = &[u8]> {
        self.pages.iter().map(|page| page.bytes())
    }

    /// Gives an empty cache `len` positions, page by page out of such contents.
    pub fn fill(&mut self, len: usize, mut read: impl FnMut(&mut [u8]) -> Result<()>) -> Result<()> {
        self.reserve(len)?;
        self.pages.iter_mut().try_for_each(|page| read(Arc::get_mut(page).expect("reserved").bytes_mut()))?;
        self.len = len;
        Ok(())
    }
}

/// Stores a layer's keys and values of all rows, page by page.
pub(super) fn write(
    team: &Team,
    caches: &mut [&mut KvCache],
    rows: &[Row],
    layer: usize,
    keys: &[f32],
    values: &[f32],
) {
    let width = keys.len() / rows.len();
    let mut touched: Vec<(&PageShape, &mut Arc<Page>, Vec<usize>)> = Vec::new();
    for (sequence, cache) in caches.iter_mut().enumerate() {
        let KvCache { shape, pages, .. } = &mut **cache;
        let all = (0..rows.len()).filter(|i| rows[*i].sequence == sequence).collect::<Vec<usize>>();
        let Some(first) = all.first().map(|i| rows[*i].position / PAGE) else { continue };
        let by_page = all.chunk_by(|a, b| rows[*a].position / PAGE == rows[*b].position / PAGE);
        touched.extend(pages[first..].iter_mut().zip(by_page).map(|(page, rows)| (&*shape, page, rows.to_vec())));
    }
    team.for_each_chunk(&mut touched, 1, |_, touched| {
        for (shape, page, at) in touched {
            let page = Arc::get_mut(page).expect("reserved");
            for i in at.iter() {
                let own = *i * width..(*i + 1) * width;
                page.write(shape, layer, rows[*i].position % PAGE, &keys[own.clone()], &values[own]);
            }
        }
    });
}
