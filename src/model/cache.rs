//! The KV cache: keys and values of one sequence, in pages.

use super::Row;
use crate::error::Result;
use crate::kernel::Team;
use crate::kernel::attention::PAGE_LEN;
use crate::machine::counters::WorkCounters;
use crate::ops::attention::{AttentionRow, KvType, Page, PageShape};
use std::sync::Arc;

/// The keys and values of one sequence. It grows by pages of 64 positions; what a page holds after position `len` has
/// no meaning. Clones share their pages until one of them writes.
#[derive(Clone)]
pub struct KvCache {
    shape: PageShape,
    kv_type: KvType,
    pages: Vec<Arc<Page>>,
    len: usize,
    work: WorkCounters,
}

impl KvCache {
    /// A cache of no positions, for pages of this shape and element type.
    pub fn new(shape: PageShape, kv_type: KvType) -> KvCache {
        KvCache { shape, kv_type, pages: Vec::new(), len: 0, work: WorkCounters::default() }
    }

    /// How many positions it holds.
    #[expect(clippy::len_without_is_empty, reason = "nothing asks whether it is empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Keeps the first `len` positions and the pages that they need.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.pages.truncate(self.len.div_ceil(PAGE_LEN));
    }

    /// Takes in one more position, with the work that the layers and the head have done for it.
    pub(super) fn advance(&mut self, layers: WorkCounters, head: WorkCounters) {
        self.len += 1;
        self.work += layers;
        self.work += head;
    }

    /// Sets the counters of its work to zero.
    pub fn reset_work(&mut self) {
        self.work = WorkCounters::default();
    }

    /// Work since [`KvCache::reset_work`], including positions that were truncated later.
    pub fn work(&self) -> WorkCounters {
        self.work
    }

    /// Allocates pages for `len` positions, and copies the page that is written next if a clone shares it.
    fn reserve(&mut self, len: usize) -> Result<()> {
        if let Some(page) = self.pages.get_mut(self.len / PAGE_LEN)
            && Arc::get_mut(page).is_none()
        {
            *page = Arc::new(page.copy()?);
        }
        while self.pages.len() < len.div_ceil(PAGE_LEN) {
            self.pages.push(Arc::new(Page::new(&self.shape, self.kv_type)?));
        }
        Ok(())
    }

    /// The shape of its pages.
    pub(super) fn shape(&self) -> &PageShape {
        &self.shape
    }

    /// The bytes of its pages, in order.
    pub fn contents(&self) -> impl Iterator<Item = &[u8]> {
        self.pages.iter().map(|page| page.bytes())
    }

    /// Gives an empty cache `len` positions: `read` fills each page with the bytes that [`KvCache::contents`] gave for
    /// it.
    pub fn fill(&mut self, len: usize, mut read: impl FnMut(&mut [u8]) -> Result<()>) -> Result<()> {
        self.reserve(len)?;
        self.pages.iter_mut().try_for_each(|page| read(Arc::get_mut(page).expect("just allocated").bytes_mut()))?;
        self.len = len;
        Ok(())
    }
}

/// The sequence and the position of a row of the batch.
pub(super) struct RowPosition {
    /// The index of its sequence.
    sequence: usize,
    /// Its absolute position in the sequence, from 0.
    pub position: usize,
}

/// Gives each row the next position of its sequence, and allocates the pages for all rows.
pub(super) fn assign_positions(caches: &mut [&mut KvCache], rows: &[Row]) -> Result<Vec<RowPosition>> {
    let mut lens: Vec<usize> = caches.iter().map(|cache| cache.len).collect();
    let mut positions = Vec::with_capacity(rows.len());
    for Row { sequence, .. } in rows {
        positions.push(RowPosition { sequence: *sequence, position: lens[*sequence] });
        lens[*sequence] += 1;
    }
    for (cache, len) in caches.iter_mut().zip(lens).filter(|(cache, len)| *len > cache.len) {
        cache.reserve(len)?;
    }
    Ok(positions)
}

/// Stores a layer's keys and values of all rows, page by page.
pub(super) fn write(
    team: &Team,
    caches: &mut [&mut KvCache],
    positions: &[RowPosition],
    layer: usize,
    keys: &[f32],
    values: &[f32],
) {
    let width = keys.len() / positions.len();
    let mut touched: Vec<(&PageShape, &mut Arc<Page>, Vec<usize>)> = Vec::new();
    for (sequence, cache) in caches.iter_mut().enumerate() {
        let KvCache { shape, pages, .. } = &mut **cache;
        let rows = (0..positions.len()).filter(|i| positions[*i].sequence == sequence).collect::<Vec<usize>>();
        let Some(first) = rows.first().map(|i| positions[*i].position / PAGE_LEN) else { continue };
        let by_page = rows.chunk_by(|a, b| positions[*a].position / PAGE_LEN == positions[*b].position / PAGE_LEN);
        touched.extend(pages[first..].iter_mut().zip(by_page).map(|(page, rows)| (&*shape, page, rows.to_vec())));
    }
    team.for_each_chunk(&mut touched, 1, |_, touched| {
        for (shape, page, rows) in touched {
            let page = Arc::get_mut(page).expect("`reserve` made it this cache's own");
            for i in rows.iter() {
                let own = *i * width..(*i + 1) * width;
                page.write(shape, layer, positions[*i].position % PAGE_LEN, &keys[own.clone()], &values[own]);
            }
        }
    });
}

/// What the rows of a batch attend to.
pub(super) fn attention_rows<'a>(caches: &'a [&mut KvCache], positions: &[RowPosition]) -> Vec<AttentionRow<'a>> {
    let row = |at: &RowPosition| AttentionRow { pages: &caches[at.sequence].pages, position: at.position };
    positions.iter().map(row).collect()
}
