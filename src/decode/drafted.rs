//! Drafts: the ids that an answer is said to have, checked many at a time.
//!
//! A step computes the rows of many of these ids in one pass, like a prompt. The sampler then chooses each id as always,
//! from the logits of the row before it. The choices do not need each other: each is made as if the ids before it were
//! right. The first one that is not as the draft says ends the draft, and the answer goes on from there without it. So
//! the ids are those of plain decoding, whatever the draft says.

use super::draft::{Choice, Draft};
use super::form::Form;
use super::generation::Generation;
use super::token::{Finish, Token};
use crate::error::Result;
use crate::model::{CandidateThreshold, LogitsFor};
use crate::token::TokenId;
use std::sync::OnceLock;

impl Generation {
    /// Says which ids the answer will probably have. They are checked in steps of at most `most` of them.
    pub fn expect(&mut self, ids: Vec<TokenId>, most: usize) {
        self.draft = Some(Draft::new(ids, most));
    }

    /// Adds the rows of the draft's next ids to the step. A draft that the answer has left is dropped.
    pub(super) fn plan_draft(&mut self) {
        let Some(mut draft) = self.draft.take() else { return };
        self.go_back(&draft); // after a step that has failed
        let answer = [self.generated(), self.due_start()].concat();
        if draft.ids.len() == answer.len() || !draft.ids.starts_with(&answer) {
            return;
        }
        (draft.before, draft.settled, draft.right) = (self.form.clone(), 0, usize::MAX);
        draft.choices.clear();
        let mut rest = draft.ids[answer.len()..].iter();
        let mut len = self.prompt_len + answer.len();
        while let Some(id) = rest.next() {
            let allowed = self.allowed().cloned();
            let is_allowed = allowed.as_ref().is_none_or(|set| set.contains(*id));
            draft.choices.push(Choice { row: self.rows.len() - 1, allowed, follow: vec![], picked: OnceLock::new() });
            let ends = self.stop_ids.contains(id) || self.finish_after(len + 1).is_some();
            if draft.choices.len() == draft.most || ends || !is_allowed {
                break;
            }
            let follow = [&[*id], &self.read(*id, len + 1, None)[..]].concat();
            len += follow.len();
            let goes_on = self.form.as_ref().is_none_or(Form::goes_on)
                && rest.as_slice().starts_with(&follow[1..])
                && self.finish_after(len).is_none();
            rest = rest.as_slice().get(follow.len() - 1..).unwrap_or_default().iter();
            let has_more = goes_on && !rest.as_slice().is_empty();
            if has_more {
                self.rows.extend(&follow);
            }
            draft.choices.last_mut().expect("just added").follow = follow;
            if !has_more {
                break;
            }
        }
        self.draft = Some(draft);
    }

    /// The ids up to a row of the step, that row included.
    fn known_at(&self, row: usize) -> Vec<TokenId> {
        let before = self.ids.iter().chain(self.due_start()).take(self.rows_from);
        before.chain(&self.rows[..=row]).copied().collect()
    }

    /// [`Generation::thresholds`] of the draft's choices, from that of row `first` of the step on.
    pub(super) fn draft_thresholds<'a>(&'a self, draft: &'a Draft, first: usize) -> Vec<Box<CandidateThreshold<'a>>> {
        if self.sampler().needs_every_logit() {
            return Vec::new();
        }
        let threshold = |choice: &'a Choice| -> Box<CandidateThreshold<'a>> {
            Box::new(move |low: &mut [f32], high: &mut [f32]| {
                let sampler = self.sampler().allowing(choice.allowed.as_ref());
                sampler.bound(low, high, &self.known_at(choice.row), self.prompt_len)
            })
        };
        draft.choices.iter().filter(|choice| choice.row >= first).map(threshold).collect()
    }

    /// How many choices have got the logits of their rows with the last pass, and the first of them.
    pub(super) fn draft_picks(&self, logits: usize) -> std::ops::Range<usize> {
        let first = self.draft.as_ref().map_or(0, |draft| draft.settled);
        first..first + logits
    }

