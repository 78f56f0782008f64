//! What happens to a text before byte-pair encoding: normalization and pre-tokenization.

use super::bytes;
use super::split::Split;
use std::borrow::Cow;
use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper};

/// The steps before byte-pair encoding, in order.
#[derive(Default)]
pub(super) struct Pipeline {
    pub(super) normalizers: Vec<Normalize>,
    pub(super) steps: Vec<Step>,
}

/// One step of normalization, which sees all text between two special tokens.
pub(super) enum Normalize {
    /// Puts a text in front, unless there is nothing.
    Prepend(String),
    /// Replaces each occurrence of a text by another.
    Replace(String, String),
    /// A normalizer of the `tokenizers` library.
    Library(Box<NormalizerWrapper>),
}

/// One step of pre-tokenization, which sees the pieces of the step before.
pub(super) enum Step {
    /// Cuts each piece.
    Split(Box<Split>),
    /// Spells each byte as one printable character (GPT-2).
    Bytes,
    /// Replaces spaces by this character.
    Spaces(char),
    /// Puts this character in front of each piece that does not begin with it.
    Prefix {
        mark: char,
        /// Only in front of the piece at the start of the text.
        first: bool,
    },
}

impl From<Split> for Step {
    fn from(split: Split) -> Step {
        Step::Split(Box::new(split))
    }
}

impl Pipeline {
    /// A text after all normalizers.
    pub(super) fn normalize<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.normalizers.iter().fold(Cow::Borrowed(text), |text, step| match step {
            Normalize::Prepend(_) if text.is_empty() => text,
            Normalize::Prepend(prefix) => format!("{prefix}{text}").into(),
            Normalize::Replace(from, to) => text.replace(from, to).into(),
            // ASCII is in Unicode's composed form (NFC) already.
            Normalize::Library(step) if text.is_ascii() && matches!(**step, NormalizerWrapper::NFC(_)) => text,
            Normalize::Library(step) => {
                let mut normalized = NormalizedString::from(&*text);
                step.normalize(&mut normalized).expect("no normalizer that is accepted refuses a text");
                normalized.get().to_string().into()
            }
        })
    }

    /// Passes each piece of a normalized text to `emit`. `at_start` says whether it begins the whole text.
    pub(super) fn pieces<E>(
        &self,
        text: &str,
        at_start: bool,
        emit: &mut impl FnMut(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        pieces(&self.steps, text, at_start, emit)
    }
}

fn pieces<E>(
    steps: &[Step],
    text: &str,
    at_start: bool,
    emit: &mut impl FnMut(&str) -> Result<(), E>,
) -> Result<(), E> {
    if text.is_empty() {
        return Ok(());
    }
    let Some((step, rest)) = steps.split_first() else { return emit(text) };
    match step {
        Step::Split(split) => {
            for piece in split.pieces(text) {
                pieces(rest, &text[piece.clone()], at_start && piece.start == 0, emit)?;
            }
            Ok(())
        }
        Step::Bytes => {
            let mut spelled = String::with_capacity(2 * text.len());
            bytes::to_byte_level(text, &mut spelled);
            pieces(rest, &spelled, at_start, emit)
        }
        Step::Spaces(mark) => pieces(rest, &text.replace(' ', mark.encode_utf8(&mut [0; 4])), at_start, emit),
        Step::Prefix { mark, first } if text.starts_with(*mark) || *first && !at_start => {
            pieces(rest, text, at_start, emit)
        }
        Step::Prefix { mark, .. } => pieces(rest, &format!("{mark}{text}"), at_start, emit),
    }
}
