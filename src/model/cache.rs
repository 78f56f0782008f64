//! The cache of one sequence: keys and values in pages, and the recurrent states of a hybrid model.

use super::Row;
use super::state::{History, Recurrence, SpareStates, State, StateShape};
use crate::error::Result;
use crate::kernel::Team;
use crate::kernel::attention::PAGE_LEN;
use crate::machine::counters::WorkCounters;
use crate::ops::attention::{AttentionRow, KvType, Page, PageShape};
use std::sync::Arc;

/// The keys and values of one sequence. It grows by pages of 64 positions; what a page holds after position `len` has
/// no meaning. Clones share their pages until one of them writes, and their recurrent states.
#[derive(Clone)]
pub struct KvCache {
    shape: PageShape,
    kv_type: KvType,
    pages: Vec<Arc<Page>>,
    /// The recurrent states of a model with gated delta nets.
    recurrent: Option<(StateShape, History)>,
    len: usize,
    work: WorkCounters,
}

impl KvCache {
    /// A cache of no positions, for pages of this shape and element type.
    pub(super) fn new(shape: PageShape, kv_type: KvType, state: Option<StateShape>) -> KvCache {
        let recurrent = state.map(|shape| (shape, History::default()));
        KvCache { shape, kv_type, pages: Vec::new(), recurrent, len: 0, work: WorkCounters::default() }
    }

    /// How many positions it holds.
    #[expect(clippy::len_without_is_empty, reason = "nothing asks whether it is empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Keeps the first `len` positions and the pages that they need, and returns how many it has kept: with recurrent
    /// states, those up to the latest kept state.
    pub fn truncate(&mut self, len: usize) -> usize {
        let kept = match &mut self.recurrent {
            Some((_, history)) => history.truncate(self.len, len),
            None => self.len.min(len),
        };
        self.len = kept;
        self.pages.truncate(kept.div_ceil(PAGE_LEN));
        kept
    }

    /// How many positions [`KvCache::truncate`] would keep.
    pub fn reach(&self, len: usize) -> usize {
        self.recurrent.as_ref().map_or(self.len.min(len), |(_, history)| history.reach(self.len, len))
    }

    /// Asks for recurrent states to be kept when a pass comes to these positions, so that the sequence can be truncated
    /// to them. Other caches need no such thing.
    pub fn keep_states_at(&mut self, positions: impl Iterator<Item = usize>) {
        if let Some((_, history)) = &mut self.recurrent {
            history.want(positions);
        }
    }

    /// Asks for one more recurrent state to be kept.
    pub fn keep_state_at(&mut self, position: usize) {
        if let Some((_, history)) = &mut self.recurrent {
            history.want_also(position);
        }
    }

    /// An empty cache of the same kind.
    pub fn new_like(&self) -> KvCache {
        KvCache::new(self.shape, self.kv_type, self.recurrent.as_ref().map(|(shape, _)| *shape))
    }

    /// Takes the positions of another cache in place of its own. The positions at which states are wanted and the
    /// counted work stay.
    pub fn adopt(&mut self, other: KvCache) {
        (self.pages, self.len) = (other.pages, other.len);
        if let (Some((_, own)), Some((_, history))) = (&mut self.recurrent, other.recurrent) {
            own.adopt(history);
        }
    }

    /// The pages and recurrent states, which clones may share: the address and the bytes of each.
    pub fn parts(&self) -> impl Iterator<Item = (usize, usize)> {
        let pages = self.pages.iter().map(|page| (Arc::as_ptr(page).addr(), page.bytes().len()));
        pages.chain(self.recurrent.iter().flat_map(|(_, history)| history.parts()))
    }

    /// How the sequence is cut where its states are kept, for a pass over these rows of the batch.
    pub(super) fn recurrence(&self, rows: &[usize], spare: &mut SpareStates) -> Result<Option<Recurrence>> {
        let plan = |(shape, history): &(StateShape, History)| Recurrence::new(*shape, history, self.len, rows, spare);
        self.recurrent.as_ref().filter(|_| !rows.is_empty()).map(plan).transpose()
    }

    /// Takes the states of a pass that has ended well.
    pub(super) fn take_states(&mut self, recurrence: Recurrence, spare: &mut SpareStates) {
        if let Some((_, history)) = &mut self.recurrent {
            recurrence.finish(history, spare);
        }
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

    /// Bytes of its pages and states, shared ones included.
    pub fn bytes(&self) -> usize {
        let pages: usize = self.pages.iter().map(|page| page.bytes().len()).sum();
        pages + self.recurrent.as_ref().map_or(0, |(_, history)| history.bytes(self.len))
    }

    /// The positions of its recurrent states, in ascending order; none for models without such states.
    pub fn state_positions(&self) -> Vec<usize> {
        let of = |(_, history): &(_, History)| history.kept(self.len).map(|(at, _)| at).collect();
        self.recurrent.as_ref().map(of).unwrap_or_default()
    }

    /// Gives `write` the bytes of all pages in order, and then those of all states.
    pub fn write_to<E>(
        &self,
        mut write: impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.pages.iter().try_for_each(|page| write(page.bytes()))?;
        let states = self.recurrent.iter().flat_map(|(_, history)| history.kept(self.len));
        for floats in states.flat_map(|(_, floats)| floats.chunks(STORED_FLOATS)) {
            write(&floats.iter().flat_map(|float| float.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        Ok(())
    }

    /// Gives an empty cache `len` positions and states at `states`: `read` fills pages and states with the bytes that
    /// [`KvCache::write_to`] gave for them, in the same pieces.
    pub fn fill(&mut self, len: usize, states: &[usize], mut read: impl FnMut(&mut [u8]) -> Result<()>) -> Result<()> {
        self.reserve(len)?;
        self.pages.iter_mut().try_for_each(|page| read(Arc::get_mut(page).expect("just allocated").bytes_mut()))?;
        self.len = len;
        let Some((shape, history)) = &mut self.recurrent else { return Ok(()) };
        for at in states {
            let mut state = State::new(*shape)?;
            let mut bytes = vec![0; STORED_FLOATS * size_of::<f32>()];
            for floats in state.floats_mut().chunks_mut(STORED_FLOATS) {
                let bytes = &mut bytes[..size_of_val(floats)];
                read(bytes)?;
                let read = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                floats.iter_mut().zip(read).for_each(|(float, read)| *float = read);
            }
            history.restore(*at, len, state);
        }
        Ok(())
    }
}

/// Floats of a recurrent state that are stored at once.
const STORED_FLOATS: usize = 1 << 14;

/// The sequence and the position of a row of the batch.
pub(super) struct RowPosition {
    /// The index of its sequence.
    pub sequence: usize,
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

/// The recurrent states of a pass, for each sequence that has some.
pub(super) fn recurrences(
    caches: &[&mut KvCache],
    positions: &[RowPosition],
    spare: &mut SpareStates,
) -> Result<Vec<Option<Recurrence>>> {
    let plan = |(sequence, cache): (usize, &&mut KvCache)| {
        let rows: Vec<usize> = (0..positions.len()).filter(|row| positions[*row].sequence == sequence).collect();
        cache.recurrence(&rows, spare)
    };
    caches.iter().enumerate().map(plan).collect()
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
