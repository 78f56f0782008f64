//! The keys and values of one sequence.

use super::Row;
use crate::error::Result;
use crate::kernel::float::PAGE;
use crate::kernel::pool::Team;
use crate::ops::attention::{KvType, Page, PageShape};
use crate::receipt::Work;

/// Grows by pages of 64 positions; positions past `len` hold nothing that counts.
pub struct KvCache {
    shape: PageShape,
    kv_type: KvType,
    pages: Vec<Page>,
    len: usize,
    work: Work,
}

/// The end of a cache that was cut off.
pub struct Tail {
    pages: Vec<Page>,
    at: usize,
    len: usize,
}

impl KvCache {
    /// An empty cache.
    pub fn new(shape: PageShape, kv_type: KvType) -> KvCache {
        KvCache { shape, kv_type, pages: Vec::new(), len: 0, work: Work::default() }
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

    /// A cache of its own that holds the first `len` positions.
    pub fn copy_of(&self, len: usize) -> Result<KvCache> {
        let pages = self.pages[..len.div_ceil(PAGE)].iter().map(Page::copy).collect::<Result<_>>()?;
        Ok(KvCache { shape: self.shape, kv_type: self.kv_type, pages, len, work: Work::default() })
    }

    /// Keeps the first `len` positions and returns the others, for [`KvCache::put_back`].
    pub fn split_off(&mut self, len: usize) -> Result<Tail> {
        // Of a page that is kept in part, both sides have a copy.
        let divided = self.pages.get(len / PAGE).filter(|_| !len.is_multiple_of(PAGE)).map(Page::copy).transpose()?;
        let pages = self.pages.split_off(len / PAGE);
        self.pages.extend(divided);
        Ok(Tail { pages, at: len / PAGE, len: std::mem::replace(&mut self.len, len) })
    }

    /// Undoes a [`KvCache::split_off`] once what was appended since is forgotten.
    pub fn put_back(&mut self, tail: Tail) {
        self.pages.truncate(tail.at);
        self.pages.extend(tail.pages);
        self.len = tail.len;
    }

    /// Declares that one position more has been written, by this work.
    pub(super) fn advance(&mut self, work: Work) {
        self.len += 1;
        self.work += work;
    }

    /// Begins to count its work from nothing.
    pub fn count_anew(&mut self) {
        self.work = Work::default();
    }

    /// What has been computed for it since, positions that were forgotten again included.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Makes room for `len` positions.
    pub(super) fn reserve(&mut self, len: usize) -> Result<()> {
        while self.pages.len() < len.div_ceil(PAGE) {
            self.pages.push(Page::new(&self.shape, self.kv_type)?);
        }
        Ok(())
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
    let mut touched: Vec<(&PageShape, &mut Page, Vec<usize>)> = Vec::new();
    for (sequence, cache) in caches.iter_mut().enumerate() {
        let KvCache { shape, pages, .. } = &mut **cache;
        let all = (0..rows.len()).filter(|i| rows[*i].sequence == sequence).collect::<Vec<usize>>();
        let Some(first) = all.first().map(|i| rows[*i].position / PAGE) else { continue };
        let by_page = all.chunk_by(|a, b| rows[*a].position / PAGE == rows[*b].position / PAGE);
        touched.extend(pages[first..].iter_mut().zip(by_page).map(|(page, rows)| (&*shape, page, rows.to_vec())));
    }
    team.for_each_chunk(&mut touched, 1, |_, touched| {
        for (shape, page, at) in touched {
            for i in at.iter() {
                let own = *i * width..(*i + 1) * width;
                page.write(shape, layer, rows[*i].position % PAGE, &keys[own.clone()], &values[own]);
            }
        }
    });
}