    /// How many of `len` positions hold ids that the draft has right.
    pub(super) fn drafted_len(&self, len: usize) -> usize {
        self.draft.as_ref().map_or(len, |draft| len.min(draft.right))
    }

    /// Whether the step under way checks ids of a draft.
    pub(super) fn has_draft(&self) -> bool {
        self.draft.is_some()
    }

    /// Chooses the id of a choice from the logits of its row.
    pub(super) fn pick(&self, choice: usize, logits: &mut [f32]) {
        let choice = &self.draft.as_ref().expect("the step has one").choices[choice];
        let picked = self.sample(logits, &self.known_at(choice.row), choice.allowed.as_ref());
        let _ = choice.picked.set(picked);
    }

    /// Takes the ids that were chosen after a pass, up to the first that is not as the draft says. That one ends the
    /// step, whose sequence has `computed` positions.
    pub(super) fn settle(&mut self, computed: usize) -> Result<()> {
        let Some(mut draft) = self.draft.take() else { return Ok(()) };
        while let Some(picked) = draft.choices.get_mut(draft.settled).and_then(|choice| choice.picked.take()) {
            let agrees = self.settle_one(&mut draft, picked)?;
            draft.settled += 1;
            self.is_first = true;
            if !agrees {
                draft.right = self.rows_from + draft.choices[draft.settled - 1].row + 1;
                self.rows.truncate(computed - self.rows_from);
                draft.choices.clear();
                draft.settled = 0;
                break;
            }
        }
        self.draft = Some(draft);
        Ok(())
    }

    /// Takes one id. Returns whether the step goes on.
    fn settle_one(&mut self, draft: &mut Draft, picked: Result<Token>) -> Result<bool> {
        let at = draft.settled;
        if at == 0 {
            draft.before.as_ref().map_or(Ok(()), Form::check)?;
        }
        let token = match picked {
            Ok(token) => token,
            Err(error) => {
                self.go_back(draft);
                // The ids before it stay; the next step comes to this one again.
                return if at == 0 { Err(error) } else { Ok(false) };
            }
        };
        if at == 0 {
            let start = self.due_start().to_vec();
            self.ready.extend(start.into_iter().map(|id| Token::text(id, None)));
        }
        let is_last = at + 1 == draft.choices.len();
        let choice = &draft.choices[at];
        let len = self.rows_from + choice.row + 2;
        if choice.agrees(token.id) {
            self.push(token, &choice.follow[1..], len);
            if is_last && self.form.as_ref().is_some_and(Form::is_complete) {
                self.ready.back_mut().expect("just added").finish = Some(Finish::Stop);
            }
            return Ok(!is_last);
        }
        self.go_back(draft);
        self.follow(token, len);
        Ok(false)
    }

    /// Brings the form to where it is before the next choice is read.
    fn go_back(&mut self, draft: &Draft) {
        let (settled, rest) = draft.choices.split_at(draft.settled);
        if self.form.is_none() || rest.first().is_none_or(|choice| choice.follow.is_empty()) {
            return;
        }
        self.form = draft.before.clone();
        for choice in settled {
            self.read(choice.follow[0], self.rows_from + choice.row + 2, None);
        }
    }

    /// The logits that a row of the step needs for the draft's choices.
    pub(super) fn draft_logits<'a>(
        &'a self,
        draft: &'a Draft,
        row: usize,
        thresholds: &'a [Box<CandidateThreshold<'a>>],
    ) -> LogitsFor<'a> {
        let Ok(i) = draft.choices.binary_search_by_key(&row, |choice| choice.row) else { return LogitsFor::None };
        let threshold = (thresholds.len() + i).checked_sub(draft.choices.len()).map(|i| &*thresholds[i]);
        LogitsFor::chosen(draft.choices[i].allowed.as_ref(), threshold)
    }
}
