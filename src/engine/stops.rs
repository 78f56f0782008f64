//! Stop texts: what may be the beginning of one is held back until it is decided.

/// Looks for the stop texts of one answer.
pub(super) struct Stops {
    texts: Vec<String>,
    held: String,
}

impl Stops {
    pub(super) fn new(texts: Vec<String>) -> Stops {
        Stops { texts, held: String::new() }
    }

    /// What can be shown after `more`, and whether a stop text ended the answer (it is not shown).
    pub(super) fn push(&mut self, more: &str) -> (String, bool) {
        self.held.push_str(more);
        if let Some(end) = self.texts.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(end);
            return (self.flush(), true);
        }
        let may_begin = |start: &usize| self.texts.iter().any(|stop| stop.starts_with(&self.held[*start..]));
        let starts = self.held.char_indices().map(|(start, _)| start);
        let undecided = starts.clone().find(may_begin).unwrap_or(self.held.len());
        let rest = self.held.split_off(undecided);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What is left when the answer ends otherwise.
    pub(super) fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is shown of an answer that arrives in pieces.
    fn shown(stops: &[String], pieces: &[String]) -> String {
        let mut state = Stops::new(stops.to_vec());
        let mut text = String::new();
        for piece in pieces {
            let (more, ended) = state.push(piece);
            text += &more;
            if ended {
                return text;
            }
        }
        text + &state.flush()
    }

    proptest! {
        #[test]
        fn however_the_answer_is_cut_it_ends_before_the_first_stop(
            stops in prop::collection::vec("[abé]{1,4}", 0..3),
            pieces in prop::collection::vec("[abcé]{0,5}", 0..12),
        ) {
            let whole = pieces.concat();
            let shown = shown(&stops, &pieces);
            // A stop that is complete first ends the answer, before its own beginning.
            let ends = stops.iter().filter_map(|stop| whole.find(stop.as_str()).map(|at| at + stop.len()));
            match ends.min() {
                None => prop_assert_eq!(shown, whole),
                Some(end) => {
                    prop_assert!(whole.starts_with(&shown) && shown.len() < end);
                    prop_assert!(stops.iter().all(|stop| !shown.contains(stop.as_str())));
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_a_stop_is_shown_at_once() {
        let mut stops = Stops::new(vec!["END".into()]);
        assert_eq!(stops.push("the E"), ("the ".into(), false));
        assert_eq!(stops.push("N"), (String::new(), false));
        assert_eq!(stops.push("T"), ("ENT".into(), false));
        assert_eq!(stops.push("xEND and more"), ("x".into(), true));
    }
}
