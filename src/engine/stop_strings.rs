//! Stop strings: holds back text that might be the start of one.
//!
//! A control token has no text in the answer. A stop string that is the text of one is its id (`Engine::request`); one
//! that has such a text inside, such as `</s>\nUser:`, is looked for in the answer with the texts of control tokens.

use std::ops::Range;

/// Looks for the stop strings of one answer.
pub(super) struct StopStrings {
    strings: Vec<String>,
    /// Those with the text of a control token inside.
    with_controls: Vec<String>,
    /// Text that is not shown yet. With `with_controls` it has the texts of control tokens.
    held: String,
    /// Where these are in `held`, in ascending order.
    hidden: Vec<Range<usize>>,
}

impl StopStrings {
    /// `controls` are the texts of the vocabulary's control tokens.
    pub(super) fn new<'a>(strings: Vec<String>, controls: impl Iterator<Item = &'a str>) -> StopStrings {
        let mut with_controls: Vec<String> = Vec::new();
        if !strings.is_empty() {
            for control in controls {
                let inside = |stop: &&String| stop.len() > control.len() && stop.contains(control);
                with_controls.extend(strings.iter().filter(inside).cloned());
            }
        }
        StopStrings { strings, with_controls, held: String::new(), hidden: Vec::new() }
    }

    /// Adds text. Returns the text that can be shown now, and whether a stop string, which is not shown, ended the
    /// answer.
    pub(super) fn push(&mut self, more: &str) -> (String, bool) {
        self.held.push_str(more);
        self.decide()
    }

    /// [`StopStrings::push`] for the text of a control token, which is never shown.
    pub(super) fn push_control(&mut self, text: &str) -> (String, bool) {
        if self.with_controls.is_empty() {
            return (String::new(), false);
        }
        self.hidden.push(self.held.len()..self.held.len() + text.len());
        self.held.push_str(text);
        self.decide()
    }

    fn decide(&mut self) -> (String, bool) {
        let visible = self.visible(self.held.len());
        let first = |stops: &[String], text: &str| stops.iter().filter_map(|stop| text.find(stop.as_str())).min();
        let seen = first(&self.strings, &visible);
        let with_controls = first(&self.with_controls, &self.held).map(|at| self.visible(at).len());
        if let Some(end) = seen.into_iter().chain(with_controls).min() {
            self.flush();
            return (visible[..end].to_string(), true);
        }
        let undecided = |stops: &[String], text: &str| {
            let may_begin = |start: &usize| stops.iter().any(|stop| stop.starts_with(&text[*start..]));
            text.char_indices().map(|(start, _)| start).find(may_begin).unwrap_or(text.len())
        };
        let kept = self.held_at(undecided(&self.strings, &visible)).min(undecided(&self.with_controls, &self.held));
        let shown = self.visible(kept);
        self.held.drain(..kept);
        self.hidden.retain_mut(|range| {
            *range = range.start.saturating_sub(kept)..range.end.saturating_sub(kept);
            range.start < range.end
        });
        (shown, false)
    }

    /// The first `end` bytes of the held text, without the texts of control tokens.
    fn visible(&self, end: usize) -> String {
        let mut visible = String::with_capacity(end);
        let mut done = 0;
        for range in self.hidden.iter().filter(|range| range.start < end) {
            visible.push_str(&self.held[done..range.start]);
            done = range.end.min(end);
        }
        visible.push_str(&self.held[done..end]);
        visible
    }

    /// Where a place of the visible text is in the held text.
    fn held_at(&self, visible: usize) -> usize {
        self.hidden.iter().fold(visible, |at, range| if range.start <= at { at + range.len() } else { at })
    }

    /// The text still held back, once the answer has ended for another reason.
    pub(super) fn flush(&mut self) -> String {
        let visible = self.visible(self.held.len());
        self.held.clear();
        self.hidden.clear();
        visible
    }
}

#[cfg(test)]
#[path = "../../tests/unit/stop_strings.rs"]
mod tests;
